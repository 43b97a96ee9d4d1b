//! Progress that comes while PostgreSQL is away: parked, asked for, replayed; and what can be read meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{TimeDelta, TimeZone, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{app::App, gzip, parking, publication, submissions};
use tokio::net::TcpListener;

use crate::support::{Answer, Course, Lectern, NOWHERE, deadline, event, seconds_ago};

const OK: StatusCode = StatusCode::OK;

/// A Lectern with a course in which alice is enrolled, and another environment of it for which PostgreSQL is away.
async fn with_and_without_postgres() -> (Lectern, Lectern, Course) {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[3]).await;
    lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
    let cut_off = lectern.cut_off().await;
    (lectern, cut_off, course)
}

/// Looks at the promise and answers where to ask what became of it.
#[track_caller]
fn place(answer: &Answer) -> String {
    let body = answer.expect(StatusCode::ACCEPTED);
    assert_eq!(body["status"], "parked");
    let place = answer.header("location").to_owned();
    assert_eq!(place, format!("/progress/submissions/{}", body["submissionId"].as_str().unwrap()));
    assert_eq!(answer.header("cache-control"), "no-store");
    place
}

async fn replay(lectern: &Lectern) -> Value {
    lectern.invoke("replay-parked", json!({})).await
}

/// A replay on another day.
async fn replay_in(app: &App, days: i64) -> Value {
    submissions::replay(app, Utc::now() + TimeDelta::days(days), deadline()).await.unwrap().to_json()
}

fn applied(count: u64) -> Value {
    json!({"applied": count, "rejected": 0, "remaining": 0})
}

#[tokio::test]
async fn a_batch_is_parked_asked_for_and_applied_once() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let batch = [event(&course.sections[0], 5, true), event(&course.sections[1], 7, false)];
    let place = place(&cut_off.learner("alice").record(&batch).await);

    // Its sender can ask, PostgreSQL or not.
    for environment in [&lectern, &cut_off] {
        let answer = environment.learner("alice").get(&place).await;
        let status = answer.expect(OK);
        assert_eq!((&status["status"], &status["results"]), (&json!("parked"), &Value::Null));
        assert!(status["acceptedAt"].is_string());
        assert_eq!((answer.header("x-cache"), answer.header("cache-control")), ("bypass", "private, no-cache"));
    }
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 0);

    assert_eq!(replay(&lectern).await, applied(1));
    let summary = lectern.learner("alice").summary(&course).await;
    assert_eq!((&summary["totalTimeSpent"], &summary["completedSections"]), (&json!(12), &json!(1)));
    let status = cut_off.learner("alice").get(&place).await.expect(OK);
    assert_eq!(status["status"], "applied");
    let recorded = |event: &Value| json!({"eventId": event["eventId"], "status": "recorded", "code": null});
    assert_eq!(status["results"], Value::from_iter(batch.iter().map(recorded)));

    // Nothing is left of it to count again, and the client may be in doubt.
    assert_eq!(replay(&lectern).await, applied(0));
    assert_eq!(lectern.learner("alice").record(&batch).await.expect(OK)["duplicates"], 2);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_submission_is_its_senders_alone() {
    let (_lectern, cut_off, course) = with_and_without_postgres().await;
    let place = place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    for other in [cut_off.learner("bob"), cut_off.caller("root", &["admin"]), cut_off.service()] {
        other.get(&place).await.problem(404, "submission_not_found");
    }
    let nowhere = format!("/progress/submissions/{}", uuid::Uuid::now_v7());
    cut_off.learner("alice").get(&nowhere).await.problem(404, "submission_not_found");
    cut_off.learner("alice").get("/progress/submissions/1").await.problem(404, "submission_not_found");
    assert_eq!(cut_off.anyone().get(&place).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_service_parks_for_others_and_asks_for_it_itself() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let mut event = event(&course.sections[0], 5, true);
    event["userId"] = "alice".into();
    let place = place(&cut_off.service().record(&[event]).await);
    assert_eq!(replay(&lectern).await, applied(1));
    assert_eq!(cut_off.service().get(&place).await.expect(OK)["results"][0]["status"], "recorded");
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 5);
}

