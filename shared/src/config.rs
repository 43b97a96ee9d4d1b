//! Configuration: everything that Lectern reads from its environment, and nowhere else.
//!
//! docs/OPERATIONS.md explains each variable.

mod postgres;

use std::{fmt, time::Duration};

use lambda_http::http::Uri;

pub use self::postgres::{Credentials, Iam, Postgres};
use crate::telemetry::LogSettings;

/// How long one unit of work may take before the caller is told to come back: API Gateway waits 30 s, a person 3.
const UNIT_OF_WORK: Duration = Duration::from_millis(2_500);
/// More connections than this an environment does not need, however many requests Lambda sends it at once.
const MOST_CONNECTIONS: usize = 16;

/// A limit of more writes a minute than one database can take is none.
const MOST_WRITES: u32 = 60_000;

/// Lectern's settings.
#[derive(Clone)]
pub struct Config {
    /// Where PostgreSQL is, and how one comes in.
    pub postgres: Postgres,
    /// Who the function is for AWS, if it runs there.
    pub iam: Option<Iam>,
    /// Where the RDS Data API is, if not where the region has it.
    pub data_api_endpoint: Option<String>,
    /// How many connections this environment may hold.
    pub database_connections: usize,
    /// How long a request's work in PostgreSQL may take in all, retry included.
    pub database_budget: Duration,
    /// Where Redis is; without it nothing is cached.
    pub redis: Option<Redis>,
    /// Where progress is parked; without it none is.
    pub parking: Option<Parking>,
    /// How old an event may be when it is accepted, in days.
    pub progress_max_event_age_days: u32,
    /// How often a replay sends a canary, in minutes.
    pub canary_every_minutes: u32,
    /// The claim that lists the caller's groups.
    pub groups_claim: String,
    /// How many writes a caller may send, if that is limited.
    pub writes: Option<Allowance>,
    /// How many writes a caller of the service role may send, if that is limited.
    pub service_writes: Option<Allowance>,
    /// Statements slower than this are warned of.
    pub slow_statement: Duration,
}

/// Where answers are cached.
#[derive(Clone)]
pub struct Redis {
    /// Its address, with the password.
    pub url: String,
    /// Whether the address is that of a cluster.
    pub is_cluster: bool,
    /// Begins every key.
    pub prefix: String,
    /// The authorities that its certificate is checked by, as PEM, if not the public ones.
    pub ca_bundle: Option<Vec<u8>>,
    /// How long a command may take; a cache that needs longer is slower than the database.
    pub command_limit: Duration,
    /// How long it may be since it last took a write before a reader tries whether it still does.
    pub doubt_after: Duration,
}

impl Redis {
    /// One node with the defaults of everything else.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            is_cluster: false,
            prefix: "lectern".to_owned(),
            ca_bundle: None,
            command_limit: Duration::from_millis(50),
            // Half of the time for which an old copy may be seen.
            doubt_after: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_cluster, prefix, .. } = self;
        formatter.debug_struct("Redis").field("is_cluster", is_cluster).field("prefix", prefix).finish_non_exhaustive()
    }
}

/// Where progress waits while PostgreSQL is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parking {
    /// The `DynamoDB` table.
    pub table: String,
    /// Where `DynamoDB` is, if not where the region has it.
    pub endpoint: Option<String>,
}

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// In the long run.
    pub per_minute: u32,
    /// At once, before that counts.
    pub burst: u32,
}

impl Allowance {
    /// So many a minute, where 0 means that there is no limit, and so many at once.
    fn of(per_minute: u32, burst: u32) -> Option<Self> {
        (per_minute > 0).then_some(Self { per_minute, burst })
    }
}

