//! `ETag`, `If-None-Match`, `Cache-Control`, `Vary` and `Age`: what lets a client keep an answer.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Answer, Caller, Course, Lectern, course_body, event};

const OK: StatusCode = StatusCode::OK;
const NOT_MODIFIED: StatusCode = StatusCode::NOT_MODIFIED;

/// A course long enough to be worth compressing, and a path of every route that can be read.
async fn started() -> (Lectern, Course, Vec<String>) {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("teacher");
    let body = course_body("A course", &[10], true);
    let course = Course::of(&teacher.create(&body).await.expect(StatusCode::CREATED));
    teacher.enrol(&course).await.expect(StatusCode::CREATED);
    teacher.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    let paths = vec![
        "/courses".to_owned(),
        format!("/courses/{}", course.id),
        format!("/courses/{}/progress", course.id),
        format!("/me/courses/{}", course.id),
        format!("/sections/{}", course.sections[0]),
        format!("/lessons/{}/progress", course.lessons[0]),
        format!("/courses/{}/analytics", course.id),
        format!("/courses/{}/enrollments", course.id),
        format!("/courses/{}/enrollments?progress=1-25", course.id),
        "/me/courses".to_owned(),
        "/me/authored-courses".to_owned(),
    ];
    (lectern, course, paths)
}

