//! Exactly once, in any order, under any concurrency.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Course, Lectern, course_body, event, seconds_ago};

const OK: StatusCode = StatusCode::OK;

/// What a property test draws for one event: section, seconds, completed, how long ago.
type Drawn = (usize, u32, bool, i64);

fn drawn() -> impl Strategy<Value = Drawn> {
    (0..4_usize, 0..1_000_u32, any::<bool>(), 1..1_000_i64)
}

/// By section: seconds, first completion, last activity.
type Fold = BTreeMap<usize, (u32, Option<DateTime<Utc>>, DateTime<Utc>)>;

/// The fold as the rules tell it, made the slow and obvious way.
fn model(events: &[Drawn], now: DateTime<Utc>) -> Fold {
    let mut fold = BTreeMap::new();
    for (section, seconds, completed, ago) in events {
        let at = now - TimeDelta::seconds(*ago);
        let entry = fold.entry(*section).or_insert((0, None, at));
        entry.0 += seconds;
        if *completed {
            entry.1 = Some(entry.1.map_or(at, |earliest: DateTime<Utc>| earliest.min(at)));
        }
        entry.2 = entry.2.max(at);
    }
    fold
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str().map(|text| text.parse().unwrap())
}

/// The same fold as a learner sees it.
async fn seen(lectern: &Lectern, user: &str, course: &Course) -> Fold {
    let outline = lectern.learner(user).get(&format!("/me/courses/{}", course.id)).await.expect(OK);
    let sections = outline["lessons"][0]["sections"].as_array().unwrap().iter().enumerate();
    sections
        .filter(|(_, section)| !section["progress"].is_null())
        .map(|(index, section)| {
            let progress = &section["progress"];
            let seconds = u32::try_from(progress["timeSpent"].as_u64().unwrap()).unwrap();
            (index, (seconds, time(&progress["completedAt"]), time(&progress["updatedAt"]).unwrap()))
        })
        .collect()
}

/// Every permutation, repetition and re-batching of the same events ends in what the model says.
#[test]
fn the_fold_depends_on_the_set_of_events_alone() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (lectern, course) = runtime.block_on(async {
        let lectern = Lectern::start().await;
        let course = lectern.course("teacher", &[4]).await;
        (lectern, course)
    });
    let strategy = prop::collection::vec(drawn(), 1..25).prop_flat_map(|events| {
        let indices: Vec<usize> = (0..events.len()).chain(0..events.len()).collect();
        (Just(events), Just(indices).prop_shuffle(), 1..10_usize)
    });
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let result = runner.run(&strategy, |(events, order, batch)| {
        runtime.block_on(async {
            let user = Uuid::now_v7().to_string();
            let learner = lectern.learner(&user);
            learner.enrol(&course).await.expect(StatusCode::CREATED);
            let now = Utc::now();
            let bodies: Vec<Value> = events
                .iter()
                .map(|(section, seconds, completed, ago)| {
                    let mut body = event(&course.sections[*section], *seconds, *completed);
                    let at = now - TimeDelta::seconds(*ago);
                    body["occurredAt"] = at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true).into();
                    body
                })
                .collect();
            let (mut recorded, mut duplicates) = (0, 0);
            for indices in order.chunks(batch) {
                let events: Vec<Value> = indices.iter().map(|index| bodies[*index].clone()).collect();
                let answer = learner.record(&events).await.expect(OK);
                recorded += answer["recorded"].as_u64().unwrap();
                duplicates += answer["duplicates"].as_u64().unwrap();
            }
            prop_assert_eq!((recorded, duplicates), (events.len() as u64, events.len() as u64));

            // PostgreSQL keeps microseconds.
            let now = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap();
            let expected = model(&events, now);
            prop_assert_eq!(&seen(&lectern, &user, &course).await, &expected);
            let summary = learner.summary(&course).await;
            let complete = expected.values().filter(|(_, completed, _)| completed.is_some()).count();
            prop_assert_eq!(summary["completedSections"].as_u64(), Some(complete as u64));
            prop_assert_eq!(summary["completionPercentage"].as_f64(), Some(complete as f64 * 25.0));
            prop_assert_eq!(
                time(&summary["completedAt"]),
                (complete == 4).then(|| expected.values().filter_map(|(_, completed, _)| *completed).max()).flatten()
            );
            Ok(())
        })
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    assert_eq!(runtime.block_on(lectern.drift()), 0);
}

