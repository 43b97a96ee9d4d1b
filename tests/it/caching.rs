//! The cache as a client notices it: not at all, but for `X-Cache`. On one Redis and on a cluster it is the same.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use shared::{
    cache::{Cache, Coding, Document, Generation, Slot, Source},
    config::Redis,
    error::Error,
};

use crate::{
    redis_servers,
    support::{Course, Kind, Lectern, event, on_a_node_and_on_a_cluster},
};

const OK: StatusCode = StatusCode::OK;

on_a_node_and_on_a_cluster! {
    a_second_read_is_a_hit_with_the_same_bytes_and_headers,
    what_is_public_may_be_shared_and_what_is_personal_may_not,
    every_write_shows_in_the_next_read_of_every_environment,
    an_enrolment_leaves_what_is_kept_for_everybody,
    enrolling_shows_at_once_though_not_being_enrolled_was_read_before,
    garbage_in_redis_is_a_miss,
    a_reader_that_loaded_before_a_write_stores_nothing_after_it,
    a_repeated_batch_also_voids_what_was_cached_while_its_first_answer_was_lost,
    what_a_service_does_in_many_courses_shows_at_once,
}

/// The three routes that are cached.
fn cached_paths(course: &Course) -> [String; 3] {
    ["/courses".to_owned(), format!("/courses/{}", course.id), format!("/courses/{}/progress", course.id)]
}

async fn started(kind: Kind) -> (Lectern, Course) {
    let lectern = Lectern::start_on(kind).await;
    let course = lectern.course("teacher", &[2]).await;
    lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
    (lectern, course)
}

async fn a_second_read_is_a_hit_with_the_same_bytes_and_headers(kind: Kind) {
    let (lectern, course) = started(kind).await;
    let alice = lectern.learner("alice");
    for path in cached_paths(&course) {
        let (miss, hit) = (alice.get(&path).await, alice.get(&path).await);
        assert_eq!((miss.header("x-cache"), hit.header("x-cache")), ("miss", "hit"), "{path}");
        assert_eq!((&miss.text, miss.header("cache-control")), (&hit.text, hit.header("cache-control")), "{path}");
    }
    let page = |limit: u32| format!("/courses?limit={limit}");
    lectern.course("teacher", &[]).await;
    let (miss, hit) = (alice.get(&page(1)).await, alice.get(&page(1)).await);
    assert_eq!((miss.header("link"), hit.header("x-cache")), (hit.header("link"), "hit"));
    assert!(!hit.header("link").is_empty());
}

async fn what_is_public_may_be_shared_and_what_is_personal_may_not(kind: Kind) {
    let (lectern, course) = started(kind).await;
    let alice = lectern.learner("alice");
    let [list, detail, summary] = cached_paths(&course);
    for path in [list, detail] {
        assert!(alice.get(&path).await.header("cache-control").starts_with("public"), "{path}");
    }
    for path in [summary, format!("/me/courses/{}", course.id), "/me/courses".to_owned()] {
        assert!(alice.get(&path).await.header("cache-control").starts_with("private"), "{path}");
    }
}

async fn every_write_shows_in_the_next_read_of_every_environment(kind: Kind) {
    let (lectern, course) = started(kind).await;
    let other = lectern.another().await;
    let (alice, there) = (lectern.learner("alice"), other.learner("alice"));
    let [list, detail, summary] = cached_paths(&course);
    let seen = async |path: &str| {
        // Twice, so that the second is from the cache wherever that is allowed.
        let first = there.get(path).await;
        let second = there.get(path).await;
        assert_eq!(second.status, first.status, "{path}");
        if first.status == OK {
            assert_eq!((second.header("x-cache"), &second.text), ("hit", &first.text), "{path}");
        }
        first
    };
    for completed in 1..=2 {
        seen(&summary).await;
        alice.record(&[event(&course.sections[completed - 1], 1, true)]).await.expect(OK);
        assert_eq!(seen(&summary).await.expect(OK)["completedSections"], completed);
    }
    alice.delete(&summary).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(seen(&summary).await.expect(OK)["completedSections"], 0);

    seen(&detail).await;
    seen(&list).await;
    let (path, teacher) = (format!("/courses/{}", course.id), lectern.teacher("teacher"));
    teacher.patch(&path, 1, &json!({"title": "Another title"})).await.expect(OK);
    assert_eq!(seen(&detail).await.expect(OK)["title"], "Another title");
    assert_eq!(seen(&list).await.expect(OK)["courses"][0]["title"], "Another title");
    assert_eq!(seen(&summary).await.expect(OK)["courseTitle"], "Another title");
    teacher.patch(&path, 2, &json!({"status": "draft"})).await.expect(OK);
    seen(&detail).await.problem(404, "course_not_found");
    seen(&summary).await.problem(404, "course_not_found");
    assert_eq!(seen(&list).await.expect(OK)["courses"], json!([]));
    teacher.patch(&path, 3, &json!({"status": "published"})).await.expect(OK);
    seen(&detail).await.expect(OK);
    lectern.course("teacher", &[]).await;
    assert_eq!(seen(&list).await.expect(OK)["courses"].as_array().unwrap().len(), 2);
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);
    seen(&detail).await.problem(404, "course_not_found");
    assert_eq!(seen(&list).await.expect(OK)["courses"].as_array().unwrap().len(), 1);
}

