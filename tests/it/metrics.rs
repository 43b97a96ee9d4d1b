//! The metrics that `CloudWatch` takes from the summary of each invocation: a good blob, on every way through the code.

use std::{collections::BTreeMap, net::TcpListener};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{
    config::Redis,
    http, invocation,
    parking::{self, Submission},
    telemetry::{METRICS, NAMESPACE, Trace, Unit},
};
use uuid::Uuid;

use crate::{
    log::Log,
    support::{Answer, Course, Lectern, course_body, deadline, event},
};

const OK: StatusCode = StatusCode::OK;
const CREATED: StatusCode = StatusCode::CREATED;

/// The metrics of a blob, which has to be one by the specification of the Embedded Metric Format.
#[track_caller]
fn metrics(line: &Value) -> BTreeMap<&str, f64> {
    let keys_of = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let aws = &line["_aws"];
    assert_eq!(keys_of(aws), ["CloudWatchMetrics", "Timestamp"]);
    let timestamp = aws["Timestamp"].as_i64().expect("whole milliseconds");
    assert!((Utc::now().timestamp_millis() - timestamp).abs() < 60_000, "{timestamp}");
    let [directive] = aws["CloudWatchMetrics"].as_array().expect("directives").as_slice() else { panic!("{aws}") };
    assert_eq!(keys_of(directive), ["Dimensions", "Metrics", "Namespace"]);
    assert_eq!(directive["Namespace"], NAMESPACE);
    // Every dimension is a text at the root.
    assert_eq!(directive["Dimensions"], json!([["service"], ["service", "function"]]));
    for dimension in ["service", "function"] {
        let value = line[dimension].as_str().expect(dimension);
        assert!((1..=1_024).contains(&value.len()) && value.is_ascii(), "{value}");
    }
    // Every metric is declared once, known by its name and unit, and a number at the root.
    let mut metrics = BTreeMap::new();
    let declared = directive["Metrics"].as_array().expect("metrics");
    assert!((1..=100).contains(&declared.len()), "{declared:?}");
    for metric in declared {
        assert_eq!(keys_of(metric), ["Name", "Unit"]);
        let known = METRICS.iter().find(|(name, unit)| metric["Name"] == *name && metric["Unit"] == unit.as_str());
        let (name, unit) = known.unwrap_or_else(|| panic!("{metric}"));
        let value = line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
        assert!(value > 0.0, "{name} is nought and costs money");
        assert!(*unit == Unit::Milliseconds || line[name].is_u64(), "{name} in {line}");
        assert!(metrics.insert(*name, value).is_none(), "{name} is declared twice");
    }
    let undeclared = METRICS.iter().find(|(name, _)| line.get(name).is_some() && !metrics.contains_key(name));
    assert_eq!(undeclared, None);
    assert!(metrics.contains_key("Latency"), "{line}");
    metrics
}

/// The metrics beside those of time, without which no invocation is.
#[track_caller]
fn counts(line: &Value) -> Vec<(&str, u64)> {
    let unit = |name: &str| METRICS.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit);
    // The first invocation of the process may be anybody's.
    let counts = metrics(line).into_iter().filter(|(name, _)| *name != "ColdStart");
    counts
        .filter(|(name, _)| unit(name) != Some(Unit::Milliseconds))
        .map(|(name, value)| (name, value as u64))
        .collect()
}

async fn with_a_learner() -> (Log, Lectern, Course) {
    let log = Log::listen();
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[2]).await;
    lectern.learner("alice").enrol(&course).await.expect(CREATED);
    log.new_summaries();
    (log, lectern, course)
}