#[tokio::test]
async fn a_percentage_is_100_only_when_all_is_complete_and_never_more() {
    let lectern = Lectern::start().await;
    let wrong = "select count(*) from generate_series(1, 400) as total, generate_series(0, 410) as completed,
        lateral (select completion_percentage_v1(completed, total) as percentage) as computed
        where percentage > 100 or (percentage = 100) <> (completed >= total)
            or percentage > completed * 100.0 / total
            or completed <= total and completed * 100.0 / total - percentage >= 0.01";
    assert_eq!(lectern.fetch(wrong).await, "0");
    assert_eq!(lectern.fetch("completion_percentage_v1(19999, 20000)").await, "99.99");
    assert_eq!(lectern.fetch("completion_percentage_v1(1, 0)").await, "null");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parallel_last_sections_stamp_one_completion() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[100]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let token = lectern.token(&local::authorizer::Grant::new("alice", &[]));
    let events: Vec<Value> = course
        .sections
        .iter()
        .enumerate()
        .map(|(index, section)| {
            let mut event = event(section, 3, true);
            event["occurredAt"] = seconds_ago(1_000 - index as i64).into();
            event
        })
        .collect();
    let latest = events[99]["occurredAt"].clone();

    let answers: Vec<Value> = futures(events.iter().map(|event| {
        let (lectern, token) = (&lectern, &token);
        async move { lectern.bearer(token).record(std::slice::from_ref(event)).await.expect(OK) }
    }))
    .await;

    let stamped: Vec<&Value> =
        answers.iter().map(|answer| &answer["courses"][0]["completedAt"]).filter(|at| !at.is_null()).collect();
    // Exactly one of them saw the course complete: the one that was last.
    assert_eq!(stamped, [&latest]);
    let summary = alice.summary(&course).await;
    assert_eq!((&summary["completedAt"], &summary["totalTimeSpent"]), (&latest, &json!(300)));
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_in_opposite_order_never_fail_and_overlapping_ones_count_each_event_once() {
    let lectern = Lectern::start().await;
    let first = lectern.course("teacher", &[3]).await;
    let second = lectern.course("teacher", &[3]).await;
    for course in [&first, &second] {
        lectern.learner("alice").enrol(course).await.expect(StatusCode::CREATED);
        lectern.learner("bob").enrol(course).await.expect(StatusCode::CREATED);
    }
    let mut events = Vec::new();
    for section in first.sections.iter().chain(&second.sections) {
        for user in ["alice", "bob"] {
            let mut event = event(section, 7, true);
            event["userId"] = user.into();
            events.push(event);
        }
    }
    let service = lectern.service();
    // Sixteen clients send the same events, each beginning elsewhere, every other one backwards.
    let answers: Vec<Value> = futures((0..16).map(|client| {
        let mut batch = events.clone();
        batch.rotate_left(client % events.len());
        if client % 2 == 1 {
            batch.reverse();
        }
        let service = &service;
        async move { service.record(&batch).await.expect(OK) }
    }))
    .await;

    let mut recorded: BTreeMap<String, u32> = BTreeMap::new();
    for result in answers.iter().flat_map(|answer| answer["results"].as_array().unwrap()) {
        match result["status"].as_str().unwrap() {
            "recorded" => *recorded.entry(result["eventId"].to_string()).or_default() += 1,
            other => assert_eq!(other, "duplicate", "{result}"),
        }
    }
    assert_eq!(recorded.len(), events.len());
    assert!(recorded.values().all(|times| *times == 1), "{recorded:?}");
    assert_eq!(lectern.fetch("select sum(time_spent) from progress").await, "84");
    assert_eq!(lectern.fetch("select count(*) from enrollments where completed_at is not null").await, "4");
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_id_sent_at_once_for_two_courses_counts_in_one_of_them() {
    let lectern = Lectern::start().await;
    let alice = lectern.learner("alice");
    let courses = [lectern.course("teacher", &[1]).await, lectern.course("teacher", &[1]).await];
    for course in &courses {
        alice.enrol(course).await.expect(StatusCode::CREATED);
    }
    for _ in 0..20 {
        let id = Uuid::now_v7();
        let answers = futures(courses.iter().map(|course| {
            let mut event = event(&course.sections[0], 1, false);
            event["eventId"] = json!(id);
            let alice = &alice;
            async move { alice.record(&[event]).await.expect(OK)["results"][0]["code"].clone() }
        }))
        .await;
        let conflicts = answers.iter().filter(|code| **code == json!("event_conflict")).count();
        assert_eq!(conflicts, 1, "{answers:?}");
    }
    assert_eq!(lectern.fetch("select sum(time_spent) from progress").await, "20");
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_and_cancellations_between_parallel_batches_leave_no_drift() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[5]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let path = |what: &str| format!("/courses/{}/{what}", course.id);
    futures((0..60).map(|turn| {
        let (alice, course, path) = (&alice, &course, &path);
        async move {
            match turn % 10 {
                4 => alice.delete(&path("progress")).await.expect(StatusCode::NO_CONTENT),
                7 => alice.delete(&path("enrollment")).await.expect(StatusCode::NO_CONTENT),
                8 => alice.enrol(course).await.expect(OK),
                _ => alice.record(&[event(&course.sections[turn % 5], 1, true)]).await.expect(OK),
            }
        }
    }))
    .await;
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_parallel_requests_with_one_key_make_one_course() {
    let lectern = Lectern::start().await;
    let teacher = lectern.teacher("teacher");
    let body = course_body("Once", &[3, 3], true);
    let answers = futures((0..20).map(|_| {
        let (teacher, body) = (&teacher, &body);
        async move { teacher.create_with_key("the-key", body).await }
    }))
    .await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (StatusCode::CREATED, &answers[0].text));
    }
    let first = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
    assert_eq!(first, 1);
    assert_eq!(lectern.fetch("select count(*) from courses").await, "1");
    assert_eq!(lectern.fetch("select count(*) from sections").await, "6");
}

/// Two sessions of SQL make sure that the batch waits for one course while its learner enrols in the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrollment_made_while_a_batch_waits_for_its_locks_is_not_written_unlocked() {
    let lectern = Lectern::start().await;
    let (first, second) = (lectern.course("teacher", &[1]).await, lectern.course("teacher", &[2]).await);
    let alice = lectern.learner("alice");
    alice.enrol(&first).await.expect(StatusCode::CREATED);
    let (client, connection) = tokio_postgres::connect(&lectern.database, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin; select * from enrollments for update").await.unwrap();

    let batch = [event(&first.sections[0], 1, true), event(&second.sections[0], 60, true)];
    let waiting = alice.record(&batch);
    let meanwhile = async {
        let blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
            and datname = current_database() and query like '%record_progress_v%'";
        while lectern.fetch(blocked).await == "0" {
            tokio::task::yield_now().await;
        }
        alice.enrol(&second).await.expect(StatusCode::CREATED);
        client.batch_execute("rollback").await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, meanwhile);
    let answer = answer.expect(OK);
    assert_eq!(answer["results"][0]["status"], "recorded");
    assert_eq!(answer["results"][1]["code"], "not_enrolled");
    alice.record(&[event(&second.sections[1], 60, true), batch[1].clone()]).await.expect(OK);
    assert_eq!(alice.summary(&second).await["completionPercentage"], 100.0);
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn the_same_reset_once_more_does_not_take_what_was_recorded_since() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let reset = format!("select * from reset_progress_v1('alice', '{}', '{}', false)", course.id, seconds_ago(1));
    lectern.sql(&reset).await;
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    lectern.sql(&reset).await;
    assert_eq!(lectern.fetch("select sum(time_spent) from progress").await, "5");
    assert_eq!(lectern.drift().await, 0);
}

#[tokio::test]
async fn a_reset_by_a_clock_that_is_behind_clears_all_the_same() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    for ago in [10, 20] {
        alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
        let at = seconds_ago(ago);
        lectern.sql(&format!("select * from reset_progress_v1('alice', '{}', '{at}', false)", course.id)).await;
        assert_eq!(lectern.fetch("select count(*) from progress").await, "0");
    }
    assert_eq!(lectern.drift().await, 0);
}

/// Runs futures at the same time; results come in the order of the futures.
async fn futures<F: Future>(work: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(work).await
}