async fn an_enrolment_leaves_what_is_kept_for_everybody(kind: Kind) {
    let (lectern, course) = started(kind).await;
    let anyone = lectern.anyone();
    let [list, detail, _] = cached_paths(&course);
    for path in [&list, &detail] {
        anyone.get(path).await.expect(OK);
    }
    let bob = lectern.learner("bob");
    bob.enrol(&course).await.expect(StatusCode::CREATED);
    bob.record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    let class = json!({"enrollments": [{"userId": "carol"}]});
    lectern.service().post(&format!("/courses/{}/enrollments", course.id), &class).await.expect(OK);
    bob.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    for path in [&list, &detail] {
        assert_eq!(anyone.get(path).await.header("x-cache"), "hit", "{path}");
    }
}

async fn enrolling_shows_at_once_though_not_being_enrolled_was_read_before(kind: Kind) {
    let lectern = Lectern::start_on(kind).await;
    let course = lectern.course("teacher", &[1]).await;
    let summary = format!("/courses/{}/progress", course.id);
    let bob = lectern.learner("bob");
    bob.get(&summary).await.problem(404, "not_enrolled");
    bob.enrol(&course).await.expect(StatusCode::CREATED);
    bob.get(&summary).await.expect(OK);
    lectern.learner("carol").get(&summary).await.problem(404, "not_enrolled");
}

#[tokio::test]
async fn without_redis_or_with_a_dead_one_the_answers_are_the_same() {
    let (lectern, course) = started(Kind::Node).await;
    let config = lectern.app().config.clone();
    let nobody_listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("redis://{}/", nobody_listens.local_addr().unwrap());
    // A listener that never accepts: connecting succeeds and nothing ever answers.
    for redis_url in [None, Some(dead), Some("redis://127.0.0.1:1/".to_owned())] {
        let other = Lectern::start_with(|fresh| {
            *fresh = config.clone();
            fresh.redis = redis_url.as_deref().map(Redis::at);
        })
        .await;
        for path in cached_paths(&course) {
            let (expected, answer) =
                (lectern.learner("alice").get(&path).await, other.learner("alice").get(&path).await);
            assert_eq!((answer.status, &answer.text), (expected.status, &expected.text), "{path}");
            assert_eq!(answer.header("x-cache"), "bypass", "{path}");
        }
        // A write, too, only takes a moment longer.
        other.learner("alice").enrol(&course).await.expect(OK);
    }
}

async fn garbage_in_redis_is_a_miss(kind: Kind) {
    let (lectern, course) = started(kind).await;
    let alice = lectern.learner("alice");
    let settings = lectern.app().config.redis.clone().unwrap();
    let mut nodes = redis_servers::nodes(&settings).await;
    for path in cached_paths(&course) {
        let expected = alice.get(&path).await;
        assert_eq!(alice.get(&path).await.header("x-cache"), "hit");
        let mut spoilt = 0;
        for node in &mut nodes {
            let pattern = format!("{}:*", settings.prefix);
            let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(node).await.unwrap();
            for key in &keys {
                redis::cmd("SET").arg(key).arg(&b"\xff\x00 garbage"[..]).exec_async(node).await.unwrap();
            }
            spoilt += keys.len();
        }
        assert!(spoilt > 0);
        let answer = alice.get(&path).await;
        assert_eq!((answer.status, &answer.text, answer.header("x-cache")), (OK, &expected.text, "miss"), "{path}");
    }
}

