//! What can go wrong with Lectern's servers and environments, and how a load endures it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    balance::Report,
    faults::{Fault, Plan, Proxy},
    load::Load,
    own_servers::OwnRedis,
    redis_servers,
    rig::{ENVIRONMENTS, Rig, Servers},
};

/// The one environment that bad things happen to.
const VICTIM: usize = 0;
/// The request by which a drainer marks a submission as done.
const MARK: &str = "DynamoDB_20120810.TransactWriteItems";
/// Marks in vain before a drainer is killed: more than one submission, as the first may hold nothing that counts.
const MARKS: usize = 4;
/// How long something that must happen soon may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events before the fault: connections are open, everything is warm.
const EVENTS_BEFORE: usize = 500;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// On the way to PostgreSQL.
    Postgres(Plan),
    /// On the way to Redis.
    Redis(Plan),
    /// On the way to `DynamoDB`.
    DynamoDb(Plan),
    /// All connections to PostgreSQL are reset, again and again; new ones are welcome.
    ConnectionsReset,
    PostgresKilled,
    PostgresStopped,
    PostgresRestarted,
    /// PostgreSQL accepts nobody any more (53300).
    OutOfConnections,
    RedisKilled,
    RedisStopped,
    RedisFlushed,
    EnvironmentFrozen,
    EnvironmentKilled,
    /// Afterwards, every environment drains at the same time.
    DrainersAtOnce,
    /// Afterwards, a drainer is killed when it has applied submissions and not marked them yet.
    DrainerKilled,
}

impl Trouble {
    fn name(self) -> String {
        match self {
            Self::Postgres(plan) => format!("Postgres {plan}"),
            Self::Redis(plan) => format!("Redis {plan}"),
            Self::DynamoDb(plan) => format!("DynamoDb {plan}"),
            other => format!("{other:?}"),
        }
    }

    /// Which servers it takes.
    fn servers(self) -> Servers {
        match self {
            Self::PostgresKilled | Self::PostgresStopped | Self::PostgresRestarted => Servers::Own,
            Self::RedisKilled | Self::RedisStopped => Servers::Own,
            _ => Servers::Shared,
        }
    }

    async fn begin(self, rig: &mut Rig) -> Option<Pulse> {
        let own_postgres = "a PostgreSQL of its own";
        let own_redis = "a Redis of its own";
        match self {
            Self::Postgres(plan) => rig.postgres.set(plan),
            Self::Redis(plan) => rig.redis.set(plan),
            Self::DynamoDb(plan) => rig.dynamodb.set(plan),
            Self::ConnectionsReset => return Some(Pulse::start(rig.postgres.clone())),
            Self::PostgresKilled => rig.own_postgres.as_mut().expect(own_postgres).kill().await,
            Self::PostgresStopped => rig.own_postgres.as_mut().expect(own_postgres).freeze(),
            Self::PostgresRestarted => rig.own_postgres.as_mut().expect(own_postgres).shut_down().await,
            Self::OutOfConnections => {
                let role = &rig.role;
                rig.control.sql(&format!("alter role {role} connection limit 0")).await;
                let others = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
                rig.control.sql(&others).await;
            }
            Self::RedisKilled => rig.own_redis.as_ref().expect(own_redis).signal(Signal::KILL),
            Self::RedisStopped => rig.own_redis.as_ref().expect(own_redis).signal(Signal::STOP),
            Self::RedisFlushed => flush(&rig.redis_url).await,
            Self::EnvironmentFrozen => rig.environments.freeze(VICTIM),
            Self::EnvironmentKilled => {
                rig.environments.kill(VICTIM);
                rig.environments.replace(VICTIM).await;
            }
            Self::DrainersAtOnce | Self::DrainerKilled => {}
        }
        None
    }

    async fn end(self, rig: &mut Rig) {
        let own_postgres = "a PostgreSQL of its own";
        match self {
            Self::Postgres(_) => rig.postgres.set(Fault::Pass),
            Self::Redis(_) => rig.redis.set(Fault::Pass),
            Self::DynamoDb(_) => rig.dynamodb.set(Fault::Pass),
            Self::PostgresKilled | Self::PostgresRestarted => {
                let address = rig.own_postgres.as_mut().expect(own_postgres).start_again().await;
                rig.postgres.lead_to(address);
            }
            Self::PostgresStopped => rig.own_postgres.as_mut().expect(own_postgres).thaw(),
            Self::OutOfConnections => {
                rig.control.sql(&format!("alter role {} connection limit -1", rig.role)).await;
            }
            Self::RedisKilled => {
                let redis = OwnRedis::start().await;
                rig.redis.lead_to(redis.address());
                rig.redis_url = redis.url();
                rig.own_redis = Some(redis);
            }
            Self::RedisStopped => rig.own_redis.as_ref().expect("a Redis of its own").signal(Signal::CONT),
            Self::RedisFlushed => flush(&rig.redis_url).await,
            Self::EnvironmentFrozen => rig.environments.thaw(VICTIM),
            Self::EnvironmentKilled => {
                rig.environments.kill(VICTIM);
                rig.environments.replace(VICTIM).await;
            }
            Self::ConnectionsReset | Self::DrainersAtOnce | Self::DrainerKilled => {}
        }
    }