#[tokio::test]
async fn a_read_tells_whether_the_cache_had_it_and_what_it_asked_of_the_database() {
    let (log, lectern, course) = with_a_learner().await;
    let path = format!("/courses/{}", course.id);
    lectern.anyone().get(&path).await.expect(OK);
    let miss = log.new_summary();
    assert_eq!(counts(&miss), [("CacheMiss", 1), ("DbStatements", 1)]);
    assert!(metrics(&miss)["DbMs"] > 0.0 && metrics(&miss)["DbMs"] < metrics(&miss)["Latency"], "{miss}");
    assert!(metrics(&miss)["DbPoolWaitMs"] > 0.0, "{miss}");
    assert_eq!((&miss["route"], &miss["status"]), (&json!("GET /courses/{courseId}"), &json!(200)));
    assert_eq!((&miss["cache"], miss.get("code")), (&json!("miss"), None));

    let answer = lectern.anyone().get(&path).await;
    let hit = log.new_summary();
    assert_eq!(counts(&hit), [("CacheHit", 1)]);
    assert_eq!(metrics(&hit).keys().filter(|name| name.starts_with("Db")).count(), 0, "{hit}");
    let known = answer.header("etag");
    let again = Answer::of(lectern.anyone().request(Method::GET, &path).header("if-none-match", known)).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_eq!(counts(&log.new_summary()), [("CacheHit", 1)]);

    lectern.learner("alice").get("/me/courses").await.expect(OK);
    assert_eq!(counts(&log.new_summary()), [("DbStatements", 1)]);
    lectern.anyone().get("/courses/nothing").await.problem(404, "course_not_found");
    let refused = log.new_summary();
    assert_eq!((counts(&refused), &refused["code"]), (vec![], &json!("course_not_found")));
}

#[tokio::test]
async fn without_the_database_stale_copies_and_failures_are_counted() {
    let (log, lectern, course) = with_a_learner().await;
    let path = format!("/courses/{}", course.id);
    lectern.anyone().get(&path).await.expect(OK);
    lectern.teacher("teacher").patch(&path, course.version, &json!({"title": "New"})).await.expect(OK);
    let cut_off = lectern.cut_off().await;
    log.new_summaries();
    assert_eq!(cut_off.anyone().get(&path).await.header("x-cache"), "stale");
    assert_eq!(counts(&log.new_summary()), [("CacheStale", 1), ("DbRetries", 1)]);
    cut_off.learner("alice").get("/me/courses").await.problem(503, "unavailable");
    assert_eq!(counts(&log.new_summary()), [("DbRetries", 1), ("Errors", 1)]);
}

#[tokio::test]
async fn a_silent_cache_is_counted_once_as_such_and_then_as_left_alone() {
    let (log, lectern, course) = with_a_learner().await;
    // It never accepts: connecting succeeds and nothing ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = Redis::at(&format!("redis://{}/", silent.local_addr().unwrap()));
    let config = lectern.app().config.clone();
    let other = Lectern::start_with(|fresh| *fresh = shared::config::Config { redis: Some(redis), ..config }).await;
    let path = format!("/courses/{}", course.id);
    other.anyone().get(&path).await.expect(OK);
    let silence = log.new_summary();
    assert_eq!(counts(&silence), [("CacheTimeout", 1), ("DbStatements", 1)]);
    assert_eq!((&silence["cache"], &silence["cache_failures"]), (&json!("bypass"), &json!(1)));
    other.anyone().get(&path).await.expect(OK);
    assert_eq!(counts(&log.new_summary()), [("CacheBreakerOpen", 1), ("DbStatements", 1)]);
    other.teacher("teacher").patch(&path, course.version, &json!({"title": "New"})).await.expect(OK);
    assert_eq!(counts(&log.new_summary()), [("CacheTimeout", 1), ("DbStatements", 1), ("LostBumps", 1)]);
}

