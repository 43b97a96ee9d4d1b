//! PostgreSQL: the pool, time limits, retries and the meaning of its errors. Knows no table.
//!
//! * Every await is bounded. A frozen environment wakes up with connections that look alive and are not, and a silent
//!   server hangs for ever; no setting of the socket helps against either.
//! * Statements go out with their parameter types: one round trip, cold or warm. What many requests ask is prepared by
//!   name where nothing stands between us and the server; elsewhere nothing pins a connection of RDS Proxy. Time limits of
//!   the server belong on the database role, not in `set`.
//! * A read, and a write that is safe to repeat, is tried once more on a fresh connection when the first was lost.
//! * A server that said nothing is taken as away for a while: who comes then is told at once.

pub mod connect;
mod prepared;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use rand::RngExt;
use tokio::time::{sleep, timeout};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};

use self::connect::Connector;
use crate::{
    breaker::Breaker,
    config::Config,
    error::Error,
    telemetry::{self, Metric},
};

/// Opening a connection takes milliseconds; one that takes longer will not come in time to be of use.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_000);
/// An idle connection older than this is asked whether it still lives before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(10);
/// The answer to that question takes one round trip.
const CHECK_LIMIT: Duration = Duration::from_millis(250);
/// An idle connection older than this is not worth asking: proxies and firewalls will have dropped it.
const DISCARDED_IDLE: Duration = Duration::from_secs(240);
/// Asking whether the server is there takes a round trip.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Before that, others may have to give a connection back.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is silent. Less may be our own haste.
const SILENCE: Duration = Duration::from_secs(1);
/// How often a transaction that lost against another is tried again.
const CONFLICT_RETRIES: u32 = 3;

/// A parameter of a statement with its PostgreSQL type.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement with the name by which logs call it.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    /// `noun.verb`, for the log.
    pub name: &'static str,
    /// The text, fixed: values travel as parameters.
    pub sql: &'static str,
}

/// A statement that a connection plans once, where that can be: for any parameters. None of them may decide by which index
/// it is served best.
#[derive(Debug, Clone, Copy)]
pub struct Prepared(pub Statement);

/// What is asked of the database: a [`Statement`], or one that is [`Prepared`].
#[derive(Debug, Clone, Copy)]
pub struct Question {
    statement: Statement,
    prepares: bool,
}

impl From<Statement> for Question {
    fn from(statement: Statement) -> Self {
        Self { statement, prepares: false }
    }
}

impl From<Prepared> for Question {
    fn from(Prepared(statement): Prepared) -> Self {
        Self { statement, prepares: true }
    }
}

/// Whether a unit of work may run a second time when nobody knows whether the first took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// A read, or a write that knows its own repetition.
    Safe,
    /// A write whose second run would be something else than the first.
    Unsafe,
}

/// What can be asked of any server.
const PROBE: Statement = Statement { name: "database.probe", sql: "select 1" };

/// The database.
#[derive(Debug)]
pub struct Database {
    pool: Pool,
    budget: Duration,
    slow: Duration,
    prepares: bool,
    breaker: Breaker,
}

