//! Speed, as ratios: Lectern's own binaries, next to what PostgreSQL, Redis and an empty function need for the same.
//!
//! `bench data <scale>` fills a database, `bench run <scale>…` prints the table, `bench instructions <scale>` what a warm
//! invocation takes of them, `bench size` checks what each function weighs and what its start costs against
//! `bench/budget.json`. They find their servers as the tests do.

mod callgrind;
mod calls;
mod instructions;
mod journey;
mod measure;
mod pgbench;
mod recorder;
mod runtime;
mod sample;
mod scale;
mod size;
mod table;

use std::{error::Error, process::ExitCode};

/// What is done here succeeds, or somebody has to look.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A reason for that.
pub(crate) fn failed(why: impl Into<String>) -> Box<dyn Error + Send + Sync> {
    Box::from(why.into())
}

const USAGE: &str =
    "usage: bench data <s|m|l> | bench run <s|m|l>… | bench instructions <s|m|l> | bench size [--update]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match execute(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench: {}", shared::telemetry::chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: &[String]) -> Fallible<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["data", name] => {
            let scale = scale::Scale::named(name)?;
            let took = scale::fill(&Servers::given()?.database, scale).await?;
            say(&format!("{} is filled, in {} s", scale.database(), took.as_secs()));
            Ok(())
        }
        ["run", names @ ..] if !names.is_empty() => {
            let scales = names.iter().map(|name| scale::Scale::named(name)).collect::<Fallible<Vec<_>>>()?;
            measure::run(&Servers::given()?, &scales).await
        }
        ["instructions", name] => instructions::run(&Servers::given()?, scale::Scale::named(name)?).await,
        ["size", rest @ ..] => size::check(rest == ["--update"]).await,
        _ => Err(failed(USAGE)),
    }
}

/// The servers that `lectern with-services` has started.
#[derive(Clone)]
pub(crate) struct Servers {
    /// A URL of PostgreSQL.
    pub(crate) database: String,
    /// A URL of Redis.
    pub(crate) redis: String,
    /// The endpoint of what stands in for `DynamoDB`.
    pub(crate) dynamodb: String,
    /// The table in it.
    pub(crate) parking_table: String,
}

impl Servers {
    #[expect(clippy::disallowed_methods, reason = "not a function of Lectern's: it has no configuration but this")]
    fn given() -> Fallible<Self> {
        let read = |what: &str| {
            let name = format!("LECTERN_TEST_{what}");
            std::env::var(&name).map_err(|_| failed(format!("{name} is not set: `make bench` starts the servers")))
        };
        Ok(Self {
            database: read("DATABASE_URL")?,
            redis: read("REDIS_URL")?,
            dynamodb: read("DYNAMODB_URL")?,
            parking_table: read("PARKING_TABLE")?,
        })
    }
}

/// To whoever waits in front of the screen.
#[expect(clippy::print_stderr, reason = "a command for people; stdout has the table alone")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
