//! Applies `migrations/`: forward only, each once, checked against change, one runner at a time.
//!
//! A file is one transaction together with the row that records it, unless its first line is
//! `-- lectern: no transaction`; such a file is a single statement that commits by itself in batches, and can be started
//! again where it was interrupted. Two files without a number make the roles and say what each may do; they are run each
//! time, when all others are there.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, error::SqlState};

use crate::{
    cloudformation::RIGHTS_ARRIVE,
    config::Config,
    db::connect::Connector,
    error::Error,
    telemetry::{self, millis},
};

/// Names our lock among the advisory locks of the database.
const LOCK: i64 = 0x006c_6563_7465_726e;
/// How often a migration that could not get its locks is tried again.
const LOCK_RETRIES: u32 = 10;
/// How long the server may take to accept us: one that sleeps while nobody learns holds who wakes it up, for 15 s and more.
const CONNECT_LIMIT: Duration = Duration::from_secs(45);
/// Between two attempts to be let in.
const CONNECT_PAUSE: Duration = Duration::from_secs(2);
/// How often a runner asks whether it is its turn. It does not wait for that inside a statement: a concurrent index build
/// of the runner before it waits for every statement that is under way.
const TURN_PAUSE: Duration = Duration::from_millis(100);
/// Opens a file that must not run inside a transaction.
const NO_TRANSACTION: &str = "-- lectern: no transaction\n";

/// Makes the roles, as far as whoever runs it may; it may be run again.
const ROLES: &str = include_str!("../../migrations/roles.sql");
/// What a cluster's master runs before the first migration, so that `lectern_migrate` can come in and make the schema.
pub const PREPARATION: [&str; 2] = [ROLES, include_str!("../../migrations/owner.sql")];
/// States what each role may do with the present schema.
const GRANTS: &str = include_str!("../../migrations/grants.sql");
/// The roles of the functions.
const NAMES: [&str; 3] = ["lectern_read", "lectern_write", "lectern_refresh"];

/// A file of `migrations/` with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// `V1__courses_and_progress`.
    pub name: &'static str,
    /// The text.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        &[$(Migration { name: $name, sql: include_str!(concat!("../../migrations/", $name, ".sql")) }),*]
    };
}

/// Every migration, in order.
pub const ALL: &[Migration] = migrations![
    "V1__courses_and_progress",
    "V2__add_course_analytics",
    "V3__backfill_course_analytics",
    "V4__reading_rules",
    "V5__record_progress",
    "V6__index_popular_courses",
    "V7__ledger_retention",
    "V8__record_parked_progress",
    "V9__index_ledger_by_age",
    "V10__course_edits",
    "V11__retired_sections",
    "V12__standings",
    "V13__record_progress_v3",
    "V14__index_enrollments_by_tree",
    "V15__drop_enrollments_course_idx",
    "V16__index_enrollments_by_activity",
    "V17__index_retired_sections",
    "V18__course_words",
    "V19__backfill_course_words",
    "V20__index_course_words",
    "V21__index_enrollments_by_standing",
    "V22__index_cancelled_enrollments",
    "V23__erasing_learners",
    "V24__compress_texts_with_lz4",
    "V25__resume_points",
    "V26__record_progress_v4",
    "V27__section_completions",
    "V28__note_section_completions",
    "V29__backfill_section_completions",
    "V30__erase_learner_as_owner",
    "V31__vacuum_in_small_steps",
    "V32__settling_leaves_a_mark",
];

impl Migration {
    /// The number in the name.
    pub fn version(&self) -> i32 {
        let digits = self.name.trim_start_matches('V').split("__").next().unwrap_or_default();
        digits.parse().unwrap_or_default()
    }

