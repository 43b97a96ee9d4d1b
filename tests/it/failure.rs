//! Progress is counted exactly once, whatever fails: each test lets a load endure a fault and then holds every promise
//! that it was given against the ledger and both folds. All of it together, for longer, is `chaos`.
//!
//! Each test also shows that its fault was felt: an account that balances because nothing happened proves nothing.

use std::time::Duration;

use crate::{
    balance::Report,
    faults::Fault,
    rig::{Rig, Servers},
    trouble::{Trial, Trouble},
};

const SEED: u64 = 20;

/// Lets one load after the other endure its trial, and gets the reports of all that held.
async fn endure<const N: usize>(trials: [Trial; N]) -> [Report; N] {
    let own = trials.iter().any(|trial| trial.servers() == Servers::Own);
    let mut rig = Rig::start(if own { Servers::Own } else { Servers::Shared }).await;
    let mut reports = Vec::new();
    for (number, trial) in trials.iter().enumerate() {
        let report = trial.endure(&mut rig, &format!("learner-{number}"), SEED).await;
        report.is_exact();
        assert!(report.recorded > 0 && report.rejected > 0, "{report:?}");
        reports.push(report);
    }
    rig.stop().await;
    reports.try_into().expect("as many")
}

/// One trial in which PostgreSQL was away for long enough for batches to be parked.
async fn endure_parking(lasts_ms: u64, troubles: impl Into<Vec<Trouble>>) -> Report {
    let [report] = endure([Trial::new("one", lasts_ms, troubles)]).await;
    assert!(report.parked > 0, "{report:?}");
    report
}

#[tokio::test]
async fn postgresql_killed_under_load_has_kept_what_was_answered() {
    endure_parking(500, [Trouble::PostgresKilled]).await;
}

#[tokio::test]
async fn a_postgresql_that_stands_still_is_not_waited_for() {
    endure_parking(3_000, [Trouble::PostgresStopped]).await;
}

#[tokio::test]
async fn a_restart_of_postgresql_loses_nothing() {
    endure_parking(500, [Trouble::PostgresRestarted]).await;
}

#[tokio::test]
async fn connections_that_are_reset_in_the_midst_of_statements_are_replaced() {
    let [report] = endure([Trial::new("resets", 1_500, [Trouble::ConnectionsReset])]).await;
    assert!(report.bites > 10 && report.duplicates + report.replayed_duplicates > 0, "{report:?}");
}

#[tokio::test]
async fn behind_a_black_hole_everything_is_parked_in_time() {
    let report = endure_parking(2_500, [Trouble::Postgres(Fault::BlackHole.into())]).await;
    assert!(report.max > Duration::from_millis(1_500), "somebody waited for an answer: {report:?}");
}

#[tokio::test]
async fn who_tried_in_vain_just_before_postgresql_was_back_finds_it_soon_enough() {
    let black_hole = [Trouble::Postgres(Fault::BlackHole.into())];
    // By then every environment has found it silent, and waits until it tries again.
    let trial = Trial { ends_at_worst: true, ..Trial::new("worst", 3_500, black_hole) };
    let [report] = endure([trial]).await;
    assert!(report.parked > 0, "{report:?}");
}

#[tokio::test]
async fn what_was_committed_but_never_answered_is_parked_and_counts_once() {
    let report = endure_parking(1_000, [Trouble::Postgres(Fault::CutAnswer.into())]).await;
    assert!(report.replayed_duplicates > 0, "{report:?}");
    let report = endure_parking(2_500, [Trouble::Postgres(Fault::Mute.into())]).await;
    assert!(report.replayed_duplicates > 0, "{report:?}");
}

#[tokio::test]
async fn what_was_committed_but_not_answered_is_found_by_the_second_try() {
    // Some meet it a second time, and are parked: long enough for others.
    let [report] = endure([Trial::new("cut", 3_000, [Trouble::Postgres(Fault::CutAnswer.to_every(2))])]).await;
    assert!(report.bites > 0 && report.duplicates > 0, "{report:?}");
}

