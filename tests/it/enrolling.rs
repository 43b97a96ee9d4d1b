//! Enrolling, cancelling, loading a class, and what the enrolled, the cancelled and all others see of a course in each
//! of its statuses. Recording progress itself is tested in `recording` and `exactness`.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, TimeDelta, Utc};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Caller, Course, Lectern, course_body, event, seconds_ago};

// ---- One learner ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn enrolling_is_created_once_and_ok_from_then_on() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let learner = lectern.learner("lena");

    let first = learner.enrol(&course).await.expect(StatusCode::CREATED);

    assert_eq!(keys(&first), ["completedAt", "courseId", "enrolledAt", "status", "userId"]);
    assert_eq!((&first["courseId"], &first["userId"]), (&json!(course.id), &json!("lena")));
    assert_eq!((&first["status"], &first["completedAt"]), (&json!("active"), &Value::Null));
    for _ in 0..2 {
        assert_eq!(learner.enrol(&course).await.expect(StatusCode::OK), first);
    }
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "1");
    lectern.learner("other").enrol(&course).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn of_many_that_enrol_one_learner_at_once_exactly_one_creates() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let course = lectern.course("ada", &[1]).await;
    let callers = [lectern.learner("lena"), beside.learner("lena")];

    let answers = join_all((0..20).map(|index| callers[index % 2].enrol(&course))).await;

    let bodies: Vec<Value> = answers.iter().map(|answer| answer.expect(answer.status)).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let mut counts = BTreeMap::new();
    for answer in &answers {
        *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(200, 19), (201, 1)]));
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "1");
}

#[tokio::test]
async fn cancelling_has_always_no_content() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let path = format!("/courses/{}/enrollment", course.id);
    let never = lectern.learner("never");
    for _ in 0..2 {
        let answer = never.delete(&path).await;
        answer.expect(StatusCode::NO_CONTENT);
        assert_eq!(answer.text, "");
    }
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "0");
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    for _ in 0..2 {
        learner.delete(&path).await.expect(StatusCode::NO_CONTENT);
        assert_eq!(lectern.fetch("select status from enrollments").await, "cancelled");
    }
    // Whoever was in may leave, whatever became of the course.
    learner.enrol(&course).await.expect(StatusCode::OK);
    for (version, status) in [(1, "draft"), (2, "archived")] {
        lectern
            .teacher("ada")
            .patch(&format!("/courses/{}", course.id), version, &json!({"status": status}))
            .await
            .expect(StatusCode::OK);
        learner.delete(&path).await.expect(StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn enrolling_again_goes_on_from_the_first_time() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2, 2]).await;
    let learner = lectern.learner("lena");
    let first = learner.enrol(&course).await.expect(StatusCode::CREATED);
    let events = [event(&course.sections[0], 60, true), event(&course.sections[2], 30, false)];
    learner.record(&events).await.expect(StatusCode::OK);
    let summary = learner.summary(&course).await;
    let outline = learner.get(&format!("/me/courses/{}", course.id)).await.expect(StatusCode::OK);
    let home = learner.get("/me/courses").await.expect(StatusCode::OK);
    assert_eq!((&summary["completedSections"], &summary["totalTimeSpent"]), (&json!(1), &json!(90)));

    learner.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    // Cancelling keeps everything; it only ends the enrollment.
    assert_eq!(learner.summary(&course).await, summary);
    assert_eq!(learner.get("/me/courses").await.expect(StatusCode::OK)["enrollments"], json!([]));
    let refused = learner.record(&[event(&course.sections[1], 5, true)]).await.expect(StatusCode::OK);
    assert_eq!(refused["results"][0]["code"], "not_enrolled");
    // What was recorded before is still known.
    let repeated = learner.record(&events).await.expect(StatusCode::OK);
    assert_eq!(repeated["duplicates"], 2);

    assert_eq!(learner.enrol(&course).await.expect(StatusCode::OK), first);
    assert_eq!(learner.summary(&course).await, summary);
    assert_eq!(learner.get(&format!("/me/courses/{}", course.id)).await.expect(StatusCode::OK), outline);
    assert_eq!(learner.get("/me/courses").await.expect(StatusCode::OK), home);
    let recorded = learner.record(&[event(&course.sections[1], 5, true)]).await.expect(StatusCode::OK);
    assert_eq!(recorded["recorded"], 1);
    assert_eq!(learner.summary(&course).await["completedSections"], 2);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_completion_survives_cancelling_and_enrolling_again() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let learner = lectern.learner("lena");
    learner.enrol(&course).await.expect(StatusCode::CREATED);
    learner.record(&[event(&course.sections[0], 60, true)]).await.expect(StatusCode::OK);
    let completed = learner.enrol(&course).await.expect(StatusCode::OK);
    assert_eq!(completed["completedAt"], learner.summary(&course).await["completedAt"]);
    assert!(completed["completedAt"].is_string());
    learner.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(learner.enrol(&course).await.expect(StatusCode::OK), completed);
}