    /// Changes whenever the text does.
    pub fn checksum(&self) -> String {
        Sha256::digest(self.sql).iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The migrations that this run applied.
    pub applied: Vec<&'static str>,
    /// The schema's version now.
    pub version: i32,
}

/// A migration that failed.
#[derive(Debug, thiserror::Error)]
#[error("{migration}")]
struct Stopped {
    migration: &'static str,
    source: tokio_postgres::Error,
}

/// Refuses a template that was made for other migrations than these. One that says nothing is for any.
pub fn expect_version(stated: &Value) -> Result<(), Error> {
    let newest = ALL.last().map_or(0, Migration::version).to_string();
    let stated = match stated {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if stated == newest {
        return Ok(());
    }
    let what = format!(
        "the template is of schema version {stated}, the function of {newest}: build and deploy both from the same source"
    );
    Err(Error::internal("migrating", what))
}

/// Applies what is missing of `migrations`, up to `deadline`.
pub async fn apply(config: &Config, migrations: &[Migration], deadline: Instant) -> Result<Applied, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    timeout(left, run(config, migrations))
        .await
        .map_err(|error| Error::unavailable("migrating: out of time, run it again", error))?
}

async fn run(config: &Config, migrations: &[Migration]) -> Result<Applied, Error> {
    let connector = Connector::new(&config.postgres)?;
    let (client, driver) = connect(&connector, config.postgres.iam.is_some()).await?;
    let mut result = migrate(&client, migrations).await;
    // Rights speak of the present schema, and of nothing that a newer binary has made.
    if migrations == ALL
        && let Ok(done) = &result
        && Some(done.version) == ALL.last().map(Migration::version)
        && let Err(error) = grant(&client, config.postgres.iam.is_some()).await
    {
        result = Err(error);
    }
    // The connection closes with its client, and with it the lock goes.
    drop(client);
    let _ = driver.await;
    result
}

/// Connects; who comes by IAM may be refused while the right to do so is new.
async fn connect(connector: &Connector, by_iam: bool) -> Result<(Client, JoinHandle<()>), Error> {
    let started = Instant::now();
    loop {
        let attempt = timeout(CONNECT_LIMIT, connector.open()).await;
        match attempt.map_err(|error| Error::unavailable("connecting to migrate", error))? {
            Ok(connected) => return Ok(connected),
            Err(error) if by_iam && is_refused(&error) && started.elapsed() < RIGHTS_ARRIVE => {
                tracing::info!(error = telemetry::chain(&error), "the database is asked once more to let migrate in");
                sleep(CONNECT_PAUSE).await;
            }
            Err(error) => return Err(Error::unavailable("connecting to migrate", error)),
        }
    }
}

fn is_refused(error: &tokio_postgres::Error) -> bool {
    let refusals = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| refusals.contains(code))
}

async fn migrate(client: &Client, migrations: &[Migration]) -> Result<Applied, Error> {
    let failed = |error| Error::internal("migrating", error);
    // Whatever limits the role has are for requests; each file sets its own. A runner that was frozen or killed must not
    // keep the lock: its connection ends when nothing has come from it for a while.
    let limits = "set statement_timeout = 0; set lock_timeout = 0; set idle_session_timeout = '30s'";
    client.batch_execute(limits).await.map_err(failed)?;
    let ask = format!("select pg_try_advisory_lock({LOCK}) as ours");
    while !client.query_one(&ask, &[]).await.and_then(|row| row.try_get("ours")).map_err(failed)? {
        sleep(TURN_PAUSE).await;
    }
    client
        .batch_execute(
            "create table if not exists schema_migrations (
                version integer constraint schema_migrations_pkey primary key,
                name text not null,
                checksum text not null,
                applied_at timestamptz not null default now()
            )",
        )
        .await
        .map_err(failed)?;
    let rows =
        client.query("select version, checksum from schema_migrations order by version", &[]).await.map_err(failed)?;
    let mut done = std::collections::BTreeMap::new();
    for row in rows {
        let version: i32 = row.try_get("version").map_err(failed)?;
        let checksum: String = row.try_get("checksum").map_err(failed)?;
        done.insert(version, checksum);
    }
    let mut applied = Vec::new();
    for migration in migrations {
        match done.get(&migration.version()) {
            Some(checksum) if *checksum == migration.checksum() => {}
            Some(_) => {
                let what = format!("{} was changed after it had been applied", migration.name);
                return Err(Error::internal("migrating", what));
            }
            None => {
                apply_one(client, migration).await.map_err(|source| {
                    let stopped = Stopped { migration: migration.name, source };
                    tracing::error!(error = telemetry::chain(&stopped), "migration failed");
                    Error::internal("migrating", stopped)
                })?;
                applied.push(migration.name);
            }
        }
    }
    // A newer binary may have been here: the database is then ahead of us, which is its right.
    let newest = done.keys().last().copied().unwrap_or_default();
    Ok(Applied { applied, version: newest.max(migrations.last().map_or(0, Migration::version)) })
}

