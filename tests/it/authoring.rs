//! Making courses, changing them, and finding them in lists. What is refused as bad input is tested in `hostile`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, FixedOffset};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Caller, Course, Lectern, course_body};

// ---- Creating -------------------------------------------------------------------------------------------------------

/// Texts that something on the way might bend: escapes, quotes, other directions, marks that combine, half-widths.
const TEXTS: [&str; 10] = [
    "🦀🏳️‍🌈👩🏽‍🚀 \u{10ffff}\u{e000}",
    "مرحبا \u{202e}شكرا\u{202c} שָׁלוֹם",
    r#""double" 'single' `back` “curly” \ \\ \" \u0041 \n"#,
    "\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{1f}\u{7f}\u{85}\u{9f}",
    " leading and trailing \t\n",
    "\u{feff}e\u{301} \u{e9} ﬁ ａ \u{2028}\u{2029}\u{200b}\u{ad}",
    "{\"json\": [1, null]} <b>&amp;</b> %00 $1 ${x}",
    "null",
    "0",
    "中文 日本語 한국어 ไทย हिन्दी",
];

#[tokio::test]
async fn a_course_comes_back_in_its_order_and_to_the_byte() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let section = |order: i64, text: &str| {
        let word: String = text.chars().take(50).collect();
        json!({"title": text, "content": text.repeat(3), "type": word, "order": order, "duration": order * 60})
    };
    // Orders have gaps, and nothing is sent in its place.
    let orders = [700, 3, 1_000_000, 1, 41];
    let lessons: Vec<Value> = orders
        .into_iter()
        .enumerate()
        .map(|(index, order)| {
            let sections: Vec<Value> = [5, 2, 9, 1].into_iter().map(|order| section(order, TEXTS[2 * index])).collect();
            json!({"title": TEXTS[2 * index + 1], "order": order, "sections": sections})
        })
        .collect();
    let body = json!({
        "courseData": {
            "title": TEXTS[2], "description": TEXTS.concat(), "difficulty": "advanced",
            "imageUrl": "https://example.org/ä?x=\"1\"&y=🦀#z", "estimatedHours": 12.25,
        },
        "lessons": lessons,
    });

    let answer = teacher.create(&body).await;

    let course = answer.expect(StatusCode::CREATED);
    for key in ["title", "description", "difficulty", "imageUrl", "estimatedHours"] {
        assert_eq!(course[key], body["courseData"][key], "{key}");
    }
    assert_eq!((&course["lessonCount"], &course["sectionCount"]), (&json!(5), &json!(20)));
    let mut sent: Vec<&Value> = lessons.iter().collect();
    sent.sort_by_key(|lesson| lesson["order"].as_i64());
    let made = items(&course["lessons"]);
    assert_eq!(made.len(), sent.len());
    for (sent, made) in sent.into_iter().zip(made) {
        assert_eq!(
            (&made["title"], &made["order"], &made["sectionCount"]),
            (&sent["title"], &sent["order"], &json!(4))
        );
        let mut sections: Vec<&Value> = items(&sent["sections"]).iter().collect();
        sections.sort_by_key(|section| section["order"].as_i64());
        assert_eq!(items(&made["sections"]).len(), sections.len());
        for (sent, made) in sections.into_iter().zip(items(&made["sections"])) {
            for key in ["title", "type", "order", "duration"] {
                assert_eq!(made[key], sent[key], "{key}");
            }
            let id = made["id"].as_str().expect("an id");
            let read = teacher.get(&format!("/sections/{id}")).await.expect(StatusCode::OK);
            for key in ["title", "type", "order", "duration", "content"] {
                assert_eq!(read[key], sent[key], "{key}");
            }
        }
    }
}

#[tokio::test]
async fn every_thing_of_a_new_course_has_an_id_of_its_own_that_sorts_by_time() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3, 0, 2]).await;
    let ids: Vec<&String> = [&course.id].into_iter().chain(&course.lessons).chain(&course.sections).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 1 + 3 + 5);
    for id in ids {
        let id: Uuid = id.parse().expect("a UUID");
        assert_eq!(id.get_version_num(), 7);
    }
}

#[tokio::test]
async fn a_new_course_is_a_draft_that_its_owner_reads_as_it_was_answered() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let mut body = course_body("Draft", &[2, 0], false);
    body["courseData"].as_object_mut().expect("an object").remove("isPublished");

    let answer = teacher.create(&body).await;

    let course = answer.expect(StatusCode::CREATED);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("location"), format!("/courses/{}", text(&course["id"])));
    assert_eq!(answer.header("idempotent-replayed"), "");
    for (key, value) in [
        ("status", json!("draft")),
        ("isPublished", json!(false)),
        ("publishedAt", json!(null)),
        ("version", json!(1)),
        ("enrollmentCount", json!(0)),
        ("imageUrl", json!(null)),
        ("estimatedHours", json!(null)),
        ("updatedAt", course["createdAt"].clone()),
    ] {
        assert_eq!(course[key], value, "{key}");
    }
    assert_eq!(course["lessons"][0]["sections"][0]["duration"], Value::Null);
    let mut read = teacher.get(&format!("/me{}", answer.header("location"))).await.expect(StatusCode::OK);
    assert_eq!(read["progress"], Value::Null);
    assert_eq!(read["lessons"][0]["sections"][0].get("progress"), Some(&Value::Null));
    remove_progress(&mut read);
    assert_eq!(read, course);
    lectern.anyone().get(answer.header("location")).await.problem(404, "course_not_found");
}