#[tokio::test]
async fn a_draft_takes_nobody_in() {
    let lectern = Lectern::start().await;
    let draft = lectern.teacher("ada").create(&course_body("Draft", &[1], false)).await.expect(StatusCode::CREATED);
    let draft = Course::of(&draft);
    lectern.learner("lena").enrol(&draft).await.problem(404, "course_not_found");
    // They see it, so they are told why.
    lectern.teacher("ada").enrol(&draft).await.problem(409, "not_published");
    lectern.caller("root", &["admin"]).enrol(&draft).await.problem(409, "not_published");
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "0");
}

#[tokio::test]
async fn an_archived_course_keeps_its_learners_and_takes_no_new_ones() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let (enrolled, cancelled) = (lectern.learner("enrolled"), lectern.learner("cancelled"));
    let first = enrolled.enrol(&course).await.expect(StatusCode::CREATED);
    cancelled.enrol(&course).await.expect(StatusCode::CREATED);
    cancelled.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    lectern.teacher("ada").delete(&format!("/courses/{}", course.id)).await.expect(StatusCode::NO_CONTENT);
    let before = lectern.fetch("select string_agg(e::text, ' ' order by user_id) from enrollments e").await;

    assert_eq!(enrolled.enrol(&course).await.expect(StatusCode::OK), first);
    lectern.learner("never").enrol(&course).await.problem(404, "course_not_found");
    cancelled.enrol(&course).await.problem(409, "archived");
    lectern.teacher("ada").enrol(&course).await.problem(409, "archived");

    assert_eq!(lectern.fetch("select string_agg(e::text, ' ' order by user_id) from enrollments e").await, before);
    let recorded = enrolled.record(&[event(&course.sections[0], 5, true)]).await.expect(StatusCode::OK);
    assert_eq!(recorded["courses"][0]["completionPercentage"], 100.0);
}

#[tokio::test]
async fn a_teacher_may_take_their_own_course() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let teacher = lectern.teacher("ada");
    teacher.enrol(&course).await.expect(StatusCode::CREATED);
    teacher.record(&[event(&course.sections[0], 5, true)]).await.expect(StatusCode::OK);
    assert_eq!(teacher.summary(&course).await["completionPercentage"], 100.0);
}

// ---- A class --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_service_loads_a_class_with_a_result_for_each_row() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    lectern.learner("before").enrol(&course).await.expect(StatusCode::CREATED);
    lectern.learner("left").enrol(&course).await.expect(StatusCode::CREATED);
    let of_left = lectern.learner("left").enrol(&course).await.expect(StatusCode::OK);
    lectern.learner("left").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    let long_ago = "2020-02-29T12:34:56.789012Z";

    let results = load(
        &lectern.service(),
        &course,
        &[
            json!({"userId": "new"}),
            json!({"userId": "then", "enrolledAt": long_ago}),
            json!({"userId": "before", "enrolledAt": long_ago}),
            json!({"userId": "left", "enrolledAt": long_ago}),
            json!({"userId": "then", "enrolledAt": seconds_ago(60)}),
            json!({"userId": "later", "enrolledAt": seconds_ago(-600)}),
            json!({"userId": "soon", "enrolledAt": seconds_ago(-240)}),
            json!({"userId": "🦀 'quoted'", "enrolledAt": null}),
        ],
    )
    .await;

    assert_eq!(
        results,
        [
            ("new", "enrolled", None),
            ("then", "enrolled", None),
            ("before", "already_enrolled", None),
            ("left", "enrolled", None),
            ("then", "already_enrolled", None),
            ("later", "rejected", Some("in_future")),
            ("soon", "enrolled", None),
            ("🦀 'quoted'", "enrolled", None),
        ]
        .map(row)
    );
    assert_eq!(lectern.fetch("select count(*) from enrollments where status = 'active'").await, "6");
    // Whose clock is ahead does not bar anybody until it is right.
    let may_learn = "select count(*) from enrollments where active_during @> now() and status = 'active'";
    assert_eq!(lectern.fetch(may_learn).await, "6");
    let then = lectern.learner("then").enrol(&course).await.expect(StatusCode::OK);
    assert_eq!(then["enrolledAt"], long_ago);
    assert_eq!(lectern.learner("left").enrol(&course).await.expect(StatusCode::OK), of_left);
    lectern.learner("later").enrol(&course).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn a_row_that_is_refused_does_not_stand_in_the_way_of_a_good_one_for_the_same_learner() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let results = load(
        &lectern.service(),
        &course,
        &[
            json!({"userId": "lena", "enrolledAt": seconds_ago(-600)}),
            json!({"userId": "lena", "enrolledAt": "2020-01-01T00:00:00Z"}),
            json!({"userId": "lena"}),
        ],
    )
    .await;
    let expected =
        [("lena", "rejected", Some("in_future")), ("lena", "enrolled", None), ("lena", "already_enrolled", None)];
    assert_eq!(results, expected.map(row));
    let enrollment = lectern.learner("lena").enrol(&course).await.expect(StatusCode::OK);
    assert_eq!(enrollment["enrolledAt"], "2020-01-01T00:00:00Z");
}

