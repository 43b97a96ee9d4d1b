//! The connection to Redis, to one node or to a cluster: time limits, a breaker, and every failure turned into nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, RedisFuture, TlsCertificates, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
};
use tokio::time::timeout;

use crate::{
    breaker::Breaker,
    config,
    error::Error,
    telemetry::{self, Metric, chain},
    tls,
};

/// Opening a connection, which happens inside the first step.
const CONNECT_LIMIT: Duration = Duration::from_millis(80);
/// The same with a TLS handshake, for which a small function has little processor time.
const TLS_CONNECT_LIMIT: Duration = Duration::from_millis(250);
/// What a step may take beside connecting: two commands, the second only if the first failed at once.
const STEP_MARGIN: Duration = Duration::from_millis(20);
/// A write tells even a Redis that is left alone, but does not wait for it as others do.
const HURRIED_LIMIT: Duration = Duration::from_millis(50);
/// Quick failures in a row until then; a thawed environment loses its first command, and that alone means nothing.
const FAILURES_TO_OPEN: u32 = 3;

/// Why a step came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// No answer in time.
    Silent,
    /// An answer, or a connection, that was of no use.
    Failed,
}

/// Redis, as a place that may be away at any time.
pub(super) struct Link {
    target: Target,
    connection: RwLock<Option<Connection>>,
    connect_limit: Duration,
    command_limit: Duration,
    failures: AtomicU32,
    breaker: Breaker,
    /// How long it may be since Redis last took a write before that is tried.
    doubt_after: Duration,
    took_write: Mutex<Instant>,
}

