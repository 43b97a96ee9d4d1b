//! The program `lectern` itself: started, killed and stopped as a person or a script would, in a workspace of its own.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Far more than any of this takes: whoever waits as long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory that is a workspace, and goes away with its test.
struct Workspace(PathBuf);

impl Workspace {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("lectern-commands-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a directory");
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml");
        std::fs::copy(template, path.join("template.yaml")).expect("a template");
        Self(path)
    }

    fn lectern(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lectern"));
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null()).kill_on_drop(true);
        for variable in
            ["DATABASE_URL", "REDIS_URL", "AWS_ENDPOINT_URL_DYNAMODB", "PARKING_TABLE", "ALLOW_REMOTE", "RUST_LOG"]
        {
            command.env_remove(variable);
        }
        command.env("PORT", "0").env("PATH", path_with_test_servers());
        command
    }

    async fn run(&self) -> Running {
        self.run_with(&[]).await
    }

    async fn run_with(&self, variables: &[(&str, &str)]) -> Running {
        let mut command = self.lectern(&["run"]);
        let mut child = command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut said = Vec::new();
        while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text")
        {
            if let Some(url) = line.strip_prefix("Lectern is ready on ") {
                return Running { child, url: url.to_owned(), said, _lines: lines };
            }
            said.push(line);
        }
        panic!("it ended before it was ready: {said:?}");
    }

    /// The process of the workspace's PostgreSQL, while there is one.
    fn postgres(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.0.join(".lectern/postgres/data/postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.parse().ok()?)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The servers that `make test` has found or fetched need not be fetched again.
fn path_with_test_servers() -> std::ffi::OsString {
    let programs = std::env::var_os("LECTERN_TEST_PG_BIN").map(PathBuf::from);
    let redis = std::env::var_os("LECTERN_TEST_REDIS_SERVER").map(PathBuf::from);
    let redis = redis.and_then(|program| program.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = programs.into_iter().chain(redis).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).expect("a path")
}

struct Running {
    child: Child,
    url: String,
    said: Vec<String>,
    // Open until the end: who writes to a closed pipe may be told so by a signal.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn text(&self, path: &str, token: Option<&str>) -> String {
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "GET {path}: {}", answer.status());
        answer.text().await.expect("a body")
    }

    /// What an answer says of the cache.
    async fn cache(&self, path: &str) -> String {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.expect("an answer");
        answer.headers()["x-cache"].to_str().expect("a text").to_owned()
    }

    async fn json(&self, path: &str, token: Option<&str>) -> Value {
        serde_json::from_str(&self.text(path, token).await).expect("JSON")
    }

    /// Asks until it is answered so.
    async fn wait_for(&self, status: u16, path: &str, token: &str) {
        let client = reqwest::Client::new();
        let until = async {
            let ask = || client.get(format!("{}{path}", self.url)).bearer_auth(token).send();
            while ask().await.expect("an answer").status() != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, until).await.expect("in time");
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(id, signal).expect("it can be signalled");
    }

    async fn ended(mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("in time").expect("an end")
    }
}

#[tokio::test]
async fn a_run_keeps_its_state_over_a_kill_and_a_stop_and_leaves_nothing_running() {
    let workspace = Workspace::new();
    let first = workspace.run().await;
    let courses = first.json("/courses", None).await;
    assert_ne!(first.cache("/courses").await, "bypass", "there is a cache, too");
    let token = first.text("/_local/token?sub=alice", None).await;
    assert_eq!(courses["courses"].as_array().map(Vec::len), Some(3), "{:?}", first.said);
    let mine = first.json("/me/courses", Some(&token)).await;
    assert_eq!(mine["enrollments"].as_array().map(Vec::len), Some(2));

    let second = workspace.lectern(&["run"]).output().await.expect("it starts");
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("running in this directory already"), "{told}");
    assert!(told.contains(&first.url), "{told}");

    first.signal(Signal::KILL);
    first.ended().await;
    let orphan = workspace.postgres().expect("PostgreSQL outlives a killed run");

    let third = workspace.run().await;
    assert_ne!(workspace.postgres(), Some(orphan), "the next run takes over");
    assert_eq!(third.json("/courses", None).await, courses, "the demo is loaded once");
    assert_eq!(third.json("/me/courses", Some(&token)).await, mine, "tokens outlive a restart");
    let mode = |file: &str| {
        let path = workspace.0.join(".lectern").join(file);
        std::fs::metadata(path).expect(file).permissions().mode() & 0o777
    };
    for secret in ["token-key.pem", "postgres/password"] {
        assert_eq!(mode(secret), 0o600, "{secret}");
    }

    third.signal(Signal::TERM);
    assert!(third.ended().await.success());
    assert_eq!(workspace.postgres(), None, "PostgreSQL was stopped in good order");
}