#[tokio::test]
async fn a_class_can_be_loaded_again() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let class: Vec<Value> =
        (0..100).map(|n| json!({"userId": format!("u{n}"), "enrolledAt": seconds_ago(1_000 + n)})).collect();
    let statuses = async |caller: &Caller<'_>| {
        let results = load(caller, &course, &class).await;
        results.iter().map(|result| result["status"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&lectern.service()).await, vec![json!("enrolled"); 100]);
    let before = lectern.fetch("select md5(string_agg(e::text, ' ' order by user_id)) from enrollments e").await;
    assert_eq!(statuses(&lectern.caller("root", &["admin"])).await, vec![json!("already_enrolled"); 100]);
    let after = lectern.fetch("select md5(string_agg(e::text, ' ' order by user_id)) from enrollments e").await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_closed_course_takes_no_class_and_says_so_for_each_row() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    lectern.learner("in").enrol(&course).await.expect(StatusCode::CREATED);
    lectern.learner("out").enrol(&course).await.expect(StatusCode::CREATED);
    lectern.learner("out").delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    let before = lectern.fetch("select string_agg(e::text, ' ' order by user_id) from enrollments e").await;
    for (version, status, code) in [(1, "draft", "not_published"), (2, "archived", "archived")] {
        lectern
            .teacher("ada")
            .patch(&format!("/courses/{}", course.id), version, &json!({"status": status}))
            .await
            .expect(StatusCode::OK);
        let class = ["new", "in", "out", "new"].map(|user| json!({"userId": user}));
        let results = load(&lectern.service(), &course, &class).await;
        let expected = [
            ("new", "rejected", Some(code)),
            ("in", "already_enrolled", None),
            ("out", "rejected", Some(code)),
            ("new", "rejected", Some(code)),
        ];
        assert_eq!(results, expected.map(row), "{status}");
    }
    assert_eq!(lectern.fetch("select string_agg(e::text, ' ' order by user_id) from enrollments e").await, before);
}

#[tokio::test]
async fn only_services_and_admins_load_a_class() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let path = format!("/courses/{}/enrollments", course.id);
    let batch = json!({"enrollments": [{"userId": "lena"}]});
    // Not even the owner, and not even for oneself.
    for caller in [lectern.learner("lena"), lectern.teacher("eve"), lectern.teacher("ada")] {
        caller.post(&path, &batch).await.problem(403, "forbidden");
    }
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "0");
    for (caller, status) in [
        (lectern.service(), "enrolled"),
        (lectern.caller("batch", &["service"]), "already_enrolled"),
        (lectern.caller("root", &["admin"]), "already_enrolled"),
    ] {
        let answer = caller.post(&path, &batch).await.expect(StatusCode::OK);
        assert_eq!(answer["results"][0]["status"], status);
    }
}