enum Target {
    Node(Box<Client>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    Node(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Link {
    pub(super) fn new(settings: &config::Redis) -> Result<Self, Error> {
        let unreadable = |error: RedisError| Error::internal("reading REDIS_URL", error);
        let info = settings.url.as_str().into_connection_info().map_err(unreadable)?;
        let is_encrypted = settings.url.starts_with("rediss");
        let command_limit = settings.command_limit;
        let connect_limit = command_limit.max(if is_encrypted { TLS_CONNECT_LIMIT } else { CONNECT_LIMIT });
        if is_encrypted {
            tls::install_provider();
        }
        let certificates =
            settings.ca_bundle.as_ref().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) });
        let target = if settings.is_cluster {
            let builder = ClusterClient::builder([info]).retries(1);
            let builder = match certificates {
                Some(certificates) => builder.certs(certificates),
                None => builder,
            };
            let builder = builder.connection_timeout(connect_limit).response_timeout(command_limit);
            Target::Cluster(Box::new(builder.build().map_err(unreadable)?))
        } else {
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates),
                None => Client::open(info),
            };
            Target::Node(Box::new(client.map_err(unreadable)?))
        };
        Ok(Self {
            target,
            connection: RwLock::default(),
            connect_limit,
            command_limit,
            failures: AtomicU32::new(0),
            breaker: Breaker::default(),
            doubt_after: settings.doubt_after,
            took_write: Mutex::new(Instant::now()),
        })
    }

    /// Whether reads may ask; see [`Breaker::admits`].
    pub(super) fn admits(&self) -> bool {
        self.breaker.admits()
    }

    /// A command that reads what stands beside `key`. Now and then it is tried, in the same round trip, whether Redis takes
    /// writes at all: one that answers but hears of no change, such as the old primary after a failover, is of no use.
    pub(super) async fn read<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, Miss> {
        if self.took_write.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.doubt_after {
            return self.ask("read", command).await;
        }
        let commands = || {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(command.clone());
            pipeline.cmd("SET").arg(super::probe(key)).arg("1").arg("PX").arg(1_000).ignore();
            pipeline
        };
        let started = Instant::now();
        let (answer,) = self.step("read", self.full_limit(), commands).await.inspect_err(|miss| {
            if *miss == Miss::Failed {
                self.leave_alone("read", started, "it takes no writes");
            }
        })?;
        self.note_write();
        Ok(answer)
    }

    fn note_write(&self) {
        *self.took_write.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// One command, bounded in time.
    pub(super) async fn ask<T: FromRedisValue>(&self, step: &'static str, command: &Cmd) -> Result<T, Miss> {
        let commands = || {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(command.clone());
            pipeline
        };
        let (answer,) = self.step(step, self.full_limit(), commands).await?;
        Ok(answer)
    }

    /// A command for each key, whose answers nobody needs, sent together: those for one slot of a cluster as one. Each is
    /// made anew whenever it is sent.
    pub(super) async fn tell(
        &self,
        step: &'static str,
        keys: &[String],
        command: impl Fn(&str) -> Cmd,
    ) -> Result<(), Miss> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in keys {
            // One node takes them all at once.
            let tag = if matches!(self.target, Target::Cluster(_)) { hash_tag(key) } else { "" };
            groups.entry(tag).or_default().push(key);
        }
        // A new connection may just have too little time then; the next one goes on opening it.
        let limit = if self.breaker.is_open() { HURRIED_LIMIT } else { self.full_limit() };
        let mut told = Vec::new();
        for keys in groups.values() {
            let command = &command;
            told.push(self.step::<()>(step, limit, move || {
                let mut pipeline = Pipeline::new();
                for key in keys {
                    pipeline.add_command(command(key)).ignore();
                }
                pipeline
            }));
        }
        let told: Result<(), Miss> = join_all(told).await.into_iter().collect();
        if told.is_ok() {
            self.note_write();
        }
        told
    }

    /// One bounded step; a failure is counted.
    ///
    /// A connection that died while nobody looked fails its first command and is then made anew, so commands that failed
    /// without a time-out are sent once more, made anew too.
    async fn step<T: FromRedisValue>(
        &self,
        step: &'static str,
        limit: Duration,
        commands: impl Fn() -> Pipeline,
    ) -> Result<T, Miss> {
        let started = Instant::now();
        let work = async {
            let mut connection = self.connection()?;
            match commands().query_async(&mut connection).await {
                Err(error) if !error.is_timeout() => commands().query_async(&mut connection).await,
                result => result,
            }
        };
        let (miss, error) = match timeout(limit, work).await {
            Ok(Ok(value)) => {
                self.failures.store(0, Ordering::Relaxed);
                self.breaker.close();
                return Ok(value);
            }
            Ok(Err(error)) if !error.is_timeout() => (Miss::Failed, chain(&error)),
            _ => (Miss::Silent, "no answer in time".to_owned()),
        };
        telemetry::count_cache_failure();
        if miss == Miss::Silent {
            telemetry::count(Metric::CacheTimeout);
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let was_hurried = limit < self.full_limit();
        if !was_hurried && (miss == Miss::Silent || failures >= FAILURES_TO_OPEN) {
            self.leave_alone(step, started, &error);
        }
        Err(miss)
    }

    /// What a step may take whose sender has time.
    fn full_limit(&self) -> Duration {
        self.connect_limit + STEP_MARGIN
    }

    fn connection(&self) -> Result<Connection, RedisError> {
        if let Some(connection) = &*self.connection.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(connection.clone());
        }
        let fresh = self.target.connect(self.connect_limit, self.command_limit)?;
        Ok(self.connection.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(fresh).clone())
    }

    /// Leaves Redis alone for a while, and begins with a new connection then: a silent one is never replaced by itself. The
    /// connections of a cluster stay, for those of its nodes that are well.
    fn leave_alone(&self, step: &'static str, since: Instant, error: &str) {
        if self.breaker.open(since) {
            tracing::warn!(step, error, "the cache is left alone for a while");
        }
        if matches!(self.target, Target::Node(_)) {
            self.connection.write().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

impl Target {
    /// A connection that is opened when it is first used.
    fn connect(&self, limit: Duration, command_limit: Duration) -> Result<Connection, RedisError> {
        match self {
            Self::Node(client) => {
                let settings = ConnectionManagerConfig::new()
                    .set_number_of_retries(0)
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(Some(command_limit));
                ConnectionManager::new_lazy_with_config(Client::clone(client), settings).map(Connection::Node)
            }
            Self::Cluster(client) => {
                let settings = ClusterConfig::new().set_connection_timeout(limit).set_response_timeout(command_limit);
                Ok(Connection::Cluster(client.get_pending_async_connection_with_config(settings)))
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// What of a key decides on its slot.
fn hash_tag(key: &str) -> &str {
    key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag)
}
