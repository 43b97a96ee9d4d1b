//! PostgreSQL: its binaries, a private cluster on a free port of 127.0.0.1, and how it ends.

mod binaries;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::home::Home;
use super::process::{Server, command_line, end_leftover, is_alive, new_password, on_free_port, run_to_end};
use crate::error::{Context, Error, Result};
use crate::workspace::{make_private_directory, read_if_there, write_private};

pub use binaries::Binaries;

/// The cluster's superuser.
const USER: &str = "lectern";
/// How long a server may take to accept connections; recovery after a crash takes most of it.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How often a starting server is tried.
const GLANCE: Duration = Duration::from_millis(25);

/// How much a cluster is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Survives whatever happens to the machine.
    Durable,
    /// For tests: nothing is ever waited for to reach the disk.
    Throwaway,
    /// For much data that can be made again: as fast as memory, and lost in a crash.
    Bulk,
}

impl Profile {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Durable => &[],
            Self::Throwaway => &[
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "max_connections=400",
                "shared_buffers=256MB",
            ],
            Self::Bulk => &[
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "wal_level=minimal",
                "max_wal_senders=0",
                "max_wal_size=8GB",
                "shared_buffers=2GB",
            ],
        }
    }
}

/// A running private cluster.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    binaries: Binaries,
    port: u16,
    password: String,
}

impl Postgres {
    /// Starts the cluster of a home, making it first where there is none. One that an earlier run has left running is
    /// stopped and started anew.
    ///
    /// # Errors
    /// When there are no binaries, or the server does not come up; the error quotes the server's log.
    pub async fn start(home: &Home, profile: Profile) -> Result<Self> {
        let cluster = Cluster::at(home)?;
        let binaries = Binaries::find(home, cluster.major()?).await?;
        cluster.end_leftover().await?;
        if cluster.major()?.is_none() {
            cluster.initialise(&binaries, profile).await?;
        }
        let password = cluster.password()?;
        home.refuse_other_owner(&cluster.data)?;
        on_free_port(|port| cluster.serve(&binaries, profile, port, &password)).await
    }

    /// Starts a server that has ended anew, on the same port.
    ///
    /// # Errors
    /// When it does not come up; the error quotes its log.
    pub async fn restart(&mut self, home: &Home, profile: Profile) -> Result<()> {
        let cluster = Cluster::at(home)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            // Ours from its first moment: whoever stops us meanwhile has to stop it, too.
            self.server = cluster.launch(&self.binaries, profile, self.port)?;
            match self.wait_until_ready().await {
                // Processes of the one before take a moment to notice that it is gone.
                Err(_) if Instant::now() < deadline => sleep(GLANCE).await,
                ready => return ready,
            }
        }
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Where it listens, fit to be shown.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The programs that it runs from.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.id()
    }

    /// Makes a database unless it is there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<()> {
        let failed = || format!("the database {name} could not be made");
        let client = connect(&self.url("postgres")).await.context(failed)?;
        let known = client.query_opt("select from pg_database where datname = $1", &[&name]).await.context(failed)?;
        if known.is_none() {
            client.batch_execute(&format!("create database \"{name}\"")).await.context(failed)?;
        }
        Ok(())
    }

    /// Waits until the server ends without having been asked to, and tells how.
    pub async fn ended(&mut self) -> String {
        self.server.ended().await
    }

    /// Stops the server in good order: transactions under way are rolled back, everything committed is on disk.
    ///
    /// # Errors
    /// When it can be neither stopped nor killed.
    pub async fn stop(self) -> Result<()> {
        self.server.stop().await.map(drop)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url("postgres");
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            self.server.check()?;
            // Whoever took the port while nobody listened there may accept and say nothing.
            let reason = match timeout(CONNECT_PATIENCE, connect(&url)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() > deadline {
                return Err(self.server.quoting_log(&format!("PostgreSQL does not get ready ({reason})")));
            }
            sleep(GLANCE).await;
        }
    }
}

/// The files of a cluster: `data/` belongs to the server, the password and the log beside it to us.
struct Cluster<'a> {
    home: &'a Home,
    directory: PathBuf,
    data: PathBuf,
}

