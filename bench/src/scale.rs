//! How much data there is, and how it comes into a database.

use std::time::{Duration, Instant};

use shared::{config::Config, migrations};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::{Fallible, failed};

const DATA: &str = include_str!("data.sql");
/// For all migrations together.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(600);

/// A size of database: from a school to a provider of MOOCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    /// How the command line calls it.
    pub(crate) name: &'static str,
    /// Courses, of 80 sections on average.
    pub(crate) courses: u32,
    /// Enrollments; each comes with twenty rows of progress on average.
    pub(crate) enrollments: u32,
    /// People; the most popular course has a fifth of all enrollments.
    pub(crate) learners: u32,
}

/// All of them.
pub(crate) const SCALES: [Scale; 3] = [
    Scale { name: "s", courses: 200, enrollments: 15_000, learners: 6_000 },
    Scale { name: "m", courses: 2_000, enrollments: 150_000, learners: 60_000 },
    Scale { name: "l", courses: 10_000, enrollments: 1_000_000, learners: 400_000 },
];

impl Scale {
    /// The scale of a name, in either case.
    pub(crate) fn named(name: &str) -> Fallible<Self> {
        let found = SCALES.into_iter().find(|scale| scale.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| failed(format!("there is no scale {name}: say s, m or l")))
    }

    /// The name of its database.
    pub(crate) fn database(&self) -> String {
        format!("lectern_bench_{}", self.name)
    }
}

/// A connection.
pub(crate) async fn connect(url: &str) -> Fallible<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The URL of another database on the same server.
pub(crate) fn sibling(url: &str, database: &str) -> String {
    url.rsplit_once('/').map_or_else(|| url.to_owned(), |(server, _)| format!("{server}/{database}"))
}

/// Applies the migrations that a database does not have.
pub(crate) async fn migrate(url: &str) -> Fallible<()> {
    migrations::apply(&Config::for_database(url), migrations::ALL, Instant::now() + MIGRATION_PATIENCE).await?;
    Ok(())
}

/// What stands at a database that was filled to its end, and by the data of today.
fn filled() -> String {
    format!("lectern bench {}", Uuid::new_v5(&Uuid::NAMESPACE_OID, DATA.as_bytes()))
}

/// Whether the database of a scale is there and whole.
pub(crate) async fn is_filled(server: &str, scale: Scale) -> Fallible<bool> {
    let client = connect(server).await?;
    let known = "select from pg_database where datname = $1 and shobj_description(oid, 'pg_database') = $2";
    Ok(client.query_opt(known, &[&scale.database(), &filled()]).await?.is_some())
}

/// Makes the database of a scale anew.
pub(crate) async fn fill(server: &str, scale: Scale) -> Fallible<Duration> {
    let began = Instant::now();
    let (name, url) = (scale.database(), sibling(server, &scale.database()));
    let admin = connect(server).await?;
    admin.batch_execute(&format!("drop database if exists {name} with (force)")).await?;
    admin.batch_execute(&format!("create database {name}")).await?;
    migrate(&url).await?;
    let client = connect(&url).await?;
    for (setting, value) in
        [("courses", scale.courses), ("enrollments", scale.enrollments), ("learners", scale.learners)]
    {
        client.batch_execute(&format!("set bench.{setting} = {value}")).await?;
    }
    client.batch_execute(DATA).await?;
    client.batch_execute("vacuum analyze").await?;
    admin.batch_execute(&format!("comment on database {name} is '{}'", filled())).await?;
    Ok(began.elapsed())
}