#[tokio::test]
async fn classes_that_overlap_can_be_loaded_at_once_in_any_order() {
    let lectern = Lectern::start().await;
    let beside = lectern.another().await;
    let course = lectern.course("ada", &[1]).await;
    let services = [lectern.service(), beside.service()];
    let class = |shift: usize| {
        let mut users: Vec<Value> = (0..60).map(|n| json!({"userId": format!("u{}", (n + shift) % 80)})).collect();
        if shift % 2 == 1 {
            users.reverse();
        }
        users
    };
    let classes: Vec<Vec<Value>> = (0..16).map(|index| class(index * 5)).collect();

    let loads = (0..16).map(|index| load(&services[index % 2], &course, &classes[index]));
    let results = join_all(loads).await.concat();

    let mut enrolled: BTreeMap<&str, usize> = BTreeMap::new();
    for result in &results {
        assert_ne!(result["status"], "rejected", "{result}");
        let first = usize::from(result["status"] == "enrolled");
        *enrolled.entry(result["userId"].as_str().expect("a user")).or_default() += first;
    }
    // Each learner was enrolled by exactly one of the batches that name them.
    assert_eq!(enrolled.len(), 80);
    assert!(enrolled.values().all(|count| *count == 1), "{enrolled:?}");
    assert_eq!(lectern.fetch("select count(*) from enrollments").await, "80");
}

// ---- Who sees what --------------------------------------------------------------------------------------------------