#[tokio::test]
async fn a_run_uses_the_servers_that_it_is_given_and_leaves_them_as_they_are() {
    let given = |what: &str| {
        let value = std::env::var_os(format!("LECTERN_TEST_{what}")).expect("run the tests by `make test`");
        value.into_string().expect("a text")
    };
    let name = format!("given_{}", std::process::id());
    let url = given("DATABASE_URL");
    let (server, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    server.batch_execute(&format!("create database {name}")).await.expect("a database");
    let (address, _) = url.rsplit_once('/').expect("a URL");
    // The last of its databases: tests take them from the first on.
    let redis = format!("{}/9999", given("REDIS_URL").trim_end_matches('/'));
    let database = format!("{address}/{name}");
    let dynamodb = given("DYNAMODB_URL");
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", redis.as_str()),
        ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.as_str()),
        ("PARKING_TABLE", name.as_str()),
    ];

    let workspace = Workspace::new();
    let running = workspace.run_with(&variables).await;
    let courses = running.json("/courses", None).await;
    assert_eq!(courses["courses"].as_array().map(Vec::len), Some(3), "{:?}", running.said);
    assert_ne!(running.cache("/courses").await, "bypass");
    assert!(!workspace.0.join(".lectern/postgres").exists() && !workspace.0.join(".lectern/redis").exists());
    assert!(!workspace.0.join(".lectern/dynamodb.sqlite").exists());
    running.signal(Signal::TERM);
    assert!(running.ended().await.success());

    // Who comes to it from elsewhere finds courses there, and brings none.
    let other = Workspace::new();
    let running = other.run_with(&variables).await;
    assert_eq!(running.json("/courses", None).await, courses);
    running.signal(Signal::TERM);
    assert!(running.ended().await.success());
    server.batch_execute(&format!("drop database {name}")).await.expect("nobody is connected, and it still runs");
}

#[tokio::test]
async fn a_page_of_another_host_gets_nothing() {
    let workspace = Workspace::new();
    let running = workspace.run().await;
    for path in ["/courses", "/_local/token?sub=alice", "/"] {
        let asked = reqwest::Client::new().get(format!("{}{path}", running.url)).header("host", "evil.example");
        let answer = asked.send().await.expect("an answer");
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    let port = running.url.rsplit_once(':').expect("a port").1.to_owned();
    // It listens on 127.0.0.1 and on no other address of this machine. Elsewhere than on Linux there is but one.
    assert!(!cfg!(target_os = "linux") || TcpListener::bind(format!("127.0.0.2:{port}")).is_ok());
    running.signal(Signal::TERM);
    assert!(running.ended().await.success());
}

#[tokio::test]
async fn a_run_outlives_its_database_and_starts_it_again() {
    let workspace = Workspace::new();
    let running = workspace.run().await;
    let token = running.text("/_local/token?sub=alice", None).await;
    let mine = running.json("/me/courses", Some(&token)).await;
    let killed = workspace.postgres().expect("it runs");
    kill_process(killed, Signal::KILL).expect("it can be killed");
    for status in [503, 200] {
        running.wait_for(status, "/me/courses", &token).await;
    }
    assert_eq!(running.json("/me/courses", Some(&token)).await, mine);
    assert_ne!(workspace.postgres(), Some(killed));

    running.signal(Signal::TERM);
    assert!(running.ended().await.success());
    assert_eq!(workspace.postgres(), None, "the new one was stopped in good order, too");
}

#[tokio::test]
async fn what_cannot_work_is_told_before_anything_is_started() {
    let workspace = Workspace::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    for (variable, value, told) in [
        ("PORT", port.as_str(), port.as_str()),
        ("PORT", "http", "PORT"),
        ("DATABASE_URL", "postgres://lectern:secret@db.example/lectern", "ALLOW_REMOTE"),
        ("REDIS_URL", "redis://cache.example", "ALLOW_REMOTE"),
    ] {
        let output = workspace.lectern(&["run"]).env(variable, value).output().await.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told) && !said.contains("secret"), "{said}");
    }
    assert!(!workspace.0.join(".lectern/postgres").exists());
}

#[tokio::test]
async fn a_command_runs_beside_servers_that_go_away_with_it() {
    let workspace = Workspace::new();
    let script = r#"
        case "$LECTERN_TEST_DATABASE_URL" in postgres://*@127.0.0.1:*/postgres) ;; *) exit 1 ;; esac
        case "$LECTERN_TEST_REDIS_URL" in redis://:*@127.0.0.1:*) ;; *) exit 2 ;; esac
        case "$LECTERN_TEST_REDIS_CLUSTER_URL" in redis://:*@127.0.0.1:*) ;; *) exit 6 ;; esac
        test -d "$LECTERN_TEST_HOME/redis" || exit 8
        test -x "$LECTERN_TEST_PG_BIN/initdb" || exit 3
        test -x "$LECTERN_TEST_REDIS_SERVER" || exit 4
        ls -d .lectern/test-*/postgres/data > /dev/null || exit 5
        exit 7"#;
    let output = workspace.lectern(&["with-services", "--", "sh", "-c", script]).output().await.expect("it starts");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(workspace.0.join(".lectern")).expect("listed").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("test-")), "{left:?}");
}

#[tokio::test]
async fn a_command_that_is_told_to_end_takes_its_servers_with_it() {
    let workspace = Workspace::new();
    let mut command = workspace.lectern(&["with-services", "--", "sh", "-c", "echo up; exec sleep 600"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next_line().await.expect("text").as_deref(), Some("up"));
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
    kill_process(id, Signal::TERM).expect("it can be signalled");
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.expect("in time").expect("an end");
    assert_eq!(ended.code(), Some(143));
}