#[tokio::test]
async fn a_postgresql_out_of_connections_or_refusing_them_is_away() {
    endure_parking(1_000, [Trouble::OutOfConnections]).await;
    endure_parking(1_000, [Trouble::Postgres(Fault::Refuse.into())]).await;
}

#[tokio::test]
async fn nothing_depends_on_redis() {
    let reports = endure([
        Trial::new("killed", 1_000, [Trouble::RedisKilled]),
        Trial::new("stopped", 1_000, [Trouble::RedisStopped]),
        Trial::new("flushed", 100, [Trouble::RedisFlushed]),
        Trial::new("reset", 500, [Trouble::Redis(Fault::Reset.into())]),
    ])
    .await;
    for report in &reports {
        assert_eq!((report.parked, report.unavailable, report.broken), (0, 0, 0), "{report:?}");
    }
    assert!(reports[3].bites > 0, "{:?}", reports[3]);
}

#[tokio::test]
async fn dynamodb_is_needed_only_while_postgresql_is_away() {
    for (fault, lasts_ms) in [(Fault::ServerError, 1_000), (Fault::BlackHole, 1_500)] {
        let (dynamodb, postgres) = (Trouble::DynamoDb(fault.into()), Trouble::Postgres(Fault::Refuse.into()));
        let [alone, both] =
            endure([Trial::new("alone", 300, [dynamodb]), Trial::new("both", lasts_ms, [postgres, dynamodb])]).await;
        assert_eq!((alone.parked, alone.unavailable, alone.bites), (0, 0, 0), "{alone:?}");
        assert!(both.unavailable > 0, "{both:?}");
    }
}

#[tokio::test]
async fn with_both_of_them_silent_the_answer_still_comes_in_time() {
    let silent = [Trouble::Postgres(Fault::BlackHole.into()), Trouble::DynamoDb(Fault::BlackHole.into())];
    let [report] = endure([Trial::new("silent", 3_500, silent)]).await;
    assert!(report.unavailable > 0 && report.max > Duration::from_millis(2_500), "{report:?}");
}

#[tokio::test]
async fn what_was_parked_although_nobody_was_told_counts_once() {
    let cut = [Trouble::Postgres(Fault::Refuse.into()), Trouble::DynamoDb(Fault::CutAnswer.into())];
    let [report] = endure([Trial::new("cut", 1_000, cut)]).await;
    // Batches were put and their senders told that nothing is promised; sent again, they were there twice.
    assert!(report.unavailable > 0 && report.bites > 0, "{report:?}");
}

#[tokio::test]
async fn a_frozen_environment_goes_on_where_it_stood_and_nothing_counts_twice() {
    let [report] = endure([Trial::new("frozen", 4_500, [Trouble::EnvironmentFrozen])]).await;
    // Devices gave it up and sent the same to the other one, while the first copy still lay there.
    assert!(report.broken > 0, "{report:?}");
}

#[tokio::test]
async fn a_killed_environment_loses_nothing_that_it_had_answered() {
    let [report] = endure([Trial::new("killed", 500, [Trouble::EnvironmentKilled])]).await;
    assert!(report.broken > 0, "{report:?}");
}

#[tokio::test]
async fn two_drainers_at_once_do_each_others_work_harmlessly() {
    let report = endure_parking(2_500, [Trouble::Postgres(Fault::Refuse.into()), Trouble::DrainersAtOnce]).await;
    assert!(report.drained.len() == 2 && report.drained.iter().all(|ended| *ended > 0), "{report:?}");
}

#[tokio::test]
async fn a_drainer_killed_between_applying_and_marking_leaves_nothing_to_count_twice() {
    let report = endure_parking(1_000, [Trouble::Postgres(Fault::Refuse.into()), Trouble::DrainerKilled]).await;
    assert!(report.replayed_duplicates > 0, "{report:?}");
}

#[tokio::test]
async fn several_failures_at_once_are_endured_like_one() {
    let mix = [
        Trouble::PostgresKilled,
        Trouble::RedisStopped,
        Trouble::DynamoDb(Fault::CutAnswer.to_every(2)),
        Trouble::EnvironmentFrozen,
        Trouble::DrainersAtOnce,
    ];
    endure_parking(1_500, mix).await;
}