impl Config {
    /// All defaults, for one database and without a cache.
    pub fn for_database(url: &str) -> Self {
        Self {
            postgres: Postgres::at(url),
            iam: None,
            data_api_endpoint: None,
            database_connections: 1,
            database_budget: UNIT_OF_WORK,
            redis: None,
            parking: None,
            progress_max_event_age_days: 30,
            canary_every_minutes: 1,
            groups_claim: "cognito:groups".to_owned(),
            writes: Allowance::of(600, 600),
            service_writes: Allowance::of(6_000, 6_000),
            slow_statement: Duration::from_secs(1),
        }
    }

    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables through `lookup`; an empty value counts as absent, as `CloudFormation` cannot leave one out.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut env = Environment { lookup: &lookup, problems: &mut problems };
        let postgres = Postgres::read(&mut env);
        if env.text("SERVICE_NAME").is_some_and(|name| !is_dimension(&name)) {
            env.problem("SERVICE_NAME", "must be 1 to 255 visible ASCII characters, the first no colon");
        }
        let redis = env.redis();
        let endpoint = env.endpoint("AWS_ENDPOINT_URL_DYNAMODB");
        let data_api_endpoint = env.endpoint("AWS_ENDPOINT_URL_RDS_DATA");
        let parking = env.text("PARKING_TABLE").map(|table| Parking { table, endpoint });
        let defaults = Self::for_database(&postgres.url);
        let writes = env.number("WRITES_PER_MINUTE", 600, 0..=MOST_WRITES);
        let burst = env.number("WRITE_BURST", writes.max(1), 1..=MOST_WRITES);
        let service_writes = env.number("SERVICE_WRITES_PER_MINUTE", 6_000, 0..=MOST_WRITES);
        let concurrency = env.number("AWS_LAMBDA_MAX_CONCURRENCY", 1, 1..=10_000).min(MOST_CONNECTIONS as u32);
        let config = Self {
            postgres,
            iam: Iam::find(&env),
            data_api_endpoint,
            database_connections: env.number("DATABASE_CONNECTIONS", concurrency, 1..=100) as usize,
            redis,
            parking,
            progress_max_event_age_days: env.number(
                "PROGRESS_MAX_EVENT_AGE_DAYS",
                defaults.progress_max_event_age_days,
                1..=36_500,
            ),
            canary_every_minutes: env.number("CANARY_EVERY_MINUTES", defaults.canary_every_minutes, 1..=1_440),
            groups_claim: env.text("GROUPS_CLAIM").unwrap_or_else(|| defaults.groups_claim.clone()),
            writes: Allowance::of(writes, burst),
            service_writes: Allowance::of(service_writes, service_writes),
            slow_statement: Duration::from_millis(env.number("SLOW_STATEMENT_MS", 1_000, 1..=600_000).into()),
            ..defaults
        };
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }
}

/// How to log, by `SERVICE_NAME` and by what Lambda sets: `AWS_LAMBDA_LOG_FORMAT`, `AWS_LAMBDA_LOG_LEVEL` and
/// `AWS_LAMBDA_FUNCTION_NAME`, of which the stack's name is taken off.
///
/// Apart from [`Config`], because a configuration that cannot be read must be logged too.
#[expect(clippy::disallowed_methods, reason = "this is the one file that reads the environment")]
pub fn log_settings() -> LogSettings {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let service = variable("SERVICE_NAME").unwrap_or_else(|| "lectern".to_owned());
    let function = variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "local".to_owned());
    LogSettings {
        json: variable("AWS_LAMBDA_LOG_FORMAT").is_none_or(|format| !format.eq_ignore_ascii_case("text")),
        level: variable("AWS_LAMBDA_LOG_LEVEL").or_else(|| variable("RUST_LOG")).unwrap_or_else(|| "info".to_owned()),
        function: within(&service, &function).to_owned(),
        service,
        metrics: true,
    }
}

/// A function's name within its stack.
fn within<'a>(service: &str, function: &'a str) -> &'a str {
    function
        .strip_prefix(service)
        .and_then(|name| name.strip_prefix('-'))
        .filter(|name| !name.is_empty())
        .unwrap_or(function)
}

/// Whether `CloudWatch` takes it for the value of a dimension.
fn is_dimension(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with(':')
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("postgres", &self.postgres)
            .field("iam", &self.iam)
            .field("database_connections", &self.database_connections)
            .field("redis", &self.redis)
            .field("parking", &self.parking)
            .field("progress_max_event_age_days", &self.progress_max_event_age_days)
            .field("groups_claim", &self.groups_claim)
            .field("writes", &self.writes)
            .field("service_writes", &self.service_writes)
            .finish_non_exhaustive()
    }
}

/// Everything that is wrong with the environment, each variable by name; never a value, which may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("bad configuration: {}", .0.join("; "))]
pub struct ConfigError(Vec<String>);

struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Vec<String>,
}

