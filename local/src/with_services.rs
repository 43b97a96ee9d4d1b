//! `lectern with-services -- <command…>`: runs a command, usually the tests, beside servers of its own.
//!
//! A PostgreSQL, a Redis, a cluster of Redis and a stand-in for `DynamoDB`, which go away with it. It minds no other
//! server, and no other run of itself. With a name, what PostgreSQL holds is kept for the next run of that name.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shared::config::Parking;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::{Context, Error, Result};
use crate::say::note;
use crate::services::Home;
use crate::services::dynamodb::{self, DynamoDb};
use crate::services::postgres::{self, Postgres, Profile};
use crate::services::redis::{self, Cluster, Program, Redis};
use crate::signals::Signals;
use crate::workspace::{Lock, Workspace};

/// So many that every test of a run can have its own.
const REDIS_DATABASES: u32 = 10_000;
/// How long a command that was told to end may take before it is told more firmly.
const PATIENCE: Duration = Duration::from_secs(5);
/// What begins the name of a run's directory.
const RUN_PREFIX: &str = "test-";
/// What begins the name of a directory that is kept.
const KEPT_PREFIX: &str = "kept-";

/// Runs the command and answers its exit code.
///
/// # Errors
/// When the servers or the command cannot be started.
pub async fn with_services(workspace: &Workspace, keep: Option<&str>, command: &[OsString]) -> Result<u8> {
    let (program, arguments) = command.split_first().ok_or_else(|| Error::new("say which command to run"))?;
    let mut signals = Signals::listen()?;
    let home = Home::prepare(&workspace.state()?).await?;
    home.notice().into_iter().for_each(note);
    let run = match keep {
        None => Run::claim(&home, "").await?,
        Some(name) => Run::keep(&home, name)?,
    };
    let servers = tokio::select! {
        servers = Servers::start(&run.home, &home, run.profile()) => servers?,
        signal = signals.next() => return Ok(exit_code_of(signal)),
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(servers.environment()).env("LECTERN_TEST_HOME", run.home.path());
    let ended = match command.spawn().context(|| format!("{} could not be started", program.display())) {
        Ok(mut child) => supervise(&mut child, &mut signals).await,
        Err(error) => Err(error),
    };
    servers.stop().await?;
    run.clean_up().await?;
    ended.map(exit_code)
}

struct Servers {
    postgres: Postgres,
    redis: Redis,
    redis_cluster: Cluster,
    redis_program: Program,
    dynamodb: DynamoDb,
}

impl Servers {
    async fn start(home: &Home, tools: &Home, profile: Profile) -> Result<Self> {
        let redis_program = Program::find_or_fetch(tools).await?;
        let (postgres, redis, redis_cluster, dynamodb) = tokio::try_join!(
            Postgres::start(home, profile),
            Redis::start(home, &redis_program, REDIS_DATABASES),
            Cluster::start(home, &redis_program),
            DynamoDb::start(None)
        )?;
        let parking = Parking { table: dynamodb::PARKING_TABLE.to_owned(), endpoint: Some(dynamodb.url()) };
        dynamodb::ensure_table(&parking).await?;
        Ok(Self { postgres, redis, redis_cluster, redis_program, dynamodb })
    }

    fn environment(&self) -> [(&'static str, OsString); 7] {
        [
            ("LECTERN_TEST_DATABASE_URL", self.postgres.url("postgres").into()),
            ("LECTERN_TEST_REDIS_URL", self.redis.url().into()),
            ("LECTERN_TEST_REDIS_CLUSTER_URL", self.redis_cluster.url().into()),
            ("LECTERN_TEST_DYNAMODB_URL", self.dynamodb.url().into()),
            ("LECTERN_TEST_PARKING_TABLE", dynamodb::PARKING_TABLE.into()),
            ("LECTERN_TEST_PG_BIN", self.postgres.binaries().directory().into()),
            ("LECTERN_TEST_REDIS_SERVER", self.redis_program.path().into()),
        ]
    }

    async fn stop(self) -> Result<()> {
        let (postgres, redis, cluster) =
            tokio::join!(self.postgres.stop(), self.redis.stop(), self.redis_cluster.stop());
        postgres.and(redis).and(cluster)
    }
}

/// The directory of one run. Its lock ends with the process, so the next run can tell what nobody needs any more.
#[derive(Debug)]
pub struct Run {
    home: Home,
    is_kept: bool,
    _lock: Lock,
}

impl Run {
    /// Takes a directory, after clearing away those of runs that are gone. A process that needs several names each.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn claim(home: &Home, name: &str) -> Result<Self> {
        // Held while directories come and go: nobody sweeps one that is about to be locked.
        let _sweeping = Lock::wait_for(&home.path().join("test.lock"))?;
        sweep(home).await?;
        let home = home.within(&format!("{RUN_PREFIX}{}{name}", std::process::id()))?;
        let lock = Lock::take(&home.path().join("lock"))?.map_err(|_| Error::new("another process has our id"))?;
        Ok(Self { home, is_kept: false, _lock: lock })
    }

    /// Takes the directory of a name, with what earlier runs have left in it.
    fn keep(home: &Home, name: &str) -> Result<Self> {
        let home = home.within(&format!("{KEPT_PREFIX}{name}"))?;
        let lock = Lock::take(&home.path().join("lock"))?
            .map_err(|_| Error::new(format!("{} is in use by another run", home.path().display())))?;
        Ok(Self { home, is_kept: true, _lock: lock })
    }

    fn profile(&self) -> Profile {
        if self.is_kept { Profile::Bulk } else { Profile::Throwaway }
    }

    /// Where its servers keep what is theirs.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Also stops what the command itself has started in the directory, and has not stopped.
    async fn clean_up(self) -> Result<()> {
        let path = self.home.path();
        redis::end_leftovers_in(&self.home).await?;
        if self.is_kept {
            return Ok(());
        }
        fs::remove_dir_all(path).context(|| format!("{} could not be removed", path.display()))
    }
}

/// Stops the servers of runs that were killed, and removes what they left.
async fn sweep(home: &Home) -> Result<()> {
    let entries = fs::read_dir(home.path()).context(|| format!("{} could not be read", home.path().display()))?;
    for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let path: PathBuf = home.path().join(&name);
        if !name.starts_with(RUN_PREFIX) || !path.is_dir() {
            continue;
        }
        let Ok(_lock) = Lock::take(&path.join("lock"))? else { continue };
        let left = home.within(&name)?;
        postgres::end_leftover_in(&left).await?;
        redis::end_leftovers_in(&left).await?;
        fs::remove_dir_all(&path).context(|| format!("{} could not be removed", path.display()))?;
    }
    Ok(())
}

/// Waits for the command, and sees to it that a signal to us ends it, too.
async fn supervise(child: &mut Child, signals: &mut Signals) -> Result<ExitStatus> {
    let lost = || "the command could not be waited for";
    tokio::select! {
        ended = child.wait() => return ended.context(lost),
        // Ctrl-C has reached the command already: it stands in the same process group of the terminal.
        signal = signals.next() => if signal != Signal::INT { send(child, signal) },
    }
    for firmer in [Signal::TERM, Signal::KILL] {
        if let Ok(ended) = timeout(PATIENCE, child.wait()).await {
            return ended.context(lost);
        }
        send(child, firmer);
    }
    child.wait().await.context(lost)
}

fn send(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn exit_code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_what_a_shell_would_say() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(101 << 8)), 101);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
        assert_eq!(exit_code_of(Signal::INT), 130);
    }
}
