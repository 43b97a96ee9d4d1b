//! `lectern run`, `lectern with-services -- <command…>` and `lectern errors`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use local::error::{Error, Result};
use local::settings::Settings;
use local::workspace::Workspace;
use local::{errors, note, run, with_services};

const USAGE: &str = "usage: lectern run
       lectern with-services [--keep <name>] -- <command> [arguments]
       lectern errors

run            serves the whole API on http://127.0.0.1:${PORT:-3000}, with servers of its own unless DATABASE_URL and
               REDIS_URL name others
with-services  runs a command beside a PostgreSQL and a Redis that live as long as it does; it finds them by
               LECTERN_TEST_DATABASE_URL and LECTERN_TEST_REDIS_URL; with --keep the data stays, under that name
errors         writes the catalogue of errors in docs/API.md anew, from the code";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match execute(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            note(format!("lectern: {}", error.report()));
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: &[OsString]) -> Result<ExitCode> {
    let (command, rest) = arguments.split_first().ok_or_else(|| Error::new(USAGE))?;
    match (command.to_str(), rest) {
        (Some("run"), []) => {
            run::run(&Workspace::find(Path::new("."))?, &Settings::from_env()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        (Some("errors"), []) => {
            errors::write(Workspace::find(Path::new("."))?.root())?;
            Ok(ExitCode::SUCCESS)
        }
        (Some("with-services"), [dashes, command @ ..]) if dashes == "--" => {
            with_services::with_services(&Workspace::find(Path::new("."))?, None, command).await.map(ExitCode::from)
        }
        (Some("with-services"), [keep, name, dashes, command @ ..]) if keep == "--keep" && dashes == "--" => {
            let name = name.to_str().filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()));
            let name = name.ok_or_else(|| Error::new("the name of what is kept has letters and digits only"))?;
            with_services::with_services(&Workspace::find(Path::new("."))?, Some(name), command)
                .await
                .map(ExitCode::from)
        }
        _ => Err(Error::new(USAGE)),
    }
}
