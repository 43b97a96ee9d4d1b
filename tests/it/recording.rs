//! Recording progress and seeing it: per-item results, the three shapes, resets, the summary, a lesson's states.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Course, Lectern, event, seconds_ago};

const OK: StatusCode = StatusCode::OK;

/// Status and code of each item.
fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|item| (item["status"].as_str().unwrap_or(""), item["code"].as_str().unwrap_or(""))).collect()
}

/// An event that occurred so many seconds ago.
fn past_event(section: &str, time_spent: u32, completed: bool, seconds: i64) -> Value {
    let mut event = event(section, time_spent, completed);
    event["occurredAt"] = seconds_ago(seconds).into();
    event
}

async fn enrolled(lectern: &Lectern, user: &str, lessons: &[usize]) -> Course {
    let course = lectern.course("teacher", lessons).await;
    lectern.learner(user).enrol(&course).await.expect(StatusCode::CREATED);
    course
}

#[tokio::test]
async fn what_was_recorded_is_in_the_next_answer_and_in_the_summary() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[2, 1]).await;
    let alice = lectern.learner("alice");
    assert_eq!(alice.summary(&course).await["completedSections"], 0);

    let first = past_event(&course.sections[0], 30, true, 60);
    let answer = alice.record(&[first.clone(), event(&course.sections[1], 7, false)]).await.expect(OK);

    assert_eq!(outcomes(&answer), [("recorded", ""), ("recorded", "")]);
    assert_eq!((&answer["recorded"], &answer["duplicates"], &answer["rejected"]), (&json!(2), &json!(0), &json!(0)));
    assert_eq!(answer["results"][0]["eventId"], first["eventId"]);
    let expected = json!([{
        "courseId": course.id, "completedSections": 1, "totalSections": 3, "completionPercentage": 33.33, "completedAt": null,
    }]);
    assert_eq!(answer["courses"], expected);
    let summary = alice.summary(&course).await;
    assert_eq!(summary["completedSections"], 1);
    assert_eq!(summary["totalTimeSpent"], 37);
    assert_eq!(summary["completionPercentage"], 33.33);
    assert_eq!(summary["newSectionsSinceCompletion"], Value::Null);
    assert_eq!(summary["resume"], json!({"lastSectionId": course.sections[1], "nextSectionId": course.sections[1]}));
}

#[tokio::test]
async fn completing_every_section_completes_the_course_at_the_latest_completion() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[1, 1]).await;
    let alice = lectern.learner("alice");
    let (early, late) = (past_event(&course.sections[0], 1, true, 500), past_event(&course.sections[1], 1, true, 100));
    alice.record(std::slice::from_ref(&late)).await.expect(OK);
    let answer = alice.record(&[early]).await.expect(OK);
    assert_eq!(answer["courses"][0]["completionPercentage"], 100.0);
    assert_eq!(answer["courses"][0]["completedAt"], late["occurredAt"]);

    // A late event that happened earlier may move the completion to an earlier moment …
    let earlier = past_event(&course.sections[1], 1, true, 300);
    alice.record(std::slice::from_ref(&earlier)).await.expect(OK);
    let summary = alice.summary(&course).await;
    assert_eq!(summary["completedAt"], earlier["occurredAt"]);
    assert_eq!(
        (&summary["newSectionsSinceCompletion"], &summary["resume"]["nextSectionId"]),
        (&json!(0), &Value::Null)
    );

    // … and nothing moves it to a later one or takes it back.
    let after = [past_event(&course.sections[0], 1, true, 1), past_event(&course.sections[1], 1, false, 1)];
    alice.record(&after).await.expect(OK);
    let summary = alice.summary(&course).await;
    assert_eq!((&summary["completedAt"], &summary["completedSections"]), (&earlier["occurredAt"], &json!(2)));
}