impl Environment<'_> {
    fn problem(&mut self, name: &str, what: &str) {
        self.problems.push(format!("{name} {what}"));
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str) -> String {
        self.text(name).unwrap_or_else(|| {
            self.problem(name, "is required");
            String::new()
        })
    }

    fn file(&mut self, name: &str) -> Option<Vec<u8>> {
        let read = std::fs::read(self.text(name)?);
        read.map_err(|error| self.problem(name, &format!("cannot be read: {}", error.kind()))).ok()
    }

    fn endpoint(&mut self, name: &str) -> Option<String> {
        let endpoint = self.text(name)?;
        if !endpoint.parse::<Uri>().is_ok_and(|url| url.scheme().is_some()) {
            self.problem(name, "is not a URL");
        }
        Some(endpoint)
    }

    fn number(&mut self, name: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                self.problem(name, &format!("must be a whole number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    fn redis(&mut self) -> Option<Redis> {
        let url = self.text("REDIS_URL")?;
        if redis::parse_redis_url(&url).is_none() {
            self.problem("REDIS_URL", "is not a Redis URL");
        }
        let ca_bundle = self.file("REDIS_CA_BUNDLE");
        let defaults = Redis::at(&url);
        let prefix = self.text("REDIS_PREFIX").unwrap_or_else(|| defaults.prefix.clone());
        // Braces in front would decide on the slot in the place of our own.
        if prefix.contains(['{', '}']) {
            self.problem("REDIS_PREFIX", "must be without braces");
        }
        Some(Redis { is_cluster: self.flag("REDIS_CLUSTER").unwrap_or(false), prefix, ca_bundle, ..defaults })
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let flag = self.text(name)?.parse().ok();
        if flag.is_none() {
            self.problem(name, "must be `true` or `false`");
        }
        flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://lectern:secret@localhost/lectern");

    #[test]
    fn all_problems_are_named_at_once_and_no_value_is_shown() {
        let error = config(&[
            ("DATABASE_URL", "secret"),
            ("REDIS_URL", "secret"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "secret"),
            ("PROGRESS_MAX_EVENT_AGE_DAYS", "0"),
            ("REDIS_CLUSTER", "yes"),
            ("SERVICE_NAME", ":secret"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "DATABASE_URL",
            "REDIS_URL",
            "AWS_ENDPOINT_URL_DYNAMODB",
            "PROGRESS_MAX_EVENT_AGE_DAYS",
            "REDIS_CLUSTER",
            "SERVICE_NAME",
        ] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn defaults_need_nothing_but_a_database() {
        let config = config(&[DATABASE, ("REDIS_URL", "")]).unwrap();
        assert_eq!((config.database_connections, config.redis.is_none(), config.parking), (1, true, None));
        assert_eq!(config.progress_max_event_age_days, 30);
    }

    #[test]
    fn a_function_is_known_by_its_name_within_the_stack() {
        assert_eq!(within("school-a", "school-a-get-course"), "get-course");
        for other in ["get-course", "school-a", "school-a-", "school-ab-get-course"] {
            assert_eq!(within("school-a", other), other);
        }
    }

    #[test]
    fn the_pool_follows_the_concurrency_that_lambda_announces() {
        let many = config(&[DATABASE, ("AWS_LAMBDA_MAX_CONCURRENCY", "64")]).unwrap();
        assert_eq!(many.database_connections, MOST_CONNECTIONS);
    }

    #[test]
    fn writes_are_limited_unless_nought_is_said_and_a_minutes_worth_may_come_at_once() {
        let limits = |variables: &[(&str, &str)]| {
            let config = config(&[&[DATABASE][..], variables].concat()).unwrap();
            [config.writes, config.service_writes].map(|limit| limit.map(|limit| (limit.per_minute, limit.burst)))
        };
        assert_eq!(limits(&[]), [Some((600, 600)), Some((6_000, 6_000))]);
        assert_eq!(limits(&[("WRITES_PER_MINUTE", "60")]), [Some((60, 60)), Some((6_000, 6_000))]);
        assert_eq!(limits(&[("WRITE_BURST", "7"), ("SERVICE_WRITES_PER_MINUTE", "1")]), [Some((600, 7)), Some((1, 1))]);
        assert_eq!(limits(&[("WRITES_PER_MINUTE", "0"), ("SERVICE_WRITES_PER_MINUTE", "0")]), [None, None]);
        for name in ["WRITES_PER_MINUTE", "WRITE_BURST", "SERVICE_WRITES_PER_MINUTE"] {
            for value in ["-1", "60001", "many"] {
                assert!(config(&[DATABASE, (name, value)]).unwrap_err().to_string().contains(name));
            }
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        let config = config(&[DATABASE, ("REDIS_URL", "redis://:secret@localhost/")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