#[tokio::test]
async fn a_published_course_is_answered_as_everybody_reads_it_to_the_byte() {
    let lectern = Lectern::start().await;
    let answer = lectern.teacher("ada").create(&course_body("Published 🦀", &[2, 0, 1], true)).await;
    let course = answer.expect(StatusCode::CREATED);
    assert_eq!((&course["status"], &course["isPublished"]), (&json!("published"), &json!(true)));
    assert_eq!(course["publishedAt"], course["createdAt"]);
    let read = lectern.anyone().get(answer.header("location")).await;
    read.expect(StatusCode::OK);
    assert_eq!(read.text, answer.text);
}

#[tokio::test]
async fn a_course_and_a_lesson_may_be_empty() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let empty = teacher.create(&course_body("Empty", &[], true)).await.expect(StatusCode::CREATED);
    assert_eq!((&empty["lessons"], &empty["lessonCount"]), (&json!([]), &json!(0)));
    let hollow = teacher.create(&course_body("Hollow", &[0], true)).await.expect(StatusCode::CREATED);
    assert_eq!(hollow["lessons"][0]["sections"], json!([]));
    assert_eq!(hollow["lessons"][0]["sectionCount"], 0);
    let id = text(&empty["id"]);
    teacher.put(&format!("/courses/{id}/enrollment")).await.expect(StatusCode::CREATED);
    let summary = teacher.get(&format!("/courses/{id}/progress")).await.expect(StatusCode::OK);
    assert_eq!((&summary["totalSections"], &summary["completionPercentage"]), (&json!(0), &Value::Null));
}

// ---- The key of a creation ------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_same_key_and_body_get_the_first_answer_again_whatever_became_of_the_course() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let body = course_body("Once", &[2], true);
    let first = teacher.create_with_key("key", &body).await;
    let course = Course::of(&first.expect(StatusCode::CREATED));
    let path = format!("/courses/{}", course.id);
    let again = async || {
        let again = teacher.create_with_key("key", &body).await;
        again.expect(StatusCode::CREATED);
        assert_eq!((again.text.as_str(), again.header("location")), (first.text.as_str(), path.as_str()));
        assert_eq!(again.header("idempotent-replayed"), "true");
    };

    again().await;
    teacher.patch(&path, 1, &json!({"title": "Twice", "status": "draft"})).await.expect(StatusCode::OK);
    again().await;
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);
    again().await;

    assert_eq!(lectern.fetch("select count(*) from courses").await, "1");
    let read = teacher.get(&format!("/me{path}")).await.expect(StatusCode::OK);
    assert_eq!((&read["title"], &read["status"]), (&json!("Twice"), &json!("archived")));
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let body = course_body("One", &[1], true);
    teacher.create_with_key("key", &body).await.expect(StatusCode::CREATED);
    for other in [course_body("Two", &[1], true), course_body("One", &[1], false), course_body("One", &[1, 0], true)] {
        teacher.create_with_key("key", &other).await.problem(422, "idempotency_key_reused");
    }
    assert_eq!(lectern.fetch("select count(*) from courses").await, "1");
    // What was refused has not taken the place of the first.
    let again = teacher.create_with_key("key", &body).await;
    again.expect(StatusCode::CREATED);
    assert_eq!(again.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_refused_request_burns_no_key() {
    let lectern = Lectern::start().await;
    let (teacher, learner) = (lectern.teacher("ada"), lectern.learner("ada"));
    let good = course_body("Good", &[1], true);
    let mut wide = course_body("Wide", &[0], true);
    let sections = (1..=36_000).map(|order| json!({"title": "s", "content": "", "type": "t", "order": order}));
    wide["lessons"][0]["sections"] = sections.collect();
    let mut wrong = good.clone();
    wrong["lessons"][0]["sections"][0]["order"] = json!(-1);

    teacher.create_with_key("key", &wrong).await.problem(400, "invalid_body");
    teacher.create_with_key("key", &wide).await.problem(413, "answer_too_large");
    learner.create_with_key("key", &good).await.problem(403, "forbidden");
    let request = teacher.request(Method::POST, "/courses").header("idempotency-key", "key");
    Answer::of(request.header("content-type", "text/plain").body(good.to_string()))
        .await
        .problem(415, "unsupported_media_type");

    let answer = teacher.create_with_key("key", &good).await;
    answer.expect(StatusCode::CREATED);
    assert_eq!(answer.header("idempotent-replayed"), "");
}

#[tokio::test]
async fn a_key_belongs_to_its_teacher() {
    let lectern = Lectern::start().await;
    let body = course_body("Shared words", &[1], true);
    let mut ids = BTreeSet::new();
    for teacher in ["ada", "eve"] {
        let answer = lectern.teacher(teacher).create_with_key("key", &body).await;
        assert_eq!(answer.header("idempotent-replayed"), "", "{teacher}");
        ids.insert(text(&answer.expect(StatusCode::CREATED)["id"]).to_owned());
    }
    assert_eq!(ids.len(), 2);
    let other = course_body("Of eve's own", &[1], true);
    lectern.teacher("eve").create_with_key("key", &other).await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn twenty_creations_at_once_with_one_key_make_one_course() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let body = course_body("One of twenty", &[5, 5, 5], true);
    let teachers = [lectern.teacher("ada"), beside.teacher("ada")];

    let answers = join_all((0..20).map(|index| teachers[index % 2].create_with_key("key", &body))).await;

    let first = &answers[0];
    for answer in &answers {
        answer.expect(StatusCode::CREATED);
        assert_eq!((&answer.text, answer.header("location")), (&first.text, first.header("location")));
    }
    let fresh = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
    assert_eq!(fresh, 1);
    let counts = "(select count(*) from courses) || '/' || (select count(*) from lessons) || '/' || (select count(*) from sections)";
    assert_eq!(lectern.fetch(counts).await, "1/3/15");
}

#[tokio::test]
async fn of_two_bodies_at_once_with_one_key_one_wins() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let bodies = [course_body("One", &[3], true), course_body("Two", &[3], true)];

    let answers = join_all((0..12).map(|index| teacher.create_with_key("key", &bodies[index % 2]))).await;

    let won = |answer: &Answer| answer.status == StatusCode::CREATED;
    let winner = answers.iter().position(won).expect("a winner") % 2;
    for (index, answer) in answers.iter().enumerate() {
        if index % 2 == winner {
            let title = answer.expect(StatusCode::CREATED)["title"].clone();
            assert_eq!(title, bodies[winner]["courseData"]["title"]);
        } else {
            answer.problem(422, "idempotency_key_reused");
        }
    }
    assert_eq!(lectern.fetch("select count(*) from courses").await, "1");
}