#[tokio::test]
async fn an_event_counts_once_and_its_id_cannot_mean_something_else() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[2]).await;
    let alice = lectern.learner("alice");
    let sent = past_event(&course.sections[0], 10, true, 50);
    alice.record(std::slice::from_ref(&sent)).await.expect(OK);
    for (key, value) in [
        ("sectionId", json!(course.sections[1])),
        ("timeSpent", json!(11)),
        ("completed", json!(false)),
        ("occurredAt", json!(seconds_ago(51))),
        ("occurredAt", Value::Null),
        ("sectionId", json!(Uuid::now_v7())),
    ] {
        let mut other = sent.clone();
        other[key] = value;
        let answer = alice.record(&[sent.clone(), other]).await.expect(OK);
        assert_eq!(outcomes(&answer), [("duplicate", ""), ("rejected", "event_conflict")], "{key}");
    }
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 10);

    // Somebody else may use the same id.
    lectern.learner("bob").enrol(&course).await.expect(StatusCode::CREATED);
    let answer = lectern.learner("bob").record(&[sent]).await.expect(OK);
    assert_eq!(outcomes(&answer), [("recorded", "")]);
}

#[tokio::test]
async fn within_a_batch_the_first_good_item_of_an_id_counts() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[1]).await;
    let good = event(&course.sections[0], 10, false);
    let mut bad = good.clone();
    bad["sectionId"] = json!(Uuid::now_v7());
    let mut other = good.clone();
    other["timeSpent"] = json!(99);
    let answer = lectern.learner("alice").record(&[bad, good.clone(), good, other]).await.expect(OK);
    let expected =
        [("rejected", "event_conflict"), ("recorded", ""), ("duplicate", ""), ("rejected", "event_conflict")];
    assert_eq!(outcomes(&answer), expected);
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 10);
}

#[tokio::test]
async fn items_that_cannot_count_are_told_apart_and_hinder_no_other() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[1]).await;
    let foreign = lectern.course("teacher", &[1]).await;
    let unpublished = enrolled(&lectern, "alice", &[1]).await;
    let patch = json!({"status": "draft"});
    lectern
        .teacher("teacher")
        .patch(&format!("/courses/{}", unpublished.id), unpublished.version, &patch)
        .await
        .expect(OK);
    let unseen = lectern.teacher("teacher").create(&crate::support::course_body("Draft", &[1], false)).await;
    let unseen = Course::of(&unseen.expect(StatusCode::CREATED));
    let section = &course.sections[0];
    let mut late = event(section, 1, true);
    late["occurredAt"] = seconds_ago(-600).into();
    let mut soon = event(section, 1, false);
    soon["occurredAt"] = seconds_ago(-60).into();
    let day = 86_400;
    let events = [
        event(section, 5, false),
        event(&Uuid::now_v7().to_string(), 1, true),
        event(&foreign.sections[0], 1, true),
        event(&unpublished.sections[0], 1, true),
        event(&unseen.sections[0], 1, true),
        past_event(section, 1, true, 30 * day + 60),
        past_event(section, 1, false, 30 * day - 60),
        late,
        soon,
    ];
    let answer = lectern.learner("alice").record(&events).await.expect(OK);
    let expected = [
        ("recorded", ""),
        ("rejected", "unknown_section"),
        ("rejected", "not_enrolled"),
        ("rejected", "not_published"),
        ("rejected", "unknown_section"),
        ("rejected", "too_old"),
        ("recorded", ""),
        ("rejected", "in_future"),
        ("recorded", ""),
    ];
    assert_eq!(outcomes(&answer), expected);
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 7);
}

#[tokio::test]
async fn who_cancelled_records_nothing_and_goes_on_after_enrolling_again() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[1]).await;
    let alice = lectern.learner("alice");
    let counted = event(&course.sections[0], 5, false);
    alice.record(std::slice::from_ref(&counted)).await.expect(OK);
    alice.delete(&format!("/courses/{}/enrollment", course.id)).await.expect(StatusCode::NO_CONTENT);
    let answer = alice.record(&[event(&course.sections[0], 5, true), counted]).await.expect(OK);
    assert_eq!(outcomes(&answer), [("rejected", "not_enrolled"), ("duplicate", "")]);
    alice.enrol(&course).await.expect(OK);
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 10);
}

