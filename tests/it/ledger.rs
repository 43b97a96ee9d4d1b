//! What the ledger forgets, and that nothing counts twice for it.

use chrono::{TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::json;
use shared::{analytics, app::App, config::Config, submissions};

use crate::support::{Course, Lectern, deadline, event};

const OK: StatusCode = StatusCode::OK;

/// A refresh so many days from now. Two of them: what one may forget, the next one forgets.
async fn refresh_in(app: &App, days: i64) {
    for _ in 0..2 {
        analytics::refresh(app, Utc::now() + TimeDelta::days(days), deadline()).await.unwrap();
    }
}

async fn known(lectern: &Lectern) -> String {
    lectern.fetch("select count(*) from progress_events").await
}

/// Alice, with one event on each of two sections.
async fn with_events() -> (Lectern, Course) {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[3]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    alice.record(&[event(&course.sections[0], 5, true), event(&course.sections[1], 7, false)]).await.expect(OK);
    (lectern, course)
}

#[tokio::test]
async fn ids_are_kept_for_the_age_of_an_event_and_the_longest_parking_and_no_longer() {
    let (lectern, _) = with_events().await;
    refresh_in(lectern.app(), 35).await;
    assert_eq!(known(&lectern).await, "2");
    refresh_in(lectern.app(), 36).await;
    assert_eq!(known(&lectern).await, "0");
}

#[tokio::test]
async fn they_are_kept_longer_where_events_may_be_older() {
    let (lectern, _) = with_events().await;
    let config = Config { progress_max_event_age_days: 100, ..lectern.app().config.clone() };
    refresh_in(&App::new(config).unwrap(), 104).await;
    assert_eq!(known(&lectern).await, "2");
}

#[tokio::test]
async fn what_is_forgotten_is_announced_a_run_before() {
    let (lectern, _) = with_events().await;
    let later = Utc::now() + TimeDelta::days(36);
    analytics::refresh(lectern.app(), later, deadline()).await.unwrap();
    assert_eq!(known(&lectern).await, "2");
    analytics::refresh(lectern.app(), later, deadline()).await.unwrap();
    assert_eq!(known(&lectern).await, "0");
}

#[tokio::test]
async fn many_are_forgotten_in_small_batches_and_the_young_ones_stay() {
    let (lectern, course) = with_events().await;
    lectern
        .sql(&format!(
            "insert into progress_events
                (user_id, event_id, course_id, section_id, time_spent, completed, recorded_at, attempt)
            select 'alice', gen_random_uuid(), '{}', '{}', 1, false, now() - interval '40 days', 7
            from generate_series(1, 12000)",
            course.id, course.sections[0]
        ))
        .await;
    refresh_in(lectern.app(), 0).await;
    assert_eq!(known(&lectern).await, "2");
}

#[tokio::test]
async fn progress_outlives_its_events_and_a_reconciliation_knows_it() {
    let (lectern, course) = with_events().await;
    refresh_in(lectern.app(), 36).await;
    assert_eq!(lectern.drift().await, 0);
    // Events go on, over what is forgotten.
    let alice = lectern.learner("alice");
    alice.record(&[event(&course.sections[0], 5, true), event(&course.sections[2], 1, false)]).await;
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 18);
    assert_eq!(lectern.drift().await, 0);
    // It still sees what cannot be.
    lectern.sql("update progress set time_spent = 0; update enrollments set time_spent = 0").await;
    assert!(lectern.drift().await > 0);
}

#[tokio::test]
async fn nothing_counts_again_when_older_events_are_let_in_later() {
    let (lectern, course) = with_events().await;
    let mut old = event(&course.sections[0], 5, true);
    old["occurredAt"] = crate::support::seconds_ago(20 * 24 * 3600).into();
    let alice = lectern.learner("alice");
    alice.record(std::slice::from_ref(&old)).await.expect(OK);
    // Sixteen days later its id is forgotten, and then somebody raises the age.
    refresh_in(lectern.app(), 36).await;
    let config = Config { progress_max_event_age_days: 100, ..lectern.app().config.clone() };
    let generous = Lectern::start_with(|fresh| *fresh = config).await;
    let answer = generous.learner("alice").record(&[old]).await.expect(OK);
    assert_eq!(answer["results"][0]["code"], "too_old");
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 17);
}

#[tokio::test]
async fn a_batch_that_was_parked_for_as_long_as_possible_is_still_known() {
    let (lectern, course) = with_events().await;
    let counted = event(&course.sections[0], 5, true);
    let alice = lectern.learner("alice");
    alice.record(std::slice::from_ref(&counted)).await.expect(OK);
    let cut_off = lectern.cut_off().await;
    cut_off.learner("alice").record(&[counted]).await.expect(StatusCode::ACCEPTED);
    refresh_in(lectern.app(), 4).await;
    let replayed = submissions::replay(lectern.app(), Utc::now() + TimeDelta::days(4), deadline()).await.unwrap();
    assert_eq!(replayed.to_json(), json!({"applied": 1, "rejected": 0, "remaining": 0}));
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 17);
}