// ---- Changing -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_change_changes_what_it_names_and_nothing_else() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let created = teacher.create(&course_body("Before", &[1, 2], true)).await.expect(StatusCode::CREATED);
    let path = format!("/courses/{}", text(&created["id"]));
    let mut course = created;
    for (field, value) in [
        ("title", json!("After 🦀 \"quoted\"")),
        ("description", json!("")),
        ("description", json!("Line\nbreak")),
        ("difficulty", json!("advanced")),
        ("imageUrl", json!("https://example.org/new.png")),
        ("imageUrl", json!(null)),
        ("estimatedHours", json!(0.5)),
        ("estimatedHours", json!(0)),
        ("estimatedHours", json!(null)),
    ] {
        let version = course["version"].as_i64().expect("a version");
        let changed = teacher.patch(&path, version, &json!({field: value})).await.expect(StatusCode::OK);
        assert!(moment(&changed["updatedAt"]) > moment(&course["updatedAt"]), "{field}");
        // A number is the same with and without a point.
        let same = |one: &Value, other: &Value| one == other || one.is_number() && one.as_f64() == other.as_f64();
        assert!(same(&changed[field], &value), "{field}: {}", changed[field]);
        course["version"] = json!(version + 1);
        course["updatedAt"] = changed["updatedAt"].clone();
        course[field] = changed[field].clone();
        assert_eq!(changed, course, "{field}");
        let read = lectern.anyone().get(&path).await.expect(StatusCode::OK);
        assert_eq!(read, course, "{field}");
    }
    let nothing = teacher.patch(&path, 10, &json!({})).await.expect(StatusCode::OK);
    assert_eq!((&nothing["version"], &nothing["title"]), (&json!(11), &course["title"]));
}

#[tokio::test]
async fn analytics_can_be_switched_off_and_on() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let path = format!("/courses/{}", course.id);
    let enabled = async || lectern.fetch("select analytics_enabled from courses").await;
    assert_eq!(enabled().await, "true");
    for (version, wanted) in [(1, false), (2, true)] {
        let change = json!({"analyticsEnabled": wanted});
        lectern.teacher("ada").patch(&path, version, &change).await.expect(StatusCode::OK);
        assert_eq!(enabled().await, wanted.to_string());
    }
}

#[tokio::test]
async fn a_change_needs_the_version_that_it_is_made_for() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let (teacher, path) = (lectern.teacher("ada"), format!("/courses/{}", course.id));
    teacher.patch(&path, 1, &json!({"title": "Second"})).await.expect(StatusCode::OK);
    let problem = teacher.patch(&path, 1, &json!({"title": "Lost"})).await.problem(412, "stale_version");
    assert!(text(&problem["detail"]).contains("\"v2\""), "{problem}");
    teacher.patch(&path, 3, &json!({"title": "Early"})).await.problem(412, "stale_version");
    let request = teacher.request(Method::PATCH, &path).json(&json!({"title": "Blind"}));
    Answer::of(request).await.problem(428, "if_match_required");
    let read = lectern.anyone().get(&path).await.expect(StatusCode::OK);
    assert_eq!((&read["title"], &read["version"]), (&json!("Second"), &json!(2)));
}

#[tokio::test]
async fn an_admin_changes_and_archives_the_courses_of_others() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let (admin, path) = (lectern.caller("root", &["admin"]), format!("/courses/{}", course.id));
    let changed = admin.patch(&path, 1, &json!({"status": "draft"})).await.expect(StatusCode::OK);
    assert_eq!(changed["status"], "draft");
    admin.delete(&path).await.expect(StatusCode::NO_CONTENT);
    let mut read = lectern.teacher("ada").get(&format!("/me{path}")).await.expect(StatusCode::OK);
    assert_eq!(read["status"], "archived");
    remove_progress(&mut read);
    let changed = admin.patch(&path, 3, &json!({"title": "Root was here"})).await.expect(StatusCode::OK);
    assert_eq!((&changed["title"], &changed["lessons"]), (&json!("Root was here"), &read["lessons"]));
}