#[tokio::test]
async fn a_reset_clears_the_progress_and_what_happened_before_it_stays_out() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[1]).await;
    let alice = lectern.learner("alice");
    let before = past_event(&course.sections[0], 9, true, 100);
    alice.record(std::slice::from_ref(&before)).await.expect(OK);
    assert_ne!(alice.summary(&course).await["completedAt"], Value::Null);

    alice.delete(&format!("/courses/{}/progress", course.id)).await.expect(StatusCode::NO_CONTENT);

    let summary = alice.summary(&course).await;
    assert_eq!((&summary["completedSections"], &summary["totalTimeSpent"]), (&json!(0), &json!(0)));
    assert_eq!((&summary["completedAt"], &summary["resume"]["lastSectionId"]), (&Value::Null, &Value::Null));
    let answer = alice.record(&[before, past_event(&course.sections[0], 9, true, 50)]).await.expect(OK);
    assert_eq!(outcomes(&answer), [("duplicate", ""), ("rejected", "before_reset")]);
    let answer = alice.record(&[event(&course.sections[0], 4, true)]).await.expect(OK);
    assert_eq!(outcomes(&answer), [("recorded", "")]);
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 4);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn only_who_was_enrolled_can_reset() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let path = format!("/courses/{}/progress", course.id);
    lectern.learner("bob").delete(&path).await.problem(404, "not_enrolled");
    let unknown = format!("/courses/{}/progress", Uuid::now_v7());
    lectern.learner("bob").delete(&unknown).await.problem(404, "course_not_found");
}

#[tokio::test]
async fn batches_of_every_shape_work_with_an_idempotency_key() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[3]).await;
    let alice = lectern.learner("alice");
    let send = async |key: &str, body: &Value| {
        let request = alice.request(Method::POST, "/progress").header("idempotency-key", key).json(body);
        Answer::of(request).await.expect(OK)
    };
    let split = json!({"sectionIds": course.sections, "timeSpent": 100});
    assert_eq!(send("one", &split).await["recorded"], 3);
    assert_eq!(send("one", &split).await["duplicates"], 3);
    assert_eq!(send("two", &json!([split])).await["recorded"], 3);
    let flat = json!([{"userId": "alice", "sectionId": course.sections[0], "timeSpent": 5, "completed": true}]);
    assert_eq!(send("three", &flat).await["recorded"], 1);
    let mut changed = flat.clone();
    changed[0]["timeSpent"] = json!(6);
    assert_eq!(outcomes(&send("three", &changed).await), [("rejected", "event_conflict")]);
    let summary = alice.summary(&course).await;
    assert_eq!((&summary["totalTimeSpent"], &summary["completedSections"]), (&json!(205), &json!(1)));
    alice.post("/progress", &flat).await.problem(400, "invalid_body");
}

#[tokio::test]
async fn a_service_records_for_many_learners_and_is_told_whose_summary_is_whose() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[2]).await;
    lectern.learner("bob").enrol(&course).await.expect(StatusCode::CREATED);
    let of = |user: &str, completed: bool| {
        let mut event = event(&course.sections[0], 5, completed);
        event["userId"] = user.into();
        event
    };
    let service = lectern.service();
    let answer = service.record(&[of("bob", true), of("alice", false), of("carol", true)]).await.expect(OK);
    assert_eq!(outcomes(&answer), [("recorded", ""), ("recorded", ""), ("rejected", "not_enrolled")]);
    let courses = answer["courses"].as_array().unwrap();
    let told: Vec<_> = courses.iter().map(|course| (&course["userId"], &course["completedSections"])).collect();
    assert_eq!(told, [(&json!("alice"), &json!(0)), (&json!("bob"), &json!(1))]);
    service.record(&[event(&course.sections[0], 1, true)]).await.problem(400, "invalid_body");
    lectern.learner("alice").record(&[of("bob", true)]).await.problem(403, "foreign_user");
    lectern.caller("root", &["admin"]).record(&[of("bob", true)]).await.problem(403, "foreign_user");
}