#[tokio::test]
async fn what_is_parked_and_drained_is_counted_in_submissions_and_canaries_are_not() {
    let (log, lectern, course) = with_a_learner().await;
    let cut_off = lectern.cut_off().await;
    let (good, bad) = (event(&course.sections[0], 5, true), event(&uuid::Uuid::now_v7().to_string(), 5, true));
    for batch in [vec![good.clone(), bad.clone()], vec![good], vec![bad]] {
        cut_off.learner("alice").record(&batch).await.expect(StatusCode::ACCEPTED);
        assert_eq!(counts(&log.new_summary()), [("DbRetries", 1), ("Parked", 1)]);
    }
    let run = async || {
        lectern.invoke("replay-parked", json!({})).await;
        let summary = log.new_summary();
        let metrics = metrics(&summary);
        ["Drained", "RejectedParked", "ParkedRemaining"].map(|name| metrics.get(name).map_or(0, |count| *count as u64))
    };
    assert_eq!(run().await, [3, 2, 0]);
    // A canary comes and goes with each run.
    assert_eq!(run().await, [0, 0, 0]);
}

#[tokio::test]
async fn the_age_of_what_waits_is_that_of_the_oldest_and_no_canarys() {
    let (log, lectern, course) = with_a_learner().await;
    let cut_off = lectern.cut_off().await;
    let parking = lectern.app().parking.as_ref().unwrap();
    let park = async |sender: &str, canary: bool, hours: i64| {
        let body = json!({"service": false, "maxAgeDays": 30, "canary": canary, "events": [{
            "userId": sender, "eventId": Uuid::now_v7(), "sectionId": course.sections[0],
            "timeSpent": 1, "completed": false, "occurredAt": null,
        }]});
        let accepted_at = Utc::now() - TimeDelta::hours(hours);
        parking.put(&Submission::new(sender, accepted_at, body.to_string().into_bytes())).await.unwrap();
    };
    let age_in_hours = |line: &Value| metrics(line).get("ParkedAgeMax").map(|age| (age / 3_600.0).floor() as i64);
    park("", true, 9).await;
    cut_off.invoke("replay-parked", json!({})).await;
    let canary = log.new_summary();
    assert_eq!((age_in_hours(&canary), metrics(&canary)["ParkedRemaining"]), (None, 1.0));
    // The second is an erased service's.
    park("alice", false, 2).await;
    park("", false, 3).await;
    cut_off.invoke("replay-parked", json!({})).await;
    let waiting = log.new_summary();
    assert_eq!((age_in_hours(&waiting), metrics(&waiting)["ParkedRemaining"]), (Some(3), 3.0));
    // Of one that nobody can read, its id tells.
    let settings = lectern.app().config.parking.clone().unwrap();
    let hours_ago = |hours| (Utc::now() - TimeDelta::hours(hours)).timestamp() as u64;
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, hours_ago(7), 0));
    let put = parking::connect(&settings).await.put_item().table_name(&settings.table);
    let put = put.item("pk", AttributeValue::S("pending#00".to_owned()));
    put.item("sk", AttributeValue::S(id.to_string())).send().await.unwrap();
    lectern.invoke("replay-parked", json!({})).await;
    let unreadable = log.new_summary();
    assert_eq!((age_in_hours(&unreadable), metrics(&unreadable)["ParkedRemaining"]), (Some(7), 1.0));
}

#[tokio::test]
async fn drift_that_was_found_is_counted_though_the_run_fails_after_it() {
    let (log, lectern, course) = with_a_learner().await;
    lectern.learner("alice").record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    lectern.sql("update enrollments set time_spent = 6").await;
    lectern.sql("alter table section_completions rename to elsewhere").await;
    log.new_summaries();
    assert!(lectern.deliver("refresh-analytics", json!({"mode": "reconcile"})).await.is_err());
    assert_eq!(metrics(&log.new_summary())["Drift"], 1.0);
}

#[tokio::test]
async fn a_canary_that_is_lost_is_counted() {
    let (log, lectern, _) = with_a_learner().await;
    lectern.invoke("replay-parked", json!({})).await;
    assert_eq!(metrics(&log.new_summary()).get("LostCanaries"), None);
    lectern.sql("alter table progress_events rename to elsewhere").await;
    lectern.invoke("replay-parked", json!({})).await;
    assert_eq!(metrics(&log.new_summary())["LostCanaries"], 1.0);
}