#[tokio::test]
async fn a_course_goes_through_every_status_and_keeps_its_first_publication() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let created = teacher.create(&course_body("Life", &[1], false)).await.expect(StatusCode::CREATED);
    let path = format!("/courses/{}", text(&created["id"]));
    let mut published_at = Value::Null;
    let course = ["published", "draft", "published", "archived", "published", "archived", "draft", "archived"];
    for (index, status) in course.into_iter().enumerate() {
        let version = i64::try_from(index).expect("a small number") + 1;
        let changed = teacher.patch(&path, version, &json!({"status": status})).await.expect(StatusCode::OK);
        assert_eq!((&changed["status"], &changed["isPublished"]), (&json!(status), &json!(status == "published")));
        if published_at.is_null() {
            published_at = changed["publishedAt"].clone();
            assert_eq!(published_at, changed["updatedAt"]);
        }
        assert_eq!(changed["publishedAt"], published_at, "{status}");
        let seen = lectern.anyone().get(&path).await;
        if status == "published" {
            assert_eq!(seen.expect(StatusCode::OK), changed);
        } else {
            seen.problem(404, "course_not_found");
        }
    }
}

#[tokio::test]
async fn a_draft_that_is_archived_was_never_published() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let created = teacher.create(&course_body("Early end", &[1], false)).await.expect(StatusCode::CREATED);
    let path = format!("/courses/{}", text(&created["id"]));
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);
    let read = teacher.get(&format!("/me{path}")).await.expect(StatusCode::OK);
    assert_eq!((&read["status"], &read["publishedAt"]), (&json!("archived"), &Value::Null));
    let back = teacher.patch(&path, 2, &json!({"status": "published"})).await.expect(StatusCode::OK);
    assert_eq!(back["publishedAt"], back["updatedAt"]);
}

#[tokio::test]
async fn deleting_archives_and_can_be_repeated() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1, 1]).await;
    let (teacher, path) = (lectern.teacher("ada"), format!("/courses/{}", course.id));
    let delete = async |version: i64| {
        Answer::of(teacher.request(Method::DELETE, &path).header("if-match", format!("\"v{version}\""))).await
    };

    delete(2).await.problem(412, "stale_version");
    lectern.anyone().get(&path).await.expect(StatusCode::OK);
    let answer = delete(1).await;
    answer.expect(StatusCode::NO_CONTENT);
    assert_eq!(answer.text, "");
    lectern.anyone().get(&path).await.problem(404, "course_not_found");
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);

    let read = teacher.get(&format!("/me{path}")).await.expect(StatusCode::OK);
    assert_eq!((&read["status"], &read["version"], &read["sectionCount"]), (&json!("archived"), &json!(2), &json!(2)));
    assert_eq!(lectern.fetch("select count(*) from sections").await, "2");
}

#[tokio::test]
async fn of_changes_at_once_to_one_version_exactly_one_wins() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let course = lectern.course("ada", &[2]).await;
    let path = format!("/courses/{}", course.id);
    let teachers = [lectern.teacher("ada"), beside.teacher("ada")];
    let changes: Vec<Value> = (0..12).map(|index| json!({"title": format!("Change {index}")})).collect();

    let answers = join_all((0..12).map(|index| teachers[index % 2].patch(&path, 1, &changes[index]))).await;

    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().enumerate().partition(|(_, answer)| answer.status.is_success());
    assert_eq!(won.len(), 1);
    for (_, answer) in lost {
        answer.problem(412, "stale_version");
    }
    let read = beside.anyone().get(&path).await.expect(StatusCode::OK);
    assert_eq!((&read["title"], &read["version"]), (&changes[won[0].0]["title"], &json!(2)));
}

// ---- Lists ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_listed_course_says_what_a_card_needs() {
    let lectern = Lectern::start().await;
    let mut body = course_body("Card 🦀", &[2, 3], true);
    body["courseData"]["imageUrl"] = json!("https://example.org/card.png");
    body["courseData"]["estimatedHours"] = json!(2.5);
    let course = lectern.teacher("ada").create(&body).await.expect(StatusCode::CREATED);
    let mut expected = json!({"lessonCount": 2, "enrollmentCount": 0});
    for key in [
        "id",
        "title",
        "description",
        "difficulty",
        "imageUrl",
        "estimatedHours",
        "isPublished",
        "createdAt",
        "publishedAt",
    ] {
        expected[key] = course[key].clone();
    }
    let page = lectern.anyone().get("/courses").await.expect(StatusCode::OK);
    assert_eq!(page, json!({"courses": [expected], "nextCursor": null}));
    for key in ["status", "version", "updatedAt"] {
        expected[key] = course[key].clone();
    }
    let page = lectern.teacher("ada").get("/me/authored-courses").await.expect(StatusCode::OK);
    assert_eq!(page, json!({"courses": [expected], "nextCursor": null}));
}