impl Database {
    /// Makes the pool. Nothing connects before the first statement.
    pub fn new(config: &Config) -> Result<Self, Error> {
        // `Fast` asks no question on checkout; `check_idle` does, when there is a reason. `Clean` would pin RDS Proxy.
        let method = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        // The connector has a target of its own.
        let connector = Connector::new(&config.postgres)?;
        let prepares = connector.prepares;
        let manager = Manager::from_connect(tokio_postgres::Config::new(), connector, method);
        let pool = Pool::builder(manager)
            .max_size(config.database_connections)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                // Whoever waits has a deadline of their own; see `checkout`.
                wait: None,
                // Bounded here, so that a time-out is told apart from a refusal.
                create: Some(CONNECT_LIMIT),
                recycle: Some(CHECK_LIMIT),
            })
            .pre_recycle(Hook::async_fn(|client, metrics| Box::pin(check_idle(client, metrics.last_used()))))
            .build()
            .map_err(|error| Error::internal("making the pool", error))?;
        Ok(Self {
            pool,
            budget: config.database_budget,
            slow: config.slow_statement,
            prepares,
            breaker: Breaker::default(),
        })
    }

    /// Runs one statement as a unit of work and returns its rows.
    pub async fn query(
        &self,
        question: impl Into<Question>,
        params: &[Param<'_>],
        repeat: Repeat,
    ) -> Result<Vec<Row>, Failure> {
        self.query_within(self.budget, question, params, repeat).await
    }

    /// The same for work that is known to need another budget than most.
    pub async fn query_within(
        &self,
        budget: Duration,
        question: impl Into<Question>,
        params: &[Param<'_>],
        repeat: Repeat,
    ) -> Result<Vec<Row>, Failure> {
        self.repeated(budget, question.into(), params, repeat).await
    }

    async fn repeated(
        &self,
        budget: Duration,
        question: Question,
        params: &[Param<'_>],
        repeat: Repeat,
    ) -> Result<Vec<Row>, Failure> {
        let deadline = Instant::now() + budget;
        let mut attempt = 0;
        loop {
            // On the heap: it is most of what an invocation consists of, and nothing while the cache answers.
            let failure = match Box::pin(self.attempt(question, params, deadline)).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => failure,
            };
            attempt += 1;
            let again = match failure.kind {
                // Nothing had been sent, so nothing can have happened.
                FailureKind::Unreachable => attempt == 1,
                FailureKind::Lost => attempt == 1 && repeat == Repeat::Safe,
                FailureKind::Contention => attempt <= CONFLICT_RETRIES,
                FailureKind::Away
                | FailureKind::TimedOut
                | FailureKind::NotMigrated
                | FailureKind::Constraint
                | FailureKind::Fault => false,
            };
            if !again || Instant::now() >= deadline {
                return Err(failure);
            }
            telemetry::count(Metric::DbRetries);
            if failure.kind == FailureKind::Contention {
                let jitter = rand::rng().random_range(0..20 << attempt);
                sleep(Duration::from_millis(jitter)).await;
            }
        }
    }

    /// The one row of a statement, or none.
    pub async fn query_opt(
        &self,
        question: impl Into<Question>,
        params: &[Param<'_>],
        repeat: Repeat,
    ) -> Result<Option<Row>, Failure> {
        Ok(self.query(question, params, repeat).await?.into_iter().next())
    }

    /// The one row of a statement that always has one.
    pub async fn query_one(
        &self,
        question: impl Into<Question>,
        params: &[Param<'_>],
        repeat: Repeat,
    ) -> Result<Row, Failure> {
        let question = question.into();
        let row = self.query_opt(question, params, repeat).await?;
        row.ok_or_else(|| Failure::fault(question.statement.name, "no row"))
    }

    async fn attempt(&self, question: Question, params: &[Param<'_>], deadline: Instant) -> Result<Vec<Row>, Failure> {
        self.admit(question.statement.name)?;
        let connection = self.checkout(question.statement.name, deadline).await?;
        self.run(connection, question, params, deadline).await
    }

    fn admit(&self, name: &'static str) -> Result<(), Failure> {
        if self.breaker.admits() {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Away, name, None, "the server said nothing a moment ago"))
    }

    async fn run(
        &self,
        connection: Object,
        Question { statement, prepares }: Question,
        params: &[Param<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let started = Instant::now();
        let sent = async {
            if prepares && self.prepares {
                prepared::query(&connection, statement, params).await
            } else {
                connection.query_typed(statement.sql, params).await
            }
        };
        let result = self.timed(statement, deadline, sent).await;
        self.mind_silence(&result, started);
        if result.as_ref().is_err_and(Failure::spoils_connection) {
            drop(Object::take(connection));
        }
        result
    }

    /// Whether the server answers right now, whatever was the matter a moment ago.
    pub async fn is_there(&self) -> bool {
        match self.checkout(PROBE.name, Instant::now() + PROBE_PATIENCE).await {
            Ok(connection) => self.run(connection, PROBE.into(), &[], Instant::now() + PROBE_LIMIT).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn checkout(&self, name: &'static str, deadline: Instant) -> Result<Object, Failure> {
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let result = match timeout(left, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => {
                // It refused, so it is not silent.
                self.breaker.close();
                Err(Failure::connecting(name, error))
            }
            Ok(Err(error)) => {
                if matches!(error, PoolError::Timeout(TimeoutType::Create)) {
                    self.fell_silent(started);
                }
                Err(Failure::new(FailureKind::Unreachable, name, None, error))
            }
            // All connections are in use; what the server does is for those to say that use them.
            Err(error) => Err(Failure::new(FailureKind::TimedOut, name, None, error)),
        };
        telemetry::add_time(Metric::DbPoolWaitMs, started.elapsed());
        result
    }

    /// Bounds, counts and, where it is slow, names a statement, failed or not.
    async fn timed<T>(
        &self,
        statement: Statement,
        deadline: Instant,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        // Pinned where it lies, for what is awaited by value lies there twice.
        let work = pin!(work);
        let result = match timeout(deadline.saturating_duration_since(started), work).await {
            Ok(answer) => {
                self.breaker.close();
                answer.map_err(|error| Failure::of(statement.name, error))
            }
            Err(error) => {
                let failure = Failure::new(FailureKind::TimedOut, statement.name, None, error);
                Err(Failure { is_silence: true, ..failure })
            }
        };
        let took = started.elapsed();
        telemetry::count(Metric::DbStatements);
        telemetry::add_time(Metric::DbMs, took);
        if took >= self.slow {
            tracing::warn!(
                statement = statement.name,
                duration_ms = telemetry::millis(took),
                outcome = result.as_ref().err().map_or("ok", |failure| failure.kind.name()),
                "slow statement"
            );
        }
        result
    }

    fn mind_silence<T>(&self, result: &Result<T, Failure>, asked: Instant) {
        if result.as_ref().is_err_and(|failure| failure.is_silence) && asked.elapsed() >= SILENCE {
            self.fell_silent(asked);
        }
    }

    fn fell_silent(&self, since: Instant) {
        if self.breaker.open(since) {
            tracing::warn!("PostgreSQL does not answer and is taken as away for a while");
        }
    }

    /// Begins a transaction of several statements, each bounded by `deadline`.
    pub async fn begin(&self, name: &'static str, deadline: Instant) -> Result<Session<'_>, Failure> {
        self.begin_within(name, deadline, deadline).await
    }

    /// The same for somebody who waits: however long it may take in all, a server that is there begins it at once.
    pub async fn begin_soon(&self, name: &'static str, deadline: Instant) -> Result<Session<'_>, Failure> {
        self.admit(name)?;
        let started = Instant::now();
        let session = self.begin_within(name, deadline.min(started + self.budget), deadline).await;
        self.mind_silence(&session, started);
        session
    }

    async fn begin_within(
        &self,
        name: &'static str,
        begun_by: Instant,
        deadline: Instant,
    ) -> Result<Session<'_>, Failure> {
        let connection = self.checkout(name, begun_by).await?;
        let session = Session { db: self, connection: Some(connection), deadline };
        session.command(Statement { name: "begin", sql: "begin" }, begun_by).await?;
        Ok(session)
    }
}

/// One connection held for several statements. Dropped before [`Session::commit`], the connection is thrown away, and
/// the server rolls back.
#[derive(Debug)]
pub struct Session<'a> {
    db: &'a Database,
    connection: Option<Object>,
    deadline: Instant,
}

impl Session<'_> {
    /// Commits it and gives the connection back.
    pub async fn commit(mut self) -> Result<(), Failure> {
        self.command(Statement { name: "commit", sql: "commit" }, self.deadline).await?;
        // Only now is the connection clean enough to go back to the pool; see `drop`.
        drop(self.connection.take());
        Ok(())
    }

    /// Takes everything back and gives the connection back.
    pub async fn rollback(mut self) -> Result<(), Failure> {
        self.command(Statement { name: "rollback", sql: "rollback" }, self.deadline).await?;
        drop(self.connection.take());
        Ok(())
    }

    /// Runs a statement inside the transaction.
    pub async fn query(&mut self, statement: Statement, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        let connection = self.connection.as_ref().ok_or_else(|| Failure::fault(statement.name, "session is over"))?;
        self.db.timed(statement, self.deadline, connection.query_typed(statement.sql, params)).await
    }

    async fn command(&self, statement: Statement, deadline: Instant) -> Result<(), Failure> {
        let connection = self.connection.as_ref().ok_or_else(|| Failure::fault(statement.name, "session is over"))?;
        self.db.timed(statement, deadline, connection.batch_execute(statement.sql)).await
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

/// Asks a connection that has been idle whether it still lives.
async fn check_idle(client: &mut deadpool_postgres::ClientWrapper, idle: Duration) -> Result<(), HookError> {
    if idle > DISCARDED_IDLE {
        return Err(HookError::message("idle for too long"));
    }
    if idle > TRUSTED_IDLE {
        return match timeout(CHECK_LIMIT, client.check_connection()).await {
            Ok(result) => result.map_err(HookError::Backend),
            Err(_) => Err(HookError::message("no answer")),
        };
    }
    Ok(())
}

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Nobody asked, because the server said nothing to others a moment ago.
    Away,
    /// There was no connection: nothing was sent.
    Unreachable,
    /// The connection went away meanwhile: nobody knows what took effect.
    Lost,
    /// No answer in time: nobody knows what took effect.
    TimedOut,
    /// Deadlock, serialization failure, lock not available: rolled back, and likely to work the next time.
    Contention,
    /// The schema is not the one that this binary was made for: `migrate` has not run yet.
    NotMigrated,
    /// A constraint said no.
    Constraint,
    /// Anything else: a fault of ours.
    Fault,
}

impl FailureKind {
    fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Contention => "contention",
            Self::NotMigrated => "not_migrated",
            Self::Constraint => "constraint",
            Self::Fault => "fault",
        }
    }
}

/// A statement that failed.
#[derive(Debug, thiserror::Error)]
#[error("{statement}: {}", kind.name())]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The statement's name.
    pub statement: &'static str,
    /// The constraint that was violated, where one was.
    pub constraint: Option<String>,
    /// Whether it was we who waited no longer.
    is_silence: bool,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Failure {
    fn new(
        kind: FailureKind,
        statement: &'static str,
        constraint: Option<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, statement, constraint, is_silence: false, source: source.into() }
    }

    /// An answer of the database that we did not expect.
    pub fn fault(statement: &'static str, what: &'static str) -> Self {
        Self::new(FailureKind::Fault, statement, None, what)
    }

    fn of(statement: &'static str, error: tokio_postgres::Error) -> Self {
        let kind = if error.is_closed() { FailureKind::Lost } else { classify(error.code()) };
        match error.as_db_error() {
            // Its detail names the offending key, which may be a person's; the log gets code and message alone.
            Some(error) => {
                let constraint = error.constraint().map(str::to_owned);
                Self::new(kind, statement, constraint, format!("{} {}", error.code().code(), error.message()))
            }
            None => Self::new(kind, statement, None, error),
        }
    }

    fn connecting(statement: &'static str, error: tokio_postgres::Error) -> Self {
        // Whatever went wrong, nothing was sent.
        Self::new(FailureKind::Unreachable, statement, None, error)
    }

    fn spoils_connection(&self) -> bool {
        matches!(self.kind, FailureKind::Lost | FailureKind::TimedOut | FailureKind::Unreachable)
    }

    /// Whether a constraint of this name was violated.
    pub fn violates(&self, constraint: &str) -> bool {
        self.constraint.as_deref() == Some(constraint)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Away
            | FailureKind::Unreachable
            | FailureKind::Lost
            | FailureKind::TimedOut
            | FailureKind::Contention
            | FailureKind::NotMigrated => Self::unavailable("PostgreSQL", failure),
            FailureKind::Constraint | FailureKind::Fault => Self::internal("PostgreSQL", failure),
        }
    }
}

/// Reads a column by its name; one that is missing or of another type is a fault of ours.
pub fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, Error> {
    row.try_get(name).map_err(|error| Error::internal("reading a column", error))
}

/// The meaning of an SQLSTATE. Without one the connection broke.
fn classify(code: Option<&SqlState>) -> FailureKind {
    let Some(code) = code else { return FailureKind::Lost };
    match (code.code().get(..2).unwrap_or_default(), code) {
        // Shut down, crashed, starting up; a read-only server is the old primary after a failover; a server in trouble
        // with its own files or memory may be replaced by one that is not.
        (_, &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW)
        | (_, &SqlState::IDLE_SESSION_TIMEOUT | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT)
        | (_, &SqlState::READ_ONLY_SQL_TRANSACTION)
        | ("08" | "58" | "F0" | "XX", _) => FailureKind::Lost,
        (_, &SqlState::QUERY_CANCELED) => FailureKind::TimedOut,
        (
            _,
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE,
        ) => FailureKind::Contention,
        (_, &SqlState::UNDEFINED_FUNCTION | &SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN) => {
            FailureKind::NotMigrated
        }
        // Too many connections, out of memory or disk: the server refused before it did anything.
        ("53", _) => FailureKind::Unreachable,
        ("23", _) => FailureKind::Constraint,
        _ => FailureKind::Fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sqlstate_says_whether_the_work_may_be_tried_again() {
        for (code, kind) in [
            ("08006", FailureKind::Lost),
            ("57P01", FailureKind::Lost),
            ("57P02", FailureKind::Lost),
            ("57P03", FailureKind::Lost),
            ("57P05", FailureKind::Lost),
            ("25P03", FailureKind::Lost),
            ("25006", FailureKind::Lost),
            ("58030", FailureKind::Lost),
            ("XX000", FailureKind::Lost),
            ("57014", FailureKind::TimedOut),
            ("40001", FailureKind::Contention),
            ("40P01", FailureKind::Contention),
            ("55P03", FailureKind::Contention),
            ("53300", FailureKind::Unreachable),
            ("23505", FailureKind::Constraint),
            ("22001", FailureKind::Fault),
            ("42P01", FailureKind::NotMigrated),
            ("42883", FailureKind::NotMigrated),
            ("42601", FailureKind::Fault),
            ("28P01", FailureKind::Fault),
        ] {
            assert_eq!(classify(Some(&SqlState::from_code(code))), kind, "{code}");
        }
        assert_eq!(classify(None), FailureKind::Lost);
    }
}