#[tokio::test]
async fn what_can_never_count_is_visibly_rejected() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let unknown = event(&uuid::Uuid::now_v7().to_string(), 5, true);
    let rejected = place(&cut_off.learner("alice").record(std::slice::from_ref(&unknown)).await);
    let mixed = place(&cut_off.learner("alice").record(&[unknown, event(&course.sections[0], 5, true)]).await);
    let foreign = place(&cut_off.learner("bob").record(&[event(&course.sections[0], 5, true)]).await);
    assert_eq!(replay(&lectern).await, json!({"applied": 1, "rejected": 2, "remaining": 0}));
    let status = lectern.learner("alice").get(&rejected).await.expect(OK);
    assert_eq!((&status["status"], &status["results"][0]["code"]), (&json!("rejected"), &json!("unknown_section")));
    let status = lectern.learner("alice").get(&mixed).await.expect(OK);
    assert_eq!(status["status"], "applied");
    let statuses: Vec<_> = status["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(statuses, ["rejected", "recorded"]);
    assert_eq!(lectern.learner("bob").get(&foreign).await.expect(OK)["results"][0]["code"], "not_enrolled");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_though_postgres_is_away() {
    let (_lectern, cut_off, course) = with_and_without_postgres().await;
    let alice = cut_off.learner("alice");
    alice.record(&[]).await.problem(400, "invalid_body");
    alice.record(&[event(&course.sections[0], 86_401, true)]).await.problem(400, "invalid_body");
    let mut foreign = event(&course.sections[0], 1, true);
    foreign["userId"] = "bob".into();
    alice.record(&[foreign]).await.problem(403, "foreign_user");
    // All other writes promise nothing.
    for answer in [alice.enrol(&course).await, alice.delete(&format!("/courses/{}/progress", course.id)).await] {
        answer.problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
}

/// Parks one event of alice's, changes something, replays, and answers the code of its rejection.
async fn judged_after(change: impl AsyncFn(&Lectern, &Course)) -> (Value, Lectern, Course) {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let place = place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    change(&lectern, &course).await;
    replay(&lectern).await;
    let status = lectern.learner("alice").get(&place).await.expect(OK);
    (status["results"][0]["code"].clone(), lectern, course)
}

#[tokio::test]
async fn who_cancelled_meanwhile_is_still_counted() {
    let cancel = async |lectern: &Lectern, course: &Course| {
        lectern.learner("alice").delete(&format!("/courses/{}/enrollment", course.id)).await;
    };
    let (code, lectern, course) = judged_after(cancel).await;
    assert_eq!(code, Value::Null);
    assert_eq!(lectern.learner("alice").summary(&course).await["completedSections"], 1);
    // What comes now is judged by how things stand now.
    let answer = lectern.learner("alice").record(&[event(&course.sections[1], 5, true)]).await.expect(OK);
    assert_eq!(answer["results"][0]["code"], "not_enrolled");
}

#[tokio::test]
async fn a_course_that_was_unpublished_or_archived_meanwhile_still_counts() {
    for status in ["draft", "archived"] {
        let close = async |lectern: &Lectern, course: &Course| {
            let path = format!("/courses/{}", course.id);
            lectern.teacher("teacher").patch(&path, course.version, &json!({"status": status})).await.expect(OK);
        };
        let (code, lectern, _) = judged_after(close).await;
        assert_eq!(code, Value::Null, "{status}");
        assert_eq!(lectern.fetch("select completed_sections from enrollments").await, "1");
    }
}

#[tokio::test]
async fn a_course_that_was_not_published_yet_does_not_count() {
    let lectern = Lectern::start().await;
    let body = crate::support::course_body("A draft", &[1], false);
    let course = Course::of(&lectern.teacher("alice").create(&body).await.expect(StatusCode::CREATED));
    lectern
        .sql(&format!(
            "insert into enrollments (user_id, course_id, enrolled_at) values ('alice', '{}', now())",
            course.id
        ))
        .await;
    let cut_off = lectern.cut_off().await;
    let place = place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    let path = format!("/courses/{}", course.id);
    lectern.teacher("alice").patch(&path, course.version, &json!({"status": "published"})).await.expect(OK);
    lectern.teacher("alice").patch(&path, course.version + 1, &json!({"status": "draft"})).await.expect(OK);
    replay(&lectern).await;
    let status = lectern.learner("alice").get(&place).await.expect(OK);
    assert_eq!(status["results"][0]["code"], "not_published");
}

#[tokio::test]
async fn a_reset_meanwhile_is_not_undone() {
    let reset = async |lectern: &Lectern, course: &Course| {
        let path = format!("/courses/{}/progress", course.id);
        lectern.learner("alice").delete(&path).await.expect(StatusCode::NO_CONTENT);
    };
    let (code, lectern, course) = judged_after(reset).await;
    assert_eq!(code, "before_reset");
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 0);
}

#[tokio::test]
async fn an_events_age_is_that_when_it_was_accepted() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let mut old = event(&course.sections[0], 5, true);
    old["occurredAt"] = seconds_ago(29 * 24 * 3600).into();
    let mut too_old = event(&course.sections[1], 5, true);
    too_old["occurredAt"] = seconds_ago(31 * 24 * 3600).into();
    let place = place(&cut_off.learner("alice").record(&[old, too_old]).await);
    assert_eq!(replay_in(lectern.app(), 4).await, applied(1));
    let results = lectern.learner("alice").get(&place).await.expect(OK)["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["code"]), (&json!("recorded"), &json!("too_old")));
}

#[tokio::test]
async fn what_waited_for_too_long_is_rejected_but_for_what_had_counted() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let (counted, late) = (event(&course.sections[0], 5, true), event(&course.sections[1], 5, true));
    lectern.learner("alice").record(std::slice::from_ref(&counted)).await.expect(OK);
    let mixed = place(&cut_off.learner("alice").record(&[counted, late.clone()]).await);
    let alone = place(&cut_off.learner("alice").record(&[late]).await);
    assert_eq!(replay_in(lectern.app(), 6).await, json!({"applied": 1, "rejected": 1, "remaining": 0}));
    let results = lectern.learner("alice").get(&mixed).await.expect(OK)["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["code"]), (&json!("duplicate"), &json!("parked_too_long")));
    assert_eq!(lectern.learner("alice").get(&alone).await.expect(OK)["status"], "rejected");
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 5);
}