#[tokio::test]
async fn enrollments_are_counted_as_of_the_last_refresh() {
    let lectern = Lectern::start().await;
    let (few, many) = (lectern.course("ada", &[1]).await, lectern.course("ada", &[1]).await);
    for learner in ["a", "b", "c"] {
        lectern.learner(learner).enrol(&many).await.expect(StatusCode::CREATED);
    }
    lectern.learner("a").enrol(&few).await.expect(StatusCode::CREATED);
    let popular = async || {
        let page = lectern.anyone().get("/courses?sort=popular").await.expect(StatusCode::OK);
        let counts = items(&page["courses"])
            .iter()
            .map(|course| (text(&course["id"]).to_owned(), course["enrollmentCount"].clone()));
        counts.collect::<Vec<_>>()
    };
    assert!(popular().await.iter().all(|(_, count)| *count == 0));
    lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(popular().await, [(many.id, json!(3)), (few.id, json!(1))]);
}

#[tokio::test]
async fn pages_have_no_gap_and_no_repetition_even_where_all_keys_are_equal() {
    let lectern = Lectern::start().await;
    let all = catalogue_of(&lectern, 27).await;
    lectern
        .sql("update courses set published_at = '2026-01-01Z', created_at = '2026-01-01Z', title = 'Same', enrollment_count = 3")
        .await;
    let visitor = lectern.teacher("ada");
    let descending: Vec<String> = all.iter().rev().cloned().collect();
    for (list, expected) in [
        ("/courses", &descending),
        ("/courses?sort=newest", &descending),
        ("/courses?sort=title", &all),
        ("/courses?sort=popular", &descending),
        ("/me/authored-courses", &descending),
    ] {
        for limit in [1, 4, 9, 26, 27, 100] {
            let pages = walk(&visitor, list, limit).await;
            assert_eq!(&pages.concat(), expected, "{list} by {limit}");
            let (last, full) = pages.split_last().expect("a page");
            assert!(
                full.iter().all(|page| page.len() == limit) && (1..=limit).contains(&last.len()),
                "{list} by {limit}"
            );
        }
    }
    let page = visitor.get("/courses").await.expect(StatusCode::OK);
    assert_eq!(items(&page["courses"]).len(), 20);
}

#[tokio::test]
async fn each_sort_has_its_order() {
    let lectern = Lectern::start().await;
    let all = catalogue_of(&lectern, 8).await;
    let mut facts: Vec<(String, &str, i64, i64)> = Vec::new();
    let titles = ["banana", "Apple", "apple", "Zebra", "10", "9", "Éclair", "zebra"];
    for (index, (id, title)) in all.iter().zip(titles).enumerate() {
        let index = i64::try_from(index).expect("a small number");
        let (day, count) = (1 + (index * 3) % 5, (index * 7) % 4);
        lectern
            .sql(&format!(
                "update courses set title = '{title}', published_at = '2026-01-0{day}Z', enrollment_count = {count} where id = '{id}'"
            ))
            .await;
        facts.push((id.clone(), title, day, count));
    }
    let ids = |facts: &[(String, &str, i64, i64)]| facts.iter().map(|fact| fact.0.clone()).collect::<Vec<_>>();
    let visitor = lectern.anyone();
    facts.sort_by(|one, other| (other.2, &other.0).cmp(&(one.2, &one.0)));
    assert_eq!(walk(&visitor, "/courses?sort=newest", 3).await.concat(), ids(&facts));
    facts.sort_by(|one, other| (other.3, &other.0).cmp(&(one.3, &one.0)));
    assert_eq!(walk(&visitor, "/courses?sort=popular", 3).await.concat(), ids(&facts));
    // By the bytes of the title in small letters; which letters beside a to z have a small form is the database's affair.
    facts.sort_by_key(|fact| (fact.1.to_ascii_lowercase(), fact.0.clone()));
    assert_eq!(walk(&visitor, "/courses?sort=title", 3).await.concat(), ids(&facts));
}

#[tokio::test]
async fn a_filter_holds_through_all_pages() {
    let lectern = Lectern::start().await;
    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (index, id) in catalogue_of(&lectern, 12).await.into_iter().enumerate() {
        let difficulty = ["beginner", "intermediate", "advanced", "beginner"][index % 4];
        lectern.sql(&format!("update courses set difficulty = '{difficulty}' where id = '{id}'")).await;
        expected.entry(difficulty).or_default().insert(id);
    }
    for sort in ["newest", "title", "popular"] {
        for (difficulty, ids) in &expected {
            let list = format!("/courses?difficulty={difficulty}&sort={sort}");
            let found = walk(&lectern.anyone(), &list, 2).await.concat();
            assert_eq!(found.len(), ids.len(), "{list}");
            assert_eq!(&found.into_iter().collect::<BTreeSet<_>>(), ids, "{list}");
        }
    }
}

#[tokio::test]
async fn a_course_that_appears_while_somebody_turns_pages_shifts_nothing() {
    let lectern = Lectern::start().await;
    let all = catalogue_of(&lectern, 6).await;
    let visitor = lectern.anyone();
    let first = visitor.get("/courses?limit=3").await.expect(StatusCode::OK);
    let newcomer = lectern.course("eve", &[1]).await;
    let gone = &all[1];
    lectern.teacher("ada").delete(&format!("/courses/{gone}")).await.expect(StatusCode::NO_CONTENT);
    let cursor = text(&first["nextCursor"]);
    let second = visitor.get(&format!("/courses?limit=3&cursor={cursor}")).await.expect(StatusCode::OK);
    let expected = [all[2].clone(), all[0].clone()];
    assert_eq!(ids(&second), expected);
    assert_eq!(ids(&visitor.get("/courses?limit=1").await.expect(StatusCode::OK)), [newcomer.id]);
}