#[tokio::test]
async fn a_lesson_and_the_outline_show_each_section_with_its_state() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[2, 1]).await;
    let alice = lectern.learner("alice");
    let (open, done) = (past_event(&course.sections[0], 3, false, 90), past_event(&course.sections[1], 8, true, 30));
    alice.record(&[open.clone(), done.clone()]).await.expect(OK);

    let lesson = alice.get(&format!("/lessons/{}/progress", course.lessons[0])).await.expect(OK);
    assert_eq!((&lesson["sectionCount"], &lesson["completedSections"]), (&json!(2), &json!(1)));
    assert_eq!((&lesson["courseId"], &lesson["order"]), (&json!(course.id), &json!(1)));
    let expected_open =
        json!({"completed": false, "completedAt": null, "timeSpent": 3, "updatedAt": open["occurredAt"]});
    let expected_done =
        json!({"completed": true, "completedAt": done["occurredAt"], "timeSpent": 8, "updatedAt": done["occurredAt"]});
    assert_eq!(lesson["sections"][0]["progress"], expected_open);
    assert_eq!(lesson["sections"][1]["progress"], expected_done);

    let outline = alice.get(&format!("/me/courses/{}", course.id)).await.expect(OK);
    assert_eq!(outline["lessons"][0]["sections"][1]["progress"], expected_done);
    assert_eq!(outline["lessons"][1]["sections"][0]["progress"], Value::Null);
    assert_eq!(outline["progress"], alice.summary(&course).await);
    let stranger = lectern.learner("bob").get(&format!("/me/courses/{}", course.id)).await.expect(OK);
    assert_eq!(stranger["progress"], Value::Null);
}

#[tokio::test]
async fn the_home_page_lists_active_enrollments_last_active_first_and_pages_without_gaps() {
    let lectern = Lectern::start().await;
    let mut courses = Vec::new();
    for _ in 0..5 {
        courses.push(enrolled(&lectern, "alice", &[2]).await);
    }
    let alice = lectern.learner("alice");
    alice.record(&[event(&courses[1].sections[0], 1, true)]).await.expect(OK);
    alice.delete(&format!("/courses/{}/enrollment", courses[3].id)).await.expect(StatusCode::NO_CONTENT);
    let mut listed = Vec::new();
    let mut path = "/me/courses?limit=2".to_owned();
    loop {
        let page = alice.get(&path).await.expect(OK);
        listed.extend(page["enrollments"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/me/courses?limit=2&cursor={cursor}");
    }
    let ids: Vec<&str> = listed.iter().map(|item| item["courseId"].as_str().unwrap()).collect();
    assert_eq!(ids, [1, 4, 2, 0].map(|index| courses[index].id.as_str()));
    assert_eq!(listed[0]["nextSectionId"], json!(courses[1].sections[1]));
    assert_eq!(listed[0]["completionPercentage"], 50.0);
    assert_eq!(listed[1]["lastActivityAt"], Value::Null);
}

#[tokio::test]
async fn an_empty_course_has_no_percentage_and_never_completes() {
    let lectern = Lectern::start().await;
    let course = enrolled(&lectern, "alice", &[0]).await;
    let summary = lectern.learner("alice").summary(&course).await;
    assert_eq!((&summary["completionPercentage"], &summary["totalSections"]), (&Value::Null, &json!(0)));
    assert_eq!((&summary["completedAt"], &summary["resume"]["nextSectionId"]), (&Value::Null, &Value::Null));
}