#[tokio::test]
async fn any_number_of_drainers_at_once_counts_each_event_once() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let alice = cut_off.learner("alice");
    for batch in 0..40 {
        let events: Vec<Value> = (0..3).map(|index| event(&course.sections[index], 1 + batch, true)).collect();
        place(&alice.record(&events).await);
    }
    let other = lectern.another().await;
    let answers = tokio::join!(replay(&lectern), replay(&other), replay(&lectern));
    for answer in <[Value; 3]>::from(answers) {
        assert_eq!((&answer["rejected"], &answer["remaining"]), (&json!(0), &json!(0)), "{answer}");
    }
    assert_eq!(replay(&lectern).await, applied(0));
    assert_eq!(lectern.fetch("select count(*) from progress_events").await, "120");
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 3 * (1..=40).sum::<u32>());
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_backlog_is_read_page_by_page_and_a_run_that_is_out_of_time_counts_what_is_left() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let app = cut_off.app();
    let parking = app.parking.as_ref().unwrap();
    let body = json!({"service": false, "maxAgeDays": 30, "events": [{"userId": "alice", "eventId": uuid::Uuid::now_v7(),
        "sectionId": course.sections[0], "timeSpent": 1, "completed": false, "occurredAt": null}]});
    for _ in 0..900 {
        let submission = parking::Submission::new("alice", Utc::now(), body.to_string().into_bytes());
        parking.put(&submission).await.unwrap();
    }
    let out_of_time = submissions::replay(lectern.app(), Utc::now(), std::time::Instant::now()).await.unwrap();
    assert_eq!(out_of_time.to_json(), json!({"applied": 0, "rejected": 0, "remaining": 900}));
    assert_eq!(replay(&lectern).await, applied(900));
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 1);
}