#[tokio::test]
async fn an_author_lists_their_own_courses_of_every_status() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("ada");
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut all = Vec::new();
    for (index, status) in ["draft", "published", "archived", "draft", "published", "draft"].into_iter().enumerate() {
        let created =
            teacher.create(&course_body(&format!("Course {index}"), &[1], false)).await.expect(StatusCode::CREATED);
        let id = text(&created["id"]).to_owned();
        if status != "draft" {
            teacher.patch(&format!("/courses/{id}"), 1, &json!({"status": status})).await.expect(StatusCode::OK);
        }
        expected.entry(status).or_default().insert(0, id.clone());
        all.insert(0, id);
    }
    lectern.course("eve", &[1]).await;
    assert_eq!(walk(&teacher, "/me/authored-courses", 2).await.concat(), all);
    for (status, ids) in expected {
        let list = format!("/me/authored-courses?status={status}");
        assert_eq!(walk(&teacher, &list, 2).await.concat(), ids, "{status}");
        let page = teacher.get(&list).await.expect(StatusCode::OK);
        for course in items(&page["courses"]) {
            assert_eq!((&course["status"], &course["isPublished"]), (&json!(status), &json!(status == "published")));
        }
    }
}

#[tokio::test]
async fn a_change_of_status_is_felt_by_the_next_request_past_any_cache() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let course = lectern.course("ada", &[1]).await;
    let path = format!("/courses/{}", course.id);
    let lists = ["/courses", "/courses?sort=title", "/courses?sort=popular", "/courses?difficulty=beginner&limit=5"];
    let look = async |listed: bool| {
        for place in [&lectern, &beside] {
            for list in lists {
                let page = place.anyone().get(list).await.expect(StatusCode::OK);
                assert_eq!(ids(&page).contains(&course.id), listed, "{list}");
            }
            let detail = place.anyone().get(&path).await;
            assert_eq!(detail.status == StatusCode::OK, listed, "{}", detail.text);
        }
    };
    for (version, status) in (2..).zip(["draft", "published", "archived", "published"]) {
        let listed = status != "published";
        look(listed).await;
        // What is asked again comes from the cache, or this test would show nothing.
        for list in lists {
            assert_eq!(lectern.anyone().get(list).await.header("x-cache"), "hit", "{list}");
        }
        lectern.teacher("ada").patch(&path, version - 1, &json!({"status": status})).await.expect(StatusCode::OK);
        look(!listed).await;
    }
    lectern.teacher("ada").delete(&path).await.expect(StatusCode::NO_CONTENT);
    look(false).await;
}

#[tokio::test]
async fn a_new_title_is_read_everywhere_by_the_next_request() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let course = lectern.course("ada", &[1]).await;
    let path = format!("/courses/{}", course.id);
    lectern.learner("lena").enrol(&course).await.expect(StatusCode::CREATED);
    let titles = async || {
        let mut titles = Vec::new();
        for place in [&lectern, &beside] {
            titles.push(place.anyone().get("/courses").await.expect(StatusCode::OK)["courses"][0]["title"].clone());
            titles.push(place.anyone().get(&path).await.expect(StatusCode::OK)["title"].clone());
            titles.push(place.learner("lena").summary(&course).await["courseTitle"].clone());
        }
        titles
    };
    for (version, title) in (1..).zip(["One", "Two", "Three"]) {
        lectern.teacher("ada").patch(&path, version, &json!({"title": title})).await.expect(StatusCode::OK);
        assert_eq!(titles().await, vec![json!(title); 6]);
        // And once more, from the cache.
        assert_eq!(titles().await, vec![json!(title); 6]);
    }
}

// ---- What the tests stand on ----------------------------------------------------------------------------------------

fn items(list: &Value) -> &Vec<Value> {
    list.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn moment(value: &Value) -> DateTime<FixedOffset> {
    DateTime::parse_from_rfc3339(text(value)).expect("a moment")
}

/// The courses of a page.
fn ids(page: &Value) -> Vec<String> {
    items(&page["courses"]).iter().map(|course| text(&course["id"]).to_owned()).collect()
}

/// Takes away what `GET /me/courses/{courseId}` says beyond the course itself.
fn remove_progress(course: &mut Value) {
    let mut places = vec![course];
    while let Some(place) = places.pop() {
        match place {
            Value::Object(object) => {
                object.remove("progress");
                places.extend(object.values_mut());
            }
            Value::Array(items) => places.extend(items.iter_mut()),
            _ => {}
        }
    }
}

/// So many published courses of ada's; their ids ascend.
async fn catalogue_of(lectern: &Lectern, count: usize) -> Vec<String> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(lectern.course("ada", &[1]).await.id);
    }
    assert!(all.is_sorted());
    all
}