impl<'a> Cluster<'a> {
    fn at(home: &'a Home) -> Result<Self> {
        let directory = home.directory("postgres")?;
        Ok(Self { home, data: directory.join("data"), directory })
    }

    /// The version that made the cluster, `None` when there is no cluster yet.
    fn major(&self) -> Result<Option<u32>> {
        let Some(version) = read_if_there(&self.data.join("PG_VERSION"))? else { return Ok(None) };
        version.trim().parse().map(Some).context(|| format!("{} holds no cluster", self.data.display()))
    }

    fn password(&self) -> Result<String> {
        let path = self.directory.join("password");
        read_if_there(&path)?.ok_or_else(|| {
            Error::new(format!("{} is lost: remove {} to begin afresh", path.display(), self.directory.display()))
        })
    }

    /// Makes the cluster beside its place and moves it there, so that half a cluster is never taken for one.
    async fn initialise(&self, binaries: &Binaries, profile: Profile) -> Result<()> {
        let failed = || "the database could not be made";
        let unfinished = self.directory.join("data.new");
        let lent_password = self.directory.join("password.new");
        remove_if_there(&unfinished).context(failed)?;
        let password = new_password();
        write_private(&self.directory.join("password"), password.as_bytes())?;
        write_private(&lent_password, password.as_bytes())?;
        self.home.give(&lent_password)?;
        make_private_directory(&unfinished)?;
        self.home.give(&unfinished)?;
        let mut initdb = self.home.command(&binaries.directory().join("initdb"));
        // C, because it is the one collation that every machine has and that never changes.
        initdb.args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", USER]);
        if profile == Profile::Throwaway {
            initdb.arg("--no-sync");
        }
        initdb.arg("--pwfile").arg(&lent_password).arg("--pgdata").arg(&unfinished);
        forget_settings(&mut initdb);
        let made = run_to_end(initdb, "initdb").await;
        fs::remove_file(&lent_password).context(failed)?;
        made?;
        fs::rename(&unfinished, &self.data).context(failed)
    }

    async fn serve(&self, binaries: &Binaries, profile: Profile, port: u16, password: &str) -> Result<Postgres> {
        let server = self.launch(binaries, profile, port)?;
        let mut postgres = Postgres { server, binaries: binaries.clone(), port, password: password.to_owned() };
        postgres.wait_until_ready().await?;
        Ok(postgres)
    }

    fn launch(&self, binaries: &Binaries, profile: Profile, port: u16) -> Result<Server> {
        let mut command = self.home.command(&binaries.directory().join("postgres"));
        command.arg("-D").arg(&self.data).args(["-p", &port.to_string()]);
        // No socket in the file system: 127.0.0.1 with a password is the one way in.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "timezone=UTC", "log_timezone=UTC"]
            .iter()
            .chain(profile.settings())
        {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null());
        forget_settings(&mut command);
        Server::start("PostgreSQL", command, self.directory.join("server.log"), Signal::INT)
    }

    /// Stops the server of an earlier run that was killed before it could. The id in the file may by now be another
    /// process's: only a PostgreSQL that was started on this very directory is ours.
    async fn end_leftover(&self) -> Result<()> {
        let file = self.data.join("postmaster.pid");
        let Some(content) = read_if_there(&file)? else { return Ok(()) };
        let Some(pid) = content.lines().next().and_then(|line| line.trim().parse().ok()) else { return Ok(()) };
        if !is_alive(pid) {
            return Ok(());
        }
        match command_line(pid).await {
            Some(line) if line.contains("postgres") && line.contains(&*self.data.to_string_lossy()) => {
                end_leftover(pid, Signal::INT).await
            }
            // PostgreSQL would take the stranger for itself, and refuse to start.
            Some(line) if !line.contains("postgres") => {
                fs::remove_file(&file).context(|| format!("{} could not be removed", file.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Stops a PostgreSQL that a killed run has left behind in a home, if there is one.
pub(crate) async fn end_leftover_in(home: &Home) -> Result<()> {
    Cluster::at(home)?.end_leftover().await
}

/// Opens a connection that is closed when its client is dropped.
async fn connect(url: &str) -> std::result::Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url.parse()?;
    config.connect_timeout(CONNECT_PATIENCE);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The environment of whoever calls us must not move the cluster or change its settings.
fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

fn remove_if_there(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