#[tokio::test]
async fn one_that_cannot_be_applied_holds_up_no_other_and_waits_for_better_days() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    lectern
        .sql(&format!(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
            create trigger refuse before insert on progress_events for each row
            when (new.section_id = '{}') execute function refuse()",
            course.sections[0]
        ))
        .await;
    let stuck = place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    for run in 1..=4 {
        place(&cut_off.learner("alice").record(&[event(&course.sections[1], 1, true)]).await);
        assert_eq!(replay(&lectern).await, json!({"applied": 1, "rejected": 0, "remaining": 1}));
        assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], run);
    }
    assert_eq!(lectern.learner("alice").get(&stuck).await.expect(OK)["status"], "parked");
    lectern.sql("drop trigger refuse on progress_events").await;
    assert_eq!(replay(&lectern).await, applied(1));
    assert_eq!(lectern.learner("alice").summary(&course).await["totalTimeSpent"], 9);
}

#[tokio::test]
async fn a_replay_without_postgres_leaves_everything_as_it_is() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    for _ in 0..5 {
        // It sends no canary either: nothing piles up.
        assert_eq!(replay(&cut_off).await, json!({"applied": 0, "rejected": 0, "remaining": 1}));
    }
    assert_eq!(replay(&lectern).await, applied(1));
}

#[tokio::test]
async fn a_canary_goes_the_whole_way_on_every_run_and_is_not_counted() {
    let (lectern, ..) = with_and_without_postgres().await;
    let settings = lectern.app().config.parking.clone().unwrap();
    let dynamodb = parking::connect(&settings).await;
    for run in 1..=2 {
        assert_eq!(replay(&lectern).await, applied(0));
        let items = dynamodb.scan().table_name(&settings.table).send().await.unwrap().items.unwrap();
        assert_eq!(items.len(), run);
        for item in items {
            assert_eq!(item["status"].as_s().unwrap(), "rejected");
            assert!(item["pk"].as_s().unwrap().starts_with("finished#"));
        }
    }
    assert_eq!(lectern.fetch("select count(*) from progress_events").await, "0");
}

#[tokio::test]
async fn without_dynamodb_postgres_goes_on_and_without_both_nothing_is_promised() {
    let (lectern, _, course) = with_and_without_postgres().await;
    let lost = |fresh: &mut shared::config::Config, database_url: &str| {
        *fresh = lectern.app().config.clone();
        fresh.postgres.url = database_url.to_owned();
        let parking = fresh.parking.as_mut().unwrap();
        parking.endpoint = Some("http://127.0.0.1:1".to_owned());
    };
    let without_dynamodb = Lectern::start_with(|fresh| lost(fresh, &lectern.database)).await;
    let batch = [event(&course.sections[0], 5, true)];
    without_dynamodb.learner("alice").record(&batch).await.expect(OK);
    let without_both = Lectern::start_with(|fresh| lost(fresh, NOWHERE)).await;
    let refused = without_both.learner("alice").record(&batch).await;
    refused.problem(503, "unavailable");
    assert!(!refused.header("retry-after").is_empty());
    let somewhere = format!("/progress/submissions/{}", uuid::Uuid::now_v7());
    without_both.learner("alice").get(&somewhere).await.problem(503, "unavailable");
}