/// The ids on all pages of a list, by its `nextCursor`s, which must be what its `Link`s say.
async fn walk(caller: &Caller<'_>, list: &str, limit: usize) -> Vec<Vec<String>> {
    let sign = if list.contains('?') { '&' } else { '?' };
    let start = format!("{list}{sign}limit={limit}");
    let (mut pages, mut path) = (Vec::new(), start.clone());
    loop {
        let answer = caller.get(&path).await;
        let page = answer.expect(StatusCode::OK);
        pages.push(ids(&page));
        assert!(pages.len() <= 100, "{list} has no end");
        let link = answer.header("link");
        let Some(cursor) = page["nextCursor"].as_str() else {
            assert_eq!((link, &page["nextCursor"]), ("", &Value::Null));
            return pages;
        };
        let next = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).expect("a link");
        assert_eq!(next, format!("{start}&cursor={cursor}"));
        path = next.to_owned();
    }
}

// ---- Searching ------------------------------------------------------------------------------------------------------

/// The titles that a search finds, in its order.
async fn found(lectern: &Lectern, query: &str) -> Vec<String> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let page = lectern.anyone().get(&format!("/courses?q={encoded}&limit=100")).await.expect(StatusCode::OK);
    let titles = page["courses"].as_array().expect("courses").iter().map(|course| text(&course["title"]).to_owned());
    titles.collect()
}

async fn publish(lectern: &Lectern, title: &str, description: &str) {
    let mut body = course_body(title, &[1], true);
    body["courseData"]["description"] = description.into();
    lectern.teacher("ada").create(&body).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_search_finds_words_whatever_their_case_accents_and_order() {
    let lectern = Lectern::start().await;
    for (title, description) in [
        ("Déjà-vu für Anfänger", "Kurs"),
        ("Knots", "Three that hold, and one about déjà vu."),
        ("مرحبا بالعالم", "Arabic"),
        ("C++ and node.js", "Languages"),
        ("Καλημέρα", "Greek"),
    ] {
        publish(&lectern, title, description).await;
    }
    let draft = course_body("Déjà draft", &[1], false);
    lectern.teacher("ada").create(&draft).await.expect(StatusCode::CREATED);

    // The title weighs more than the description, and drafts are not there.
    assert_eq!(found(&lectern, "deja vu").await, ["Déjà-vu für Anfänger", "Knots"]);
    assert_eq!(found(&lectern, "VU DÉJÀ").await, ["Déjà-vu für Anfänger", "Knots"]);
    assert_eq!(found(&lectern, "deja-vu").await.len(), 2);
    // Of the last word the beginning is enough, of the others it is not.
    assert_eq!(found(&lectern, "fur anfang").await, ["Déjà-vu für Anfänger"]);
    assert!(found(&lectern, "anfang fur").await.is_empty());
    assert_eq!(found(&lectern, "καλημερα").await, ["Καλημέρα"]);
    assert_eq!(found(&lectern, "مرحبا").await, ["مرحبا بالعالم"]);
    assert_eq!(found(&lectern, "js").await, ["C++ and node.js"]);
    // All words have to be there, and where there is none, there is nothing.
    assert!(found(&lectern, "deja knots nothing").await.is_empty());
    for odd in ["!!", "   ", "' | & <-> :* ! ( \\", "%", "\u{1}"] {
        assert!(found(&lectern, odd).await.is_empty(), "{odd:?}");
    }
    assert_eq!(found(&lectern, "knots' & !hold | <-> :*").await, ["Knots"]);
    // What is renamed is found by its new name alone.
    let path = lectern.fetch("select '/courses/' || id from courses where title = 'Knots'").await;
    lectern.teacher("ada").patch(&path, 1, &json!({"title": "Bends"})).await.expect(StatusCode::OK);
    assert!(found(&lectern, "knots").await.is_empty());
    assert_eq!(found(&lectern, "bend").await, ["Bends"]);
}

#[tokio::test]
async fn what_is_found_is_paged_in_every_order_and_each_cursor_belongs_to_its_search() {
    let lectern = Lectern::start().await;
    for number in 0..13 {
        // Some match better than others, and some alike.
        let title = if number % 3 == 0 { format!("Rust {number}") } else { format!("Course {number}") };
        publish(&lectern, &title, &"rust ".repeat(1 + number % 4)).await;
    }
    publish(&lectern, "Something else", "").await;
    let anyone = lectern.anyone();
    for sort in ["relevance", "newest", "title", "popular"] {
        let path = format!("/courses?q=rust&sort={sort}");
        let whole = anyone.get(&format!("{path}&limit=100")).await.expect(StatusCode::OK);
        let whole = whole["courses"].as_array().expect("courses").clone();
        assert_eq!(whole.len(), 13, "{sort}");
        let (mut paged, mut next) = (Vec::new(), Value::Null);
        loop {
            let cursor = next.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = anyone.get(&format!("{path}&limit=4{cursor}")).await;
            assert_eq!(page.header("x-cache"), "bypass");
            let mut page = page.expect(StatusCode::OK);
            paged.extend(page["courses"].as_array().expect("courses").clone());
            next = page["nextCursor"].take();
            if next.is_null() {
                break;
            }
            for other in ["/courses?q=rus", "/courses", "/courses?q=rust&difficulty=beginner"] {
                let cursor = next.as_str().expect("a cursor");
                let join = if other.contains('?') { '&' } else { '?' };
                anyone.get(&format!("{other}{join}cursor={cursor}")).await.problem(400, "invalid_cursor");
            }
        }
        assert_eq!(paged, whole, "{sort}");
    }
    let none = anyone.get("/courses?q=rust&difficulty=advanced").await.expect(StatusCode::OK);
    assert_eq!(none["courses"], json!([]));
    anyone.get(&format!("/courses?q={}", "x".repeat(201))).await.problem(400, "invalid_parameter");
    anyone.get("/courses?q=a%00b").await.problem(400, "invalid_parameter");
    anyone.get("/courses?sort=relevance").await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn a_letter_behind_other_words_is_the_beginning_of_one_more() {
    let lectern = Lectern::start().await;
    for title in ["Rust basics", "Rust crafts", "Basics of baking", "Rust, but \\ 'b'"] {
        publish(&lectern, title, "").await;
    }
    for (typed, expected) in [
        ("rust b", &["Rust basics", "Rust, but \\ 'b'"][..]),
        ("rust c", &["Rust crafts"]),
        ("rust 'c", &["Rust crafts"]),
        ("rust x", &[]),
        ("baking r", &[]),
        ("b", &["Basics of baking", "Rust basics", "Rust, but \\ 'b'"]),
        ("b c", &[]),
        ("of baking b", &["Basics of baking"]),
    ] {
        let path = format!("/courses?sort=title&q={}", typed.replace(' ', "%20").replace('\'', "%27"));
        let page = lectern.anyone().get(&path).await.expect(StatusCode::OK);
        let titles: Vec<_> = page["courses"].as_array().unwrap().iter().map(|course| &course["title"]).collect();
        assert_eq!(titles, expected, "{typed}");
    }
}

#[tokio::test]
async fn the_best_thousand_matches_are_found_and_no_more() {
    let lectern = Lectern::start().await;
    let many = "insert into courses (
            id, owner_id, title, description, difficulty, status, created_at, updated_at, published_at, words
        )
        select md5(title)::uuid, 'ada', title, 'a zebra', 'beginner', 'published', now(), now(), now(),
            course_words_v1(title, 'a zebra')
        from generate_series(1, 1100) as n
        cross join lateral (select case when n <= 10 then 'Zebra ' else 'Horse ' end || n as title) as made";
    lectern.sql(many).await;
    let found = walk(&lectern.anyone(), "/courses?q=zebra", 100).await.concat();
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 1_000);
    let in_title = "select string_agg(id::text, ' ' order by id) from courses where title like 'Zebra %'";
    let mut best = found[..10].to_vec();
    best.sort();
    assert_eq!(best.join(" "), lectern.fetch(in_title).await, "a title counts for more than a description");
}