    /// What happens when PostgreSQL is back. Answers how many submissions each of several drainers ended.
    async fn follow(self, rig: &Rig) -> Vec<u64> {
        match self {
            Self::DrainersAtOnce => {
                let all: [u64; ENVIRONMENTS] = tokio::join!(rig.drain(0), rig.drain(1)).into();
                all.to_vec()
            }
            Self::DrainerKilled => {
                rig.dynamodb.set(Fault::BlackHole.only_to(MARK));
                let (bites, environments) = (rig.dynamodb.bites(), rig.environments.clone());
                // A run that finds PostgreSQL still away marks nothing; the next one comes.
                let drainer = tokio::spawn(async move { while environments.replay(VICTIM).await.is_some() {} });
                let bitten = async {
                    while rig.dynamodb.bites() < bites + MARKS {
                        sleep(Duration::from_millis(1)).await;
                    }
                };
                timeout(PATIENCE, bitten).await.expect("the drainer marks what it has applied");
                rig.environments.kill(VICTIM);
                rig.environments.replace(VICTIM).await;
                rig.dynamodb.set(Fault::Pass);
                drainer.await.expect("it ends");
                vec![]
            }
            _ => vec![],
        }
    }
}

/// Resets connections at short intervals.
struct Pulse(JoinHandle<()>);

impl Pulse {
    fn start(proxy: Arc<Proxy>) -> Self {
        Self(tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(0);
            loop {
                proxy.reset_all();
                sleep(Duration::from_millis(rng.random_range(40..120))).await;
            }
        }))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn flush(redis_url: &str) {
    let mut connection = redis_servers::connect(redis_url).await;
    redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await.expect("it is flushed");
}

/// Something to endure: troubles that begin and end together, for how long, and how much is to be done meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) lasts: Duration,
    /// It ends only when somebody has just tried in vain again: the worst moment to be back.
    pub(crate) ends_at_worst: bool,
    /// The load goes on until so many events have been taken.
    pub(crate) events: usize,
}

impl Trial {
    pub(crate) fn new(name: &str, lasts_ms: u64, troubles: impl Into<Vec<Trouble>>) -> Self {
        Self {
            name: name.to_owned(),
            troubles: troubles.into(),
            lasts: Duration::from_millis(lasts_ms),
            ends_at_worst: false,
            events: 0,
        }
    }

    /// The same under the name of all its troubles.
    pub(crate) fn named_after_its_troubles(self) -> Self {
        let names: Vec<String> = self.troubles.iter().map(|trouble| trouble.name()).collect();
        Self { name: names.join(" + "), ..self }
    }

    /// Which servers it takes.
    pub(crate) fn servers(&self) -> Servers {
        let own = self.troubles.iter().any(|trouble| trouble.servers() == Servers::Own);
        if own { Servers::Own } else { Servers::Shared }
    }

    /// Lets a load endure it, replays what was parked and draws up the account.
    pub(crate) async fn endure(&self, rig: &mut Rig, learners: &str, seed: u64) -> Report {
        let bites = bites(rig);
        let load = Load::start(rig, learners, seed).await;
        load.has_delivered(EVENTS_BEFORE).await;
        let mut pulses = Vec::new();
        for trouble in &self.troubles {
            pulses.extend(trouble.begin(rig).await);
        }
        sleep(self.lasts).await;
        let before = self::bites(rig);
        while self.ends_at_worst && self::bites(rig) == before {
            sleep(Duration::from_millis(1)).await;
        }
        drop(pulses);
        for trouble in &self.troubles {
            trouble.end(rig).await;
        }
        let recovery = load.recovery(Instant::now()).await;
        let mut drained = Vec::new();
        for trouble in &self.troubles {
            drained.extend(trouble.follow(rig).await);
        }
        load.has_delivered(self.events).await;
        let (deliveries, attempts) = load.stop().await;
        rig.drain(VICTIM).await;
        let mut report = Report::of(rig, &self.name, &deliveries, &attempts).await;
        report.recovered(recovery);
        Report { drained, bites: self::bites(rig) - bites, ..report }
    }
}

fn bites(rig: &Rig) -> usize {
    rig.postgres.bites() + rig.redis.bites() + rig.dynamodb.bites()
}
