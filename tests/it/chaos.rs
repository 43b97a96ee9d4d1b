//! Every fault there is and mixes of them, one after the other over the same servers, as `make chaos` has it.
//!
//! The trials are those of `failure` and last longer. Only what happens by chance of time differs between two runs with
//! one seed.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    balance::{HEADING, Report},
    faults::Fault,
    rig::{Rig, Servers},
    support::{environment, say},
    trouble::{Trial, Trouble},
};

const DEFAULT_SEED: u64 = 1;
/// All events that have to be taken, at the least.
const EVENTS: usize = 100_000;
/// And in how long, at the most.
const LONGEST_RUN: Duration = Duration::from_secs(600);
/// Trials of several troubles that the seed chooses.
const MIXES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make chaos"]
async fn nothing_is_lost_or_doubled_whatever_fails() {
    let seed = environment("SEED").map_or(DEFAULT_SEED, |seed| seed.parse().expect("SEED is a whole number"));
    let started = Instant::now();
    let mut rig = Rig::start(Servers::Own).await;
    say(&format!("SEED={seed}\n\n{HEADING}"));
    let mut trials = singles();
    trials.extend(mixes(&mut StdRng::seed_from_u64(seed)));
    let events = EVENTS.div_ceil(trials.len());
    let mut reports = Vec::new();
    for (number, trial) in trials.into_iter().enumerate() {
        let trial = Trial { events, ..trial };
        let report = trial.endure(&mut rig, &format!("learner-{number}"), seed + number as u64).await;
        say(&report.to_string());
        reports.push(report);
    }
    rig.stop().await;
    let all = total(&reports);
    say(&format!("{all}\n\n{} events in {:.0} s", all.events, started.elapsed().as_secs_f64()));
    assert!(all.wrong.is_empty(), "SEED={seed}\n{}", all.wrong.join("\n"));
    assert!(all.events >= EVENTS && started.elapsed() <= LONGEST_RUN, "{} events", all.events);
}

/// Every trouble by itself, or with what it takes to be felt.
fn singles() -> Vec<Trial> {
    use Trouble::*;
    let postgres = |fault: Fault| Postgres(fault.into());
    let dynamodb = |fault: Fault| DynamoDb(fault.into());
    let away = postgres(Fault::Refuse);
    let slow = Fault::Delay(Duration::from_millis(40));
    vec![
        Trial::new("nothing", 1_000, []),
        Trial::new("PostgreSQL killed", 1_500, [PostgresKilled]),
        Trial::new("PostgreSQL stopped 5 s", 5_000, [PostgresStopped]),
        Trial::new("PostgreSQL restarted", 1_000, [PostgresRestarted]),
        Trial::new("PostgreSQL refuses", 2_000, [away]),
        Trial::new("PostgreSQL resets what comes", 2_000, [postgres(Fault::Reset)]),
        Trial::new("connections reset", 3_000, [ConnectionsReset]),
        Trial::new("PostgreSQL in a black hole", 5_000, [postgres(Fault::BlackHole)]),
        Trial::new("cut after COMMIT", 2_000, [postgres(Fault::CutAnswer)]),
        Trial::new("every other connection cut after COMMIT", 2_000, [Postgres(Fault::CutAnswer.to_every(2))]),
        Trial::new("mute after COMMIT", 3_000, [postgres(Fault::Mute)]),
        Trial::new("PostgreSQL slow", 2_000, [postgres(slow)]),
        Trial::new("out of connections", 2_000, [OutOfConnections]),
        Trial::new("Redis killed", 2_000, [RedisKilled]),
        Trial::new("Redis stopped 5 s", 5_000, [RedisStopped]),
        Trial::new("Redis flushed", 500, [RedisFlushed]),
        Trial::new("DynamoDB 500", 1_000, [dynamodb(Fault::ServerError)]),
        Trial::new("DynamoDB silent", 1_000, [dynamodb(Fault::BlackHole)]),
        Trial::new("PostgreSQL away, DynamoDB 500", 2_000, [away, dynamodb(Fault::ServerError)]),
        Trial::new("both in a black hole", 5_000, [postgres(Fault::BlackHole), dynamodb(Fault::BlackHole)]),
        Trial::new("PostgreSQL away, DynamoDB cut", 2_000, [away, dynamodb(Fault::CutAnswer)]),
        Trial::new("environment frozen 5 s", 5_000, [EnvironmentFrozen]),
        Trial::new("environment killed", 1_000, [EnvironmentKilled]),
        Trial::new("two drainers at once", 3_000, [away, DrainersAtOnce]),
        Trial::new("drainer killed before it marks", 2_000, [away, DrainerKilled]),
    ]
}

/// One trouble of each kind, or none of it; PostgreSQL always has one.
fn mixes(rng: &mut StdRng) -> Vec<Trial> {
    use Trouble::*;
    let postgres = [
        PostgresKilled,
        PostgresStopped,
        PostgresRestarted,
        ConnectionsReset,
        OutOfConnections,
        Postgres(Fault::BlackHole.into()),
        Postgres(Fault::CutAnswer.into()),
        Postgres(Fault::Mute.to_every(2)),
    ];
    let others: [&[Trouble]; 4] = [
        &[RedisKilled, RedisStopped, RedisFlushed, Redis(Fault::BlackHole.into())],
        &[
            DynamoDb(Fault::ServerError.to_every(2)),
            DynamoDb(Fault::CutAnswer.to_every(3)),
            DynamoDb(Fault::BlackHole.to_every(2)),
        ],
        &[EnvironmentFrozen, EnvironmentKilled],
        &[DrainersAtOnce, DrainerKilled],
    ];
    // Each once, in an order of the seed.
    let mut left = postgres.to_vec();
    let mut mix = |_| {
        let mut troubles = vec![left.swap_remove(rng.random_range(0..left.len()))];
        for kind in others {
            if rng.random_ratio(2, 3) {
                troubles.push(kind[rng.random_range(0..kind.len())]);
            }
        }
        Trial::new("mix", rng.random_range(1_500..4_000), troubles).named_after_its_troubles()
    };
    (0..MIXES.min(postgres.len())).map(&mut mix).collect()
}

/// The last row.
fn total(reports: &[Report]) -> Report {
    let sum = |count: fn(&Report) -> usize| reports.iter().map(count).sum();
    let most = |time: fn(&Report) -> Duration| reports.iter().map(time).max().unwrap_or_default();
    let named =
        |report: &Report| report.wrong.iter().map(|what| format!("{}: {what}", report.fault)).collect::<Vec<_>>();
    Report {
        fault: "all, the worst".to_owned(),
        events: sum(|report| report.events),
        recorded: sum(|report| report.recorded),
        parked: sum(|report| report.parked),
        unavailable: sum(|report| report.unavailable),
        broken: sum(|report| report.broken),
        lost: sum(|report| report.lost),
        doubled: sum(|report| report.doubled),
        p50: most(|report| report.p50),
        p99: most(|report| report.p99),
        max: most(|report| report.max),
        recovery: reports.iter().map(|report| report.recovery).max().flatten(),
        wrong: reports.iter().flat_map(named).collect(),
        ..Report::default()
    }
}