async fn a_reader_that_loaded_before_a_write_stores_nothing_after_it(kind: Kind) {
    let lectern = Lectern::start_on(kind).await;
    let cache = Cache::new(lectern.app().config.redis.as_ref()).unwrap();
    let generation = Generation("{race}:g".to_owned());
    let slot = Slot {
        key: "{race}:v".to_owned(),
        coding: Coding::Identity,
        generations: vec![generation.clone()],
        visibility: Generation("{race}:visibility".to_owned()),
        fresh_for: Duration::from_secs(60),
        is_shared: true,
        own: None,
    };
    let load = async |body: &str| Ok::<_, Error>(Document::from(body.to_owned()));
    // Both with a generation that nobody has set yet and with one that is there.
    for there in [false, true] {
        if there {
            cache.bump(std::slice::from_ref(&generation)).await;
        }
        let slow = async {
            let old = load("old").await;
            cache.bump(std::slice::from_ref(&generation)).await;
            old
        };
        assert_eq!(cache.read_through(&slot, slow).await.unwrap(), (Document::from("old".to_owned()), Source::Miss));
        let (document, source) = cache.read_through(&slot, load("new")).await.unwrap();
        assert_eq!((document.body.text(), source), (Some("new"), Source::Miss));
        let (document, source) = cache.read_through(&slot, load("newer")).await.unwrap();
        assert_eq!((document.body.text(), source), (Some("new"), Source::Hit));
    }
}

#[tokio::test]
async fn a_write_is_seen_though_redis_dropped_the_connection_before_it() {
    let (lectern, course) = started(Kind::Node).await;
    let alice = lectern.learner("alice");
    let [_, detail, summary] = cached_paths(&course);
    let kill = async || {
        let mut redis = redis_servers::connect(&lectern.app().config.redis.as_ref().unwrap().url).await;
        // Only the connections of this test's own number: others are at work beside it.
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
        let mine: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut redis).await.unwrap();
        let number = lectern.app().config.redis.as_ref().unwrap().url.rsplit('/').next().unwrap().to_owned();
        for client in clients.lines().filter(|client| client.contains(&format!(" db={number} "))) {
            let id = client.split(' ').next().unwrap().trim_start_matches("id=");
            if id != mine.to_string() {
                redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(&mut redis).await.unwrap();
            }
        }
    };
    for _ in 0..2 {
        alice.get(&summary).await.expect(OK);
        alice.get(&detail).await.expect(OK);
    }
    kill().await;
    alice.record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    assert_eq!(alice.summary(&course).await["completedSections"], 1);
    kill().await;
    lectern.teacher("teacher").patch(&detail, 1, &json!({"status": "draft"})).await.expect(OK);
    alice.get(&detail).await.problem(404, "course_not_found");
}

async fn a_repeated_batch_also_voids_what_was_cached_while_its_first_answer_was_lost(kind: Kind) {
    let (lectern, course) = started(kind).await;
    // An environment that dies between its commit and its word to the cache.
    let dying = Lectern::start_with(|config| {
        *config = lectern.app().config.clone();
        config.redis = None;
    })
    .await;
    let alice = lectern.learner("alice");
    alice.summary(&course).await;
    let sent = event(&course.sections[0], 1, true);
    dying.learner("alice").record(std::slice::from_ref(&sent)).await.expect(OK);
    assert_eq!(alice.record(&[sent]).await.expect(OK)["duplicates"], 1);
    assert_eq!(alice.summary(&course).await["completedSections"], 1);
}

async fn what_a_service_does_in_many_courses_shows_at_once(kind: Kind) {
    let lectern = Lectern::start_on(kind).await;
    let other = lectern.another().await;
    let (service, there) = (lectern.service(), other.learner("alice"));
    let mut courses = Vec::new();
    for _ in 0..12 {
        courses.push(lectern.course("teacher", &[1]).await);
    }
    for course in &courses {
        let enrollments = json!({"enrollments": [{"userId": "alice"}]});
        service.post(&format!("/courses/{}/enrollments", course.id), &enrollments).await.expect(OK);
        for source in ["miss", "hit"] {
            let summary = there.get(&format!("/courses/{}/progress", course.id)).await;
            assert_eq!((&summary.expect(OK)["completedSections"], summary.header("x-cache")), (&json!(0), source));
        }
    }
    let foreign = |course: &Course| {
        let mut event = event(&course.sections[0], 1, true);
        event["userId"] = json!("alice");
        event
    };
    service.record(&courses.iter().map(foreign).collect::<Vec<_>>()).await.expect(OK);
    for course in &courses {
        let summary = there.get(&format!("/courses/{}/progress", course.id)).await;
        assert_eq!((&summary.expect(OK)["completedSections"], summary.header("x-cache")), (&json!(1), "miss"));
    }
}