#[tokio::test]
async fn without_database_and_table_the_failure_is_counted_for_both() {
    let (log, lectern, course) = with_a_learner().await;
    let config = lectern.app().config.clone();
    let nowhere = Lectern::start_with(|fresh| {
        *fresh = config;
        fresh.postgres.url = crate::support::NOWHERE.to_owned();
        fresh.parking.as_mut().unwrap().endpoint = Some("http://127.0.0.1:1".to_owned());
    })
    .await;
    nowhere.learner("alice").record(&[event(&course.sections[0], 1, false)]).await.problem(503, "unavailable");
    assert_eq!(counts(&log.new_summary()), [("DbRetries", 1), ("Errors", 1), ("ParkingFailures", 1)]);
}

#[tokio::test]
async fn a_first_answer_that_is_given_again_is_counted() {
    let (log, lectern, _) = with_a_learner().await;
    let (teacher, body) = (lectern.teacher("teacher"), course_body("Twice", &[1], false));
    teacher.create_with_key("one", &body).await.expect(CREATED);
    assert_eq!(counts(&log.new_summary()), [("DbStatements", 1)]);
    teacher.create_with_key("one", &body).await.expect(CREATED);
    assert_eq!(counts(&log.new_summary()), [("DbStatements", 2), ("IdemReplay", 1)]);
}

#[tokio::test]
async fn a_refresh_counts_courses_and_a_reconcile_what_does_not_agree() {
    let (log, lectern, course) = with_a_learner().await;
    lectern.learner("alice").record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    let bad = lectern.course("teacher", &[1]).await;
    lectern
        .sql(&format!(
            "create function poison() returns trigger language plpgsql as $$ begin
                if new.course_id = '{}' then raise exception 'poisoned'; end if; return new; end $$;
            create trigger poison before update on course_analytics for each row execute function poison()",
            bad.id
        ))
        .await;
    log.new_summaries();
    let run = async |event: Value| {
        lectern.invoke("refresh-analytics", event).await;
        let summary = log.new_summary();
        let metrics = metrics(&summary);
        let find = |name: &str| metrics.get(name).map_or(0, |count| *count as u64);
        ["AnalyticsRefreshed", "AnalyticsFailed", "AnalyticsRemaining", "Drift"].map(find)
    };
    assert_eq!(run(json!({})).await, [1, 1, 1, 0]);
    lectern.sql("drop trigger poison on course_analytics; update progress set time_spent = 6").await;
    assert_eq!(run(json!({})).await, [1, 0, 0, 0]);
    assert_eq!(run(json!({"mode": "reconcile"})).await, [2, 0, 0, 2]);
}

#[tokio::test]
async fn a_panic_too_ends_in_one_blob() {
    let (log, lectern, _) = with_a_learner().await;
    let event = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/events/list-courses.json")).unwrap();
    let request = lambda_http::request::from_str(&event).unwrap();
    let answer = http::answer(lectern.app().clone(), request, async |_, _| panic!("on purpose")).await;
    assert_eq!(answer.status(), 500);
    let summary = log.new_summary();
    assert_eq!((counts(&summary), &summary["code"]), (vec![("Errors", 1)], &json!("internal")));

    let trace = Trace { function_request_id: "id".to_owned(), ..Trace::default() };
    let app = lectern.app().clone();
    let failed = invocation::answer(app, trace, json!({}), deadline(), async |_, _, _| panic!("on purpose")).await;
    assert_eq!(failed.unwrap_err().code(), "internal");
    let summary = log.new_summary();
    assert_eq!((counts(&summary), &summary["function_request_id"]), (vec![("Errors", 1)], &json!("id")));
}