#[tokio::test]
async fn where_no_table_is_named_nothing_is_parked() {
    let lectern = Lectern::start_with(|config| {
        config.postgres.url = NOWHERE.to_owned();
        config.parking = None;
    })
    .await;
    let section = uuid::Uuid::now_v7().to_string();
    lectern.learner("alice").record(&[event(&section, 5, true)]).await.problem(503, "unavailable");
    let somewhere = format!("/progress/submissions/{}", uuid::Uuid::now_v7());
    lectern.learner("alice").get(&somewhere).await.problem(404, "submission_not_found");
    assert_eq!(replay(&lectern).await, applied(0));
}

#[tokio::test]
async fn the_largest_batch_that_can_be_sent_can_be_parked_and_finished() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    // Five hundred names that no compression makes small.
    let name = || (0..255).map(|_| char::from_u32(rare_character()).unwrap()).collect::<String>();
    let foreign = || {
        let mut event = event(&course.sections[0], 5, true);
        event["userId"] = name().into();
        event
    };
    let place = place(&cut_off.service().record(&(0..500).map(|_| foreign()).collect::<Vec<_>>()).await);
    assert_eq!(replay(&lectern).await, json!({"applied": 0, "rejected": 1, "remaining": 0}));
    let results = lectern.service().get(&place).await.expect(OK)["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 500);
    assert_eq!(results[499]["code"], "not_enrolled");
}

/// A character outside the basic plane, of which there are more than a compressor can guess.
fn rare_character() -> u32 {
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    0x2_0000 + bits % 0xA000 + ((bits >> 20) % 12) * 0x1_0000
}

/// A PostgreSQL that says nothing, and how often it was asked.
async fn silent_postgres() -> (String, Arc<AtomicUsize>) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            held.push(connection);
        }
    });
    (format!("postgres://lectern:secret@{address}/lectern"), asked)
}

#[tokio::test]
async fn a_postgres_that_sleeps_is_woken_up_for_what_is_parked_and_for_a_canary_and_for_nothing_else() {
    let (url, asked) = silent_postgres().await;
    let lectern = Lectern::start_with(|config| {
        config.postgres.url = url;
        config.redis = None;
        config.canary_every_minutes = 1_440;
    })
    .await;
    let app = lectern.app();
    let at = |hour: u32| Utc.with_ymd_and_hms(2026, 11, 28, hour, 0, 0).unwrap();
    let replay = async |hour: u32| {
        publication::remind_cache(app, at(hour)).await.unwrap();
        submissions::replay(app, at(hour), deadline()).await.unwrap().to_json()
    };
    assert_eq!(replay(12).await, applied(0));
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing was parked");
    replay(0).await;
    let by_canary = asked.load(Ordering::Relaxed);
    assert!(by_canary > 0, "a canary was due");

    place(&lectern.cut_off().await.learner("alice").record(&[event(&uuid::Uuid::now_v7().to_string(), 5, true)]).await);
    // The breaker leaves a silent server alone for a while: another environment looks at once.
    let fresh = lectern.another().await;
    let left = submissions::replay(fresh.app(), at(12), deadline()).await.unwrap().to_json();
    assert_eq!(left, json!({"applied": 0, "rejected": 0, "remaining": 1}));
    assert!(asked.load(Ordering::Relaxed) > by_canary, "something was parked");
}