#[tokio::test]
async fn whatever_is_typed_or_titled_can_be_searched_for() {
    let lectern = Lectern::start().await;
    // As long as a text may be, of characters that become several when they are folded; and of marks and signs.
    publish(&lectern, &"㌀".repeat(500), &"ﷺ".repeat(20_000)).await;
    publish(&lectern, "😀😀", "\u{202e} שלום & | ! <-> :* ' \\ \u{200f}").await;
    let words = (0..100).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
    publish(&lectern, "Many", &words).await;

    assert_eq!(found(&lectern, "שלו").await, ["😀😀"]);
    let as_long_as_may_be: String = words.chars().take(200).collect();
    for typed in ["many w99 w1", &as_long_as_may_be, &"w1 ".repeat(66), "w1.w2/w3:w4@w5", "MANY'w7"] {
        assert_eq!(found(&lectern, typed).await, ["Many"], "{typed}");
    }
    for typed in [
        &"w ".repeat(100),
        &"x".repeat(200),
        &"&".repeat(200),
        &"' & !".repeat(40),
        &"\u{301}".repeat(200),
        "many:*AB & !w1 | <2> (",
        "many\\' || ''; select",
    ] {
        assert!(found(&lectern, typed).await.is_empty(), "{typed}");
    }
    for typed in ["😀", "㌀", "ﷺ", "\u{200f}", "\u{202e}", "<b>&amp;", "http://a?b=c"] {
        found(&lectern, &typed.repeat(200 / typed.chars().count())).await;
    }
    for refused in ["%00", "many%00", &"%F0%9F%98%80".repeat(201)] {
        lectern.anyone().get(&format!("/courses?q={refused}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn the_largest_page_tells_that_the_list_goes_on() {
    let lectern = Lectern::start_with(|config| config.redis = None).await;
    for _ in 0..102 {
        lectern.course("teacher", &[1]).await;
    }
    for sort in ["newest", "title", "popular"] {
        let path = format!("/courses?sort={sort}&limit=100");
        // Also by the plan that serves any page, which a connection makes after a few requests.
        for _ in 0..8 {
            let first = lectern.anyone().get(&path).await.expect(StatusCode::OK);
            assert_eq!(first["courses"].as_array().unwrap().len(), 100, "{sort}");
            let behind = format!("{path}&cursor={}", first["nextCursor"].as_str().unwrap());
            let rest = lectern.anyone().get(&behind).await.expect(StatusCode::OK);
            assert_eq!((rest["courses"].as_array().unwrap().len(), &rest["nextCursor"]), (2, &Value::Null), "{sort}");
        }
    }
}
