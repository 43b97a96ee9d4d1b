//! A server as a child process: started with a log of its own, watched, and stopped by its id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Context, Error, Result};

/// How long a server may take to end as it was asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a process that is not our child is looked at while it ends.
const GLANCE: Duration = Duration::from_millis(20);
/// How many ports a server is tried on.
const PORT_ATTEMPTS: usize = 3;
/// How much of its log a server that would not start is quoted with.
const LOG_TAIL_LINES: usize = 20;

/// A running server. Dropped without [`Server::stop`], it is still asked to end, but not waited for.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    farewell: Signal,
}

impl Server {
    /// Starts a server whose output goes to `log`, and that ends in good order on the signal `farewell`.
    pub(crate) fn start(name: &'static str, mut command: Command, log: PathBuf, farewell: Signal) -> Result<Self> {
        let child = log_to(&mut command, &log)
            .and_then(|()| command.spawn())
            .context(|| format!("{name} could not be started"))?;
        Ok(Self { name, child, log, farewell })
    }

    /// The process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The child's standard input, when it was asked for.
    pub(crate) fn input(&mut self) -> Option<tokio::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Fails when the server has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.quoting_log(&format!("{} ended ({status})", self.name))),
            Err(error) => Err(error).context(|| format!("{} could not be watched", self.name)),
        }
    }

    /// An error that shows what the server itself had to say.
    pub(crate) fn quoting_log(&self, what: &str) -> Error {
        let text = std::fs::read(&self.log).unwrap_or_default();
        Error::new(format!(
            "{what}; its log {} ends with:\n{}",
            self.log.display(),
            tail(&String::from_utf8_lossy(&text))
        ))
    }

    /// Waits until the server ends, whatever makes it.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("{} ended ({status})", self.name),
            Err(error) => format!("{} could not be watched: {error}", self.name),
        }
    }

    /// Asks the server to end, waits for it, and kills it when it does not.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        self.ask_to_end();
        if let Ok(ended) = timeout(PATIENCE, self.child.wait()).await {
            return ended.context(|| format!("{} could not be waited for", self.name));
        }
        self.child.kill().await.context(|| format!("{} could not be killed", self.name))?;
        self.child.wait().await.context(|| format!("{} could not be waited for", self.name))
    }

    fn ask_to_end(&mut self) {
        // A child that was not reaped yet keeps its id, so this cannot reach a stranger.
        if let (Ok(None), Some(id)) = (self.child.try_wait(), self.child.id().and_then(process_id)) {
            let _ = kill_process(id, self.farewell);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

fn log_to(command: &mut Command, log: &Path) -> std::io::Result<()> {
    let file = File::create(log)?;
    command.stdout(Stdio::from(file.try_clone()?)).stderr(Stdio::from(file));
    Ok(())
}

/// Runs a command that ends by itself; when it fails, its output is the reason.
pub(crate) async fn run_to_end(mut command: Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(|| format!("{what}: it could not be started"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(Error::new(format!("{what} failed ({}):\n{}", output.status, tail(&said))))
}

/// Ends a process that an earlier run has left behind, and waits until it is gone.
pub(crate) async fn end_leftover(pid: u32, farewell: Signal) -> Result<()> {
    let Some(id) = process_id(pid) else { return Ok(()) };
    for signal in [farewell, Signal::KILL] {
        let _ = kill_process(id, signal);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !is_alive(pid) {
                return Ok(());
            }
            sleep(GLANCE).await;
        }
    }
    Err(Error::new(format!("process {pid}, left by an earlier run, does not end")))
}

/// Whether there is a process of this id, ours or not.
pub(crate) fn is_alive(pid: u32) -> bool {
    process_id(pid).is_some_and(|id| match test_kill_process(id) {
        Ok(()) => !is_zombie(pid),
        Err(error) => error == rustix::io::Errno::PERM,
    })
}

/// A process that has ended but was not reaped, as happens in containers whose first process reaps nothing.
fn is_zombie(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// How a process was called, from /proc where there is one, else from `ps`.
pub(crate) async fn command_line(pid: u32) -> Option<String> {
    if let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline")) {
        return Some(String::from_utf8_lossy(&arguments).replace('\0', " "));
    }
    let mut ps = Command::new("ps");
    ps.args(["-ww", "-o", "args=", "-p", &pid.to_string()]);
    run_to_end(ps, "ps").await.ok()
}

fn process_id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].iter().map(|line| format!("  {line}\n")).collect()
}

/// Starts a server on a free port of 127.0.0.1, and on another one when somebody has taken it before the server could.
pub(crate) async fn on_free_port<T, F: Future<Output = Result<T>>>(mut start: impl FnMut(u16) -> F) -> Result<T> {
    for _ in 1..PORT_ATTEMPTS {
        match start(free_port()?).await {
            Err(error) if error.to_string().contains("Address already in use") => {}
            started => return started,
        }
    }
    start(free_port()?).await
}

fn free_port() -> Result<u16> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .context(|| "no free port on 127.0.0.1")
}

/// A password that nobody chose, safe in a URL.
pub(crate) fn new_password() -> String {
    rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).process_group(0).stdin(Stdio::null());
        command
    }

    #[tokio::test]
    async fn a_server_is_stopped_by_the_signal_it_knows() {
        let scratch = Scratch::new("stop");
        let command = shell("trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done");
        let log = scratch.path().join("log");
        let server = Server::start("the server", command, log.clone(), Signal::INT).expect("started");
        while !std::fs::read_to_string(&log).expect("a log").contains("ready") {
            sleep(GLANCE).await;
        }
        assert_eq!(server.stop().await.expect("stopped").code(), Some(7));
    }

    #[tokio::test]
    async fn a_server_that_ended_by_itself_is_quoted() {
        let scratch = Scratch::new("ended");
        let command = shell("echo no room >&2; exit 3");
        let mut server =
            Server::start("the server", command, scratch.path().join("log"), Signal::INT).expect("started");
        server.ended().await;
        let report = server.check().expect_err("it has ended").report();
        assert!(report.contains("exit status: 3") && report.contains("no room"), "{report}");
    }

    #[tokio::test]
    async fn a_leftover_is_recognised_and_ended() {
        let mut child = shell("exec sleep 600").spawn().expect("started");
        let pid = child.id().expect("an id");
        assert!(is_alive(pid));
        end_leftover(pid, Signal::TERM).await.expect("ended");
        assert!(!is_alive(pid));
        child.wait().await.expect("reaped");
    }

    #[tokio::test]
    async fn the_command_line_of_a_process_is_known() {
        let line = command_line(std::process::id()).await.expect("we run");
        assert!(line.contains("local"), "{line}");
    }

    #[tokio::test]
    async fn a_port_that_was_taken_in_between_is_given_up_for_another() {
        let mut tried = Vec::new();
        let port = on_free_port(|port| {
            tried.push(port);
            let taken = tried.len() == 1;
            async move { if taken { Err(Error::new("could not bind: Address already in use")) } else { Ok(port) } }
        });
        let port = port.await.expect("the second is free");
        assert_eq!(tried.last(), Some(&port));
        assert_eq!(tried.len(), 2);
        assert!(on_free_port(|_| async { Err::<(), _>(Error::new("Address already in use")) }).await.is_err());
    }

    #[test]
    fn a_tail_is_the_end_of_a_text() {
        let text: String = (1..=30).map(|line| format!("line {line}\n")).collect();
        assert!(tail(&text).starts_with("  line 11\n") && tail(&text).ends_with("  line 30\n"));
        assert_eq!(tail(""), "");
    }
}