/// Makes the roles and states their rights. Where functions come by IAM they come in these roles, and cannot without;
/// elsewhere somebody may have given them another.
async fn grant(client: &Client, must_be_there: bool) -> Result<(), Error> {
    let failed = |error| Error::internal("granting", error);
    for statements in [ROLES, GRANTS] {
        client.batch_execute(statements).await.map_err(failed)?;
    }
    let missing = "select wanted.name
        from unnest($1::text[]) as wanted (name)
        where not exists (select from pg_roles where pg_roles.rolname = wanted.name)";
    let rows = client.query(missing, &[&&NAMES[..]]).await.map_err(failed)?;
    let missing: Vec<&str> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)?;
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("the roles {} are missing, and may not be made by who migrates", missing.join(", "));
    if must_be_there {
        return Err(Error::internal("granting", what));
    }
    tracing::warn!("{what}");
    Ok(())
}

/// Drops what an interrupted concurrent build of an index of this file has left: nobody reads by it, and `if not exists`
/// would pass it over.
async fn drop_unfinished_indexes(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    let unfinished = "select pg_class.relname as name from pg_index join pg_class on pg_class.oid = pg_index.indexrelid
        where not pg_index.indisvalid and pg_class.relnamespace = current_schema()::regnamespace";
    for row in client.query(unfinished, &[]).await? {
        let name: String = row.try_get("name")?;
        if sql.contains(&format!(" {name} ")) {
            client.batch_execute(&format!("drop index concurrently if exists {name}")).await?;
        }
    }
    Ok(())
}

/// Applies one migration; tries again when others hold its locks, rather than make everybody queue behind it.
async fn apply_one(client: &Client, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    let record = format!(
        "insert into schema_migrations (version, name, checksum) values ({}, '{}', '{}')",
        migration.version(),
        migration.name,
        migration.checksum()
    );
    let mut attempt = 0;
    loop {
        let started = Instant::now();
        let result = if migration.sql.starts_with(NO_TRANSACTION) {
            drop_unfinished_indexes(client, migration.sql).await?;
            client.batch_execute(migration.sql).await
        } else {
            client.batch_execute(&format!("begin;\n{}\n{record};\ncommit;", migration.sql)).await
        };
        match result {
            Ok(()) => {
                if migration.sql.starts_with(NO_TRANSACTION) {
                    client.batch_execute(&record).await?;
                }
                tracing::info!(migration = migration.name, duration_ms = millis(started.elapsed()), "migrated");
                return Ok(());
            }
            Err(error) => {
                // Closes the failed transaction; where there is none, PostgreSQL only warns.
                let _ = client.batch_execute("rollback").await;
                attempt += 1;
                let again = [Some(&SqlState::LOCK_NOT_AVAILABLE), Some(&SqlState::T_R_DEADLOCK_DETECTED)];
                if !again.contains(&error.code()) || attempt > LOCK_RETRIES {
                    return Err(error);
                }
                sleep(Duration::from_millis(200 * u64::from(attempt))).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_a_gap() {
        let versions: Vec<i32> = ALL.iter().map(Migration::version).collect();
        let expected: Vec<i32> = (1..).take(ALL.len()).collect();
        assert_eq!(versions, expected);
    }

    #[test]
    fn every_file_of_the_folder_is_applied() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".sql").map(str::to_owned))
            .filter(|name| name.starts_with('V'))
            .collect();
        files.sort();
        let mut names: Vec<&str> = ALL.iter().map(|migration| migration.name).collect();
        names.sort_unstable();
        assert_eq!(files, names);
    }
}