/// Who looks at a course, how it stands, and what becomes of the calls in [`look`].
///
/// `outline` is the one for everybody and goes by the course alone, since that route knows no callers.
#[rustfmt::skip]
const SIGHTS: [(&str, &str, [&str; 6]); 18] = [
    // course      caller            outline  /me/courses/…     section         progress         lesson           home
    ("draft",     "anyone",         ["404", "404",             "404",          "404",           "404",           "absent"]),
    ("draft",     "enrolled",       ["404", "404",             "404",          "404",           "404",           "absent"]),
    ("draft",     "cancelled",      ["404", "404",             "404",          "404",           "404",           "absent"]),
    ("draft",     "owner",          ["404", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
    ("draft",     "enrolled owner", ["404", "200 progress",    "200",          "200",           "200",           "listed"]),
    ("draft",     "admin",          ["404", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
    ("published", "anyone",         ["200", "200 no progress", "403 enrolled", "404 enrolled",  "404 enrolled",  "absent"]),
    ("published", "enrolled",       ["200", "200 progress",    "200",          "200",           "200",           "listed"]),
    ("published", "cancelled",      ["200", "200 progress",    "403 enrolled", "200",           "200",           "absent"]),
    ("published", "owner",          ["200", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
    ("published", "enrolled owner", ["200", "200 progress",    "200",          "200",           "200",           "listed"]),
    ("published", "admin",          ["200", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
    ("archived",  "anyone",         ["404", "404",             "404",          "404",           "404",           "absent"]),
    ("archived",  "enrolled",       ["404", "200 progress",    "200",          "200",           "200",           "listed"]),
    ("archived",  "cancelled",      ["404", "404",             "404",          "200",           "200",           "absent"]),
    ("archived",  "owner",          ["404", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
    ("archived",  "enrolled owner", ["404", "200 progress",    "200",          "200",           "200",           "listed"]),
    ("archived",  "admin",          ["404", "200 no progress", "200",          "404 enrolled",  "404 enrolled",  "absent"]),
];

#[tokio::test]
async fn everybody_sees_of_a_course_what_its_status_and_their_part_in_it_allow() {
    let lectern = Lectern::start().await;
    let (of_ada, of_eve) = (lectern.course("ada", &[2]).await, lectern.course("eve", &[2]).await);
    for course in [&of_ada, &of_eve] {
        for learner in ["enrolled", "cancelled"] {
            take(&lectern.learner(learner), course).await;
        }
        lectern
            .learner("cancelled")
            .delete(&format!("/courses/{}/enrollment", course.id))
            .await
            .expect(StatusCode::NO_CONTENT);
    }
    // Eve takes her own course, ada does not.
    take(&lectern.teacher("eve"), &of_eve).await;
    for (version, status) in (1..).zip(["published", "draft", "archived", "published", "archived", "draft"]) {
        for (teacher, course) in [("ada", &of_ada), ("eve", &of_eve)] {
            let change = json!({"status": status});
            lectern
                .teacher(teacher)
                .patch(&format!("/courses/{}", course.id), version, &change)
                .await
                .expect(StatusCode::OK);
        }
        let rows: Vec<_> = SIGHTS.iter().filter(|(of, _, _)| *of == status).collect();
        assert_eq!(rows.len(), 6);
        for (_, caller, expected) in rows {
            let (caller_of, course) = match *caller {
                "anyone" => (lectern.teacher("somebody"), &of_ada),
                "owner" => (lectern.teacher("ada"), &of_ada),
                "enrolled owner" => (lectern.teacher("eve"), &of_eve),
                "admin" => (lectern.caller("root", &["admin"]), &of_ada),
                learner => (lectern.learner(learner), &of_ada),
            };
            // Twice, because what came from the database the first time may come from the cache the second.
            for _ in 0..2 {
                assert_eq!(look(&lectern, &caller_of, course).await, *expected, "{status} {caller}");
            }
        }
    }
}

#[tokio::test]
async fn an_admin_who_takes_a_course_sees_all_of_it_while_it_is_unpublished() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[2]).await;
    let admin = lectern.caller("root", &["admin"]);
    take(&admin, &course).await;
    let change = json!({"status": "draft"});
    lectern.teacher("ada").patch(&format!("/courses/{}", course.id), 1, &change).await.expect(StatusCode::OK);
    assert_eq!(look(&lectern, &admin, &course).await, ["404", "200 progress", "200", "200", "200", "listed"]);
    admin.delete(&format!("/courses/{}/progress", course.id)).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(admin.summary(&course).await["completedSections"], 0);
}

#[tokio::test]
async fn what_an_admin_sees_is_not_shown_to_a_learner_of_the_same_name() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[1]).await;
    let (admin, learner) = (lectern.caller("root", &["admin"]), lectern.learner("root"));
    take(&admin, &course).await;
    let change = json!({"status": "draft"});
    lectern.teacher("ada").patch(&format!("/courses/{}", course.id), 1, &change).await.expect(StatusCode::OK);
    for _ in 0..2 {
        admin.summary(&course).await;
        learner.get(&format!("/courses/{}/progress", course.id)).await.problem(404, "course_not_found");
    }
}

#[tokio::test]
async fn what_a_learner_does_counts_by_the_status_of_the_course() {
    let lectern = Lectern::start().await;
    let course = lectern.course("ada", &[3]).await;
    let callers = ["enrolled", "cancelled", "never"].map(|user| lectern.learner(user));
    for caller in &callers[..2] {
        caller.enrol(&course).await.expect(StatusCode::CREATED);
    }
    callers[1].delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    for (version, status, expected) in [
        (1, "published", [None, Some("not_enrolled"), Some("not_enrolled")]),
        (2, "draft", [Some("not_published"), Some("not_published"), Some("unknown_section")]),
        (3, "archived", [None, Some("not_enrolled"), Some("unknown_section")]),
    ] {
        lectern
            .teacher("ada")
            .patch(&format!("/courses/{}", course.id), version, &json!({"status": status}))
            .await
            .expect(StatusCode::OK);
        for (caller, code) in callers.iter().zip(expected) {
            let answer = caller.record(&[event(&course.sections[0], 10, false)]).await.expect(StatusCode::OK);
            let result = &answer["results"][0];
            let outcome = if code.is_none() { "recorded" } else { "rejected" };
            assert_eq!((&result["status"], &result["code"]), (&json!(outcome), &json!(code)), "{status}");
        }
    }
    assert_eq!(callers[0].summary(&course).await["totalTimeSpent"], 20);
}

#[tokio::test]
async fn the_home_page_lists_ones_active_courses_last_active_first() {
    let lectern = Lectern::start().await;
    let learner = lectern.learner("lena");
    let mut courses = Vec::new();
    for days in 1..=5_i64 {
        let course = lectern.course("ada", &[2]).await;
        let entry = json!({"userId": "lena", "enrolledAt": seconds_ago(days * 86_400)});
        load(&lectern.service(), &course, &[entry]).await;
        courses.push(course);
    }
    // Enrolled 1 to 5 days ago; the one of four days ago was worked on an hour ago, the second one was left.
    let mut worked = event(&courses[3].sections[0], 300, true);
    worked["occurredAt"] = json!(an_hour_ago());
    learner.record(&[worked.clone()]).await.expect(StatusCode::OK);
    learner.delete(&format!("/courses/{}/enrollment", courses[1].id)).await.expect(StatusCode::NO_CONTENT);
    let expected: Vec<&str> = [3, 0, 2, 4].into_iter().map(|index: usize| courses[index].id.as_str()).collect();

    for limit in [1, 2, 3, 4, 100] {
        let (mut found, mut path) = (Vec::new(), format!("/me/courses?limit={limit}"));
        loop {
            let answer = learner.get(&path).await;
            let page = answer.expect(StatusCode::OK);
            for enrollment in page["enrollments"].as_array().expect("enrollments") {
                found.push(enrollment["courseId"].as_str().expect("an id").to_owned());
            }
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            assert_eq!(answer.header("link"), format!("</me/courses?limit={limit}&cursor={cursor}>; rel=\"next\""));
            path = format!("/me/courses?limit={limit}&cursor={cursor}");
        }
        assert_eq!(found, expected, "by {limit}");
    }

    let page = learner.get("/me/courses").await.expect(StatusCode::OK);
    let enrolled_at = learner.enrol(&courses[3]).await.expect(StatusCode::OK)["enrolledAt"].clone();
    assert_eq!(
        page["enrollments"][0],
        json!({
            "courseId": courses[3].id, "courseTitle": "A course", "imageUrl": null, "status": "active",
            "enrolledAt": enrolled_at, "completedAt": null, "lastActivityAt": worked["occurredAt"],
            "completedSections": 1, "totalSections": 2, "totalTimeSpent": 300, "completionPercentage": 50,
            "nextSectionId": courses[3].sections[1],
        })
    );
    assert_eq!(
        lectern.learner("other").get("/me/courses").await.expect(StatusCode::OK),
        json!({"enrollments": [], "nextCursor": null})
    );
}

// ---- What the tests stand on ----------------------------------------------------------------------------------------

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Without a fraction, which would lose its last noughts on the way.
fn an_hour_ago() -> String {
    (Utc::now() - TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A row of a batch's results.
fn row((user, status, code): (&str, &str, Option<&str>)) -> Value {
    json!({"userId": user, "status": status, "code": code})
}

/// Loads a class and answers the results.
async fn load(caller: &Caller<'_>, course: &Course, entries: &[Value]) -> Vec<Value> {
    let answer = caller.post(&format!("/courses/{}/enrollments", course.id), &json!({"enrollments": entries})).await;
    let results = answer.expect(StatusCode::OK)["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), entries.len());
    results
}

/// Enrols and completes the first section.
async fn take(caller: &Caller<'_>, course: &Course) {
    caller.enrol(course).await.expect(StatusCode::CREATED);
    let answer = caller.record(&[event(&course.sections[0], 60, true)]).await.expect(StatusCode::OK);
    assert_eq!(answer["recorded"], 1);
}

/// What somebody gets to see of a course: the outline for all, the outline with their progress, a section, their
/// progress in the course and in a lesson, and whether it stands on their home page.
async fn look(lectern: &Lectern, caller: &Caller<'_>, course: &Course) -> [String; 6] {
    let (id, lesson, section) = (&course.id, &course.lessons[0], &course.sections[0]);
    let home = caller.get("/me/courses").await;
    home.expect(StatusCode::OK);
    let mine = caller.get(&format!("/me/courses/{id}")).await;
    let progress = match mine.status {
        StatusCode::OK => match mine.expect(StatusCode::OK)["progress"].is_null() {
            true => " no progress",
            false => " progress",
        },
        _ => "",
    };
    [
        outcome(&lectern.anyone().get(&format!("/courses/{id}")).await, "course_not_found"),
        outcome(&mine, "course_not_found") + progress,
        outcome(&caller.get(&format!("/sections/{section}")).await, "section_not_found"),
        outcome(&caller.get(&format!("/courses/{id}/progress")).await, "course_not_found"),
        outcome(&caller.get(&format!("/lessons/{lesson}/progress")).await, "lesson_not_found"),
        if home.text.contains(id) { "listed" } else { "absent" }.to_owned(),
    ]
}

/// The status, and a word more where the thing is there and the caller is not enrolled.
fn outcome(answer: &Answer, missing: &str) -> String {
    if answer.status == StatusCode::OK {
        return "200".to_owned();
    }
    let status = answer.status.as_u16();
    let code = answer.expect(answer.status)["code"].as_str().expect("a code").to_owned();
    let word = match code.as_str() {
        "not_enrolled" => " enrolled",
        code if code == missing => "",
        other => return format!("{status} {other}"),
    };
    answer.problem(status, &code);
    format!("{status}{word}")
}