#[tokio::test]
async fn a_silent_postgres_is_asked_once_and_then_left_alone() {
    let (url, asked) = silent_postgres().await;
    let lectern = Lectern::start_with(|config| config.postgres.url = url).await;
    let (alice, section) = (lectern.learner("alice"), uuid::Uuid::now_v7().to_string());
    place(&alice.record(&[event(&section, 5, true)]).await);
    let before = asked.load(Ordering::Relaxed);
    assert!(before > 0);
    for _ in 0..20 {
        place(&alice.record(&[event(&section, 5, true)]).await);
        alice.get("/me/courses").await.problem(503, "unavailable");
    }
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn the_last_copy_is_read_while_postgres_is_away() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let summary = format!("/courses/{}/progress", course.id);
    let outline = format!("/courses/{}", course.id);
    let there = lectern.learner("alice");
    let mut before = Vec::new();
    for path in [&summary, &outline, &"/courses".to_owned()] {
        before.push((path.clone(), there.get(path).await.text));
    }
    // All three are out of date now.
    there.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    let body = json!({"title": "Another title"});
    lectern.teacher("teacher").patch(&outline, course.version, &body).await.expect(OK);
    for (path, text) in before {
        let answer = cut_off.learner("alice").get(&path).await;
        answer.expect(OK);
        assert_eq!((answer.header("x-cache"), &answer.text), ("stale", &text), "{path}");
        assert!(answer.header("age").parse::<u64>().is_ok_and(|age| age < 60), "{path}");
    }
    // What was never read, and what is not cached, cannot be had.
    for path in ["/courses?limit=7".to_owned(), "/me/courses".to_owned(), format!("/sections/{}", course.sections[0])] {
        let answer = cut_off.learner("alice").get(&path).await;
        answer.problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
    // A copy that is still good is no worse for PostgreSQL being away.
    assert_eq!(there.get(&summary).await.header("x-cache"), "miss");
    assert_eq!(cut_off.learner("alice").get(&summary).await.header("x-cache"), "hit");
}

#[tokio::test]
async fn a_copy_in_the_other_coding_is_better_than_none_while_postgres_is_away() {
    let (lectern, cut_off, _) = with_and_without_postgres().await;
    // Long enough to be compressed.
    for _ in 0..5 {
        lectern.course("teacher", &[1]).await;
    }
    // Where it is from, which page is next, which text it is by its tag, and that text.
    let read = async |lectern: &Lectern, path: &str, coding: &str| {
        let request = lectern.anyone().request(Method::GET, path).header("accept-encoding", coding);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), OK, "{path}");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        let [source, link, etag, packed] = ["x-cache", "link", "etag", "content-encoding"].map(header);
        assert_eq!(packed.as_deref().unwrap_or("identity"), coding, "{path}");
        let bytes = answer.bytes().await.expect("a body").to_vec();
        let text = if packed.is_some() { gzip::decompress(&bytes, 1 << 20).expect("gzip") } else { bytes };
        (source.expect("a source"), (link, etag.map(|etag| etag.replace("-gzip", "")), String::from_utf8(text)))
    };
    for (known, asked, limit) in [("gzip", "identity", 3), ("identity", "gzip", 4)] {
        let course = lectern.course("teacher", &[20]).await;
        for path in [format!("/courses/{}", course.id), format!("/courses?limit={limit}")] {
            let (source, there) = read(&lectern, &path, known).await;
            assert_eq!(source, "miss", "{path}");
            assert_eq!(read(&cut_off, &path, asked).await, ("stale".to_owned(), there), "{path}");
        }
        // Whoever is told that it is gone, though nobody has told the cache, takes it out of there in both codings.
        let path = format!("/courses/{}", course.id);
        lectern.sql(&format!("update courses set status = 'archived' where id = '{}'", course.id)).await;
        let get = |lectern: &Lectern, coding: &str| {
            Answer::of(lectern.anyone().request(Method::GET, &path).header("accept-encoding", coding))
        };
        get(&lectern, asked).await.problem(404, "course_not_found");
        get(&cut_off, asked).await.problem(503, "unavailable");
        get(&cut_off, known).await.problem(503, "unavailable");
    }
}