async fn get(caller: &Caller<'_>, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = caller.request(Method::GET, path);
    Answer::of(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

fn is_strong(etag: &str) -> bool {
    etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"')
}

#[tokio::test]
async fn every_read_has_a_strong_etag_and_is_not_sent_again_to_who_has_it() {
    let (lectern, _, paths) = started().await;
    let teacher = lectern.teacher("teacher");
    for path in paths {
        let first = get(&teacher, &path, &[]).await;
        first.expect(OK);
        let etag = first.header("etag");
        assert!(is_strong(etag), "{path}: {etag}");
        let again = get(&teacher, &path, &[("if-none-match", etag)]).await;
        assert_eq!((again.status, again.text.as_str()), (NOT_MODIFIED, ""), "{path}");
        for name in ["etag", "cache-control", "vary"] {
            assert_eq!(again.header(name), first.header(name), "{path}: {name}");
            assert!(!again.header(name).is_empty(), "{path}: {name}");
        }
        assert!(["hit", "bypass"].contains(&again.header("x-cache")), "{path}");
        assert_eq!(again.header("content-type"), "", "{path}");
        assert_eq!(get(&teacher, &path, &[("if-none-match", "\"other\"")]).await.text, first.text, "{path}");
    }
}

#[tokio::test]
async fn a_compressed_answer_has_an_etag_of_its_own() {
    let (lectern, course, _) = started().await;
    let teacher = lectern.teacher("teacher");
    let path = format!("/courses/{}", course.id);
    let plain = get(&teacher, &path, &[("accept-encoding", "identity")]).await;
    let packed = get(&teacher, &path, &[("accept-encoding", "gzip")]).await;
    assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
    assert!(is_strong(packed.header("etag")));
    assert_ne!(plain.header("etag"), packed.header("etag"));
    assert_eq!((plain.header("vary"), packed.header("vary")), ("accept-encoding", "accept-encoding"));
    for known in [plain.header("etag"), packed.header("etag")] {
        let again = get(&teacher, &path, &[("accept-encoding", "gzip"), ("if-none-match", known)]).await;
        assert_eq!((again.status, again.header("etag")), (NOT_MODIFIED, known));
        assert_eq!(again.header("content-encoding"), "");
    }
}

#[tokio::test]
async fn tags_are_found_in_a_list_weak_or_not_and_a_star_is_any() {
    let (lectern, course, _) = started().await;
    let anyone = lectern.anyone();
    let path = format!("/courses/{}", course.id);
    let etag = get(&anyone, &path, &[]).await.header("etag").to_owned();
    for (known, status) in [
        (format!("\"a\", {etag}"), NOT_MODIFIED),
        (format!("W/{etag}"), NOT_MODIFIED),
        ("*".to_owned(), NOT_MODIFIED),
        (etag.trim_matches('"').to_owned(), OK),
        ("\"\"".to_owned(), OK),
        (",,\"".to_owned(), OK),
    ] {
        assert_eq!(get(&anyone, &path, &[("if-none-match", &known)]).await.status, status, "{known}");
    }
}

#[tokio::test]
async fn a_copy_that_has_changed_is_sent() {
    let (lectern, course, _) = started().await;
    let (alice, teacher) = (lectern.learner("alice"), lectern.teacher("teacher"));
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let (outline, summary) = (format!("/courses/{}", course.id), format!("/courses/{}/progress", course.id));
    let known = get(&alice, &summary, &[]).await.header("etag").to_owned();
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    assert_eq!(get(&alice, &summary, &[("if-none-match", &known)]).await.expect(OK)["completedSections"], 1);
    let known = get(&alice, &outline, &[]).await.header("etag").to_owned();
    teacher.patch(&outline, course.version, &json!({"title": "Another title"})).await.expect(OK);
    assert_eq!(get(&alice, &outline, &[("if-none-match", &known)]).await.expect(OK)["title"], "Another title");
    teacher.delete(&outline).await.expect(StatusCode::NO_CONTENT);
    for known in [&known, "*"] {
        let gone = get(&lectern.anyone(), &outline, &[("if-none-match", known)]).await;
        gone.problem(404, "course_not_found");
        assert_eq!(gone.header("etag"), "");
    }
}

#[tokio::test]
async fn learners_of_the_same_name_of_a_course_do_not_share_a_copy() {
    let (lectern, course, _) = started().await;
    let (alice, bob) = (lectern.learner("alice"), lectern.learner("bob"));
    for learner in [&alice, &bob] {
        learner.enrol(&course).await.expect(StatusCode::CREATED);
    }
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    let summary = format!("/courses/{}/progress", course.id);
    let hers = get(&alice, &summary, &[]).await.header("etag").to_owned();
    // As in a browser in which first one and then the other has signed in.
    assert_eq!(get(&bob, &summary, &[("if-none-match", &hers)]).await.expect(OK)["completedSections"], 0);
}

#[tokio::test]
async fn only_reads_are_conditional() {
    let (lectern, course, _) = started().await;
    let alice = lectern.learner("alice");
    let enrol = alice.request(Method::PUT, &format!("/courses/{}/enrollment", course.id)).header("if-none-match", "*");
    let answer = Answer::of(enrol).await;
    answer.expect(StatusCode::CREATED);
    assert_eq!((answer.header("etag"), answer.header("x-cache")), ("", ""));
}

#[tokio::test]
async fn a_shared_cache_may_keep_what_is_public_for_a_minute_and_nothing_else() {
    let (lectern, _, paths) = started().await;
    let teacher = lectern.teacher("teacher");
    for (index, path) in paths.iter().enumerate() {
        // Once from PostgreSQL, and once from wherever it comes the second time.
        for _ in 0..2 {
            let answer = get(&teacher, path, &[]).await;
            let expected = if index < 2 { "public, max-age=0, s-maxage=60" } else { "private, no-cache" };
            assert_eq!(answer.header("cache-control"), expected, "{path}");
            // A shared cache would take the age of our own copy off the minute.
            assert_eq!(answer.header("age"), "", "{path}");
        }
    }
    let refused = get(&teacher, "/courses?limit=0", &[]).await;
    refused.problem(400, "invalid_parameter");
    assert_eq!((refused.header("cache-control"), refused.header("x-cache")), ("no-store", "bypass"));
}

#[tokio::test]
async fn pages_may_read_the_headers_that_make_a_copy_worth_keeping() {
    let (lectern, ..) = started().await;
    let answer = get(&lectern.anyone(), "/courses", &[("origin", "https://example.org")]).await;
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in ["etag", "link", "location", "retry-after", "x-cache"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}