#[tokio::test]
async fn what_was_withdrawn_is_not_shown_as_a_stale_copy() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let outline = format!("/courses/{}", course.id);
    let paths = ["/courses".to_owned(), outline.clone(), format!("/courses/{}/progress", course.id)];
    for withdraw in ["draft", "archived"] {
        for path in &paths {
            lectern.learner("alice").get(path).await.expect(OK);
        }
        let version = lectern.fetch("select version from courses").await.parse().unwrap();
        let change = |version, status: &str| {
            let body = json!({ "status": status });
            let (teacher, outline) = (lectern.teacher("teacher"), outline.clone());
            async move { teacher.patch(&outline, version, &body).await.expect(OK) }
        };
        change(version, withdraw).await;
        // A later change of something else makes no difference.
        let body = json!({"title": "Another title"});
        lectern.teacher("teacher").patch(&outline, version + 1, &body).await.expect(OK);
        for path in &paths {
            cut_off.learner("alice").get(path).await.problem(503, "unavailable");
        }
        change(version + 2, "published").await;
    }
}

#[tokio::test]
async fn a_batch_that_was_put_twice_by_a_late_request_is_finished_once() {
    let (lectern, _, course) = with_and_without_postgres().await;
    let parking = lectern.app().parking.as_ref().unwrap();
    let body = json!({"service": false, "maxAgeDays": 30, "events": [{"userId": "alice", "eventId": uuid::Uuid::now_v7(),
        "sectionId": course.sections[0], "timeSpent": 1, "completed": false, "occurredAt": null}]});
    let submission = parking::Submission::new("alice", Utc::now(), body.to_string().into_bytes());
    parking.put(&submission).await.unwrap();
    parking.put(&submission).await.unwrap();
    let other = parking::Submission { body: b"{}".to_vec(), ..submission.clone() };
    assert!(parking.put(&other).await.is_err(), "another body under the same id");
    assert_eq!(replay(&lectern).await, applied(1));
    // The first attempt of a request comes after its second, which has been drained.
    parking.put(&submission).await.unwrap();
    assert_eq!(replay(&lectern).await, applied(1));
    assert_eq!(replay(&lectern).await, applied(0));
    let status = lectern.learner("alice").get(&format!("/progress/submissions/{}", submission.id)).await.expect(OK);
    assert_eq!(status["results"][0]["status"], "recorded");
}

#[tokio::test]
async fn finished_submissions_are_forgotten_in_time() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let applied = place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    let rejected = place(&cut_off.learner("alice").record(&[event(&course.lessons[0], 5, true)]).await);
    replay(&lectern).await;
    let parking = lectern.app().parking.as_ref().unwrap();
    let id = |place: &str| place.rsplit('/').next().unwrap().parse().unwrap();
    for (place, days) in [(applied, 7), (rejected, 30)] {
        let is_known =
            async |days| parking.find(id(&place), Utc::now() + TimeDelta::days(days)).await.unwrap().is_some();
        assert!(is_known(days - 1).await && !is_known(days + 1).await, "{days}");
    }
}

#[tokio::test]
async fn parked_progress_is_told_to_the_cache_when_it_counts() {
    let (lectern, cut_off, course) = with_and_without_postgres().await;
    let alice = lectern.learner("alice");
    alice.summary(&course).await;
    place(&cut_off.learner("alice").record(&[event(&course.sections[0], 5, true)]).await);
    replay(&lectern).await;
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 5);
}

#[tokio::test]
async fn a_slow_request_for_a_submission_ends_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let lectern = Lectern::start_with(|config| {
        config.postgres.url = NOWHERE.to_owned();
        config.parking.as_mut().unwrap().endpoint = Some(endpoint);
    })
    .await;
    let alice = lectern.learner("alice");
    let somewhere = format!("/progress/submissions/{}", uuid::Uuid::now_v7());
    let section = uuid::Uuid::now_v7().to_string();
    let requests = [
        alice.request(Method::GET, &somewhere),
        alice.request(Method::POST, "/progress").json(&json!({"events": [event(&section, 5, true)]})),
    ];
    for request in requests {
        Answer::of(request.timeout(Duration::from_secs(3))).await.problem(503, "unavailable");
    }
}
