//! A PostgreSQL and a Redis of a test's own, which it may freeze and kill.

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use local::{
    services::{
        Home,
        postgres::{Postgres, Profile},
    },
    with_services::Run,
    workspace::Workspace,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use shared::{config::Config, migrations};
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::sleep,
};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{
    certificates::Identity,
    faults::{Protocol, Proxy},
    support::{address_of, at_address, deadline, required, sql},
};

/// How long something that must happen soon may take.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(10);

/// A PostgreSQL that nobody else uses.
pub(crate) struct OwnPostgres {
    run: Run,
    server: Option<Postgres>,
    frozen: Vec<u32>,
    /// Leads to the server wherever it was started last, without faults.
    calm: Proxy,
}

impl OwnPostgres {
    /// With an empty database of the present schema.
    pub(crate) async fn start() -> Self {
        let workspace = Workspace::find(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the workspace");
        let home = Home::prepare(&workspace.state().expect("a state")).await.expect("a home");
        let run = Run::claim(&home, &format!("-{}", Uuid::now_v7().simple())).await.expect("a directory");
        let server = Postgres::start(run.home(), Profile::Throwaway).await.expect("PostgreSQL starts");
        server.ensure_database("lectern").await.expect("a database");
        let url = server.url("lectern");
        migrations::apply(&Config::for_database(&url), migrations::ALL, deadline()).await.expect("migrations apply");
        let calm = Proxy::start(address_of(&url), Protocol::Other).await;
        Self { run, server: Some(server), frozen: vec![], calm }
    }

    /// Shows who it is from now on, and lets nobody come without TLS but its superuser and the role `proxied`, whom a
    /// proxy has asked already. There is also a role `functions`, whose password is `secret`.
    pub(crate) async fn encrypt(&mut self, identity: &Identity) {
        let roles = "do $$ begin
                create role functions login password 'secret' in role lectern;
                create role proxied login in role lectern;
            exception when duplicate_object then null; end $$";
        sql(&self.server().url("lectern"), roles).await;
        sql(&self.server().url("lectern"), "alter system set ssl = on").await;
        self.shut_down().await;
        let data = self.run.home().path().join("postgres/data");
        let (certificate, key) = identity.pem();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let file = data.join(name);
            std::fs::write(&file, text).expect("a file");
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a file of the server's alone");
            self.run.home().give(&file).expect("a file of the server's");
        }
        let who = "host all lectern 127.0.0.1/32 scram-sha-256\n\
            host all proxied 127.0.0.1/32 trust\n\
            hostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), who).expect("a file");
        self.start_again().await;
    }

    /// Asks a role for no password any more.
    pub(crate) async fn trust(&self, role: &str) {
        let file = self.run.home().path().join("postgres/data/pg_hba.conf");
        let rest = std::fs::read_to_string(&file).expect("a file");
        std::fs::write(&file, format!("host all {role} 127.0.0.1/32 trust\n{rest}")).expect("a file");
        sql(&self.server().url("lectern"), "select pg_reload_conf()").await;
        let url = format!("postgres://{role}@{}/lectern", self.address());
        let patience = Instant::now() + PATIENCE;
        while tokio_postgres::connect(&url, NoTls).await.is_err() {
            assert!(Instant::now() < patience, "it does not trust {role}");
            sleep(GLANCE).await;
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.server().url("lectern"))
    }

    /// Its database, wherever it is by then.
    pub(crate) fn url(&self) -> String {
        at_address(&self.server().url("lectern"), self.calm.address())
    }

    fn server(&self) -> &Postgres {
        self.server.as_ref().expect("it runs")
    }

    /// The postmaster and all its children.
    fn family(&self) -> Vec<u32> {
        let postmaster = self.server().id().expect("it runs");
        let mut family = vec![postmaster];
        family.extend(children(postmaster));
        family
    }

    /// Stops all its processes where they are.
    pub(crate) fn freeze(&mut self) {
        // The postmaster first, so that it has no more children; then those that it had.
        signal(self.server().id().expect("it runs"), Signal::STOP);
        self.frozen = self.family();
        self.frozen.iter().for_each(|process| signal(*process, Signal::STOP));
    }

    /// Lets them go on.
    pub(crate) fn thaw(&mut self) {
        self.frozen.drain(..).rev().for_each(|process| signal(process, Signal::CONT));
    }

    /// Kills all its processes: nothing is finished, nothing is written.
    pub(crate) async fn kill(&mut self) {
        self.freeze();
        let family = std::mem::take(&mut self.frozen);
        family.iter().for_each(|process| signal(*process, Signal::KILL));
        let mut server = self.server.take().expect("it runs");
        server.ended().await;
        let patience = Instant::now() + Duration::from_secs(5);
        while family.iter().any(|process| is_alive(*process)) && Instant::now() < patience {
            sleep(GLANCE).await;
        }
    }

    /// Stops it in good order.
    pub(crate) async fn shut_down(&mut self) {
        self.server.take().expect("it runs").stop().await.expect("PostgreSQL stops");
    }

    /// Starts it again, and says where.
    pub(crate) async fn start_again(&mut self) -> SocketAddr {
        let server = Postgres::start(self.run.home(), Profile::Throwaway).await.expect("PostgreSQL starts again");
        self.server = Some(server);
        self.calm.lead_to(self.address());
        self.address()
    }

    /// Ends it, and removes what it leaves.
    pub(crate) async fn stop(mut self) {
        self.thaw();
        self.shut_down().await;
        // Only a directory: the next run sweeps what cannot be removed now.
        let path = self.run.home().path().to_owned();
        drop(self);
        let _ = std::fs::remove_dir_all(path);
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // Frozen, it would not hear that it should end.
        self.thaw();
    }
}

/// A Redis that nobody else uses.
pub(crate) struct OwnRedis {
    child: Child,
    address: SocketAddr,
}

impl OwnRedis {
    /// An empty one.
    pub(crate) async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut command = Command::new(required("LECTERN_TEST_REDIS_SERVER"));
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--save", ""]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("Redis starts");
        let patience = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < patience, "Redis does not get ready");
            sleep(GLANCE).await;
        }
        Self { child, address }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its database.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/1", self.address)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, kind: Signal) {
        signal(self.child.id().expect("it runs"), kind);
    }
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(process: u32, signal: Signal) {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).expect("an id");
    // It may have ended meanwhile, like a back end whose client went away.
    let _ = kill_process(id, signal);
}

fn is_alive(process: u32) -> bool {
    i32::try_from(process).ok().and_then(Pid::from_raw).is_some_and(|id| test_kill_process(id).is_ok())
}

/// The children of a process, from /proc where there is one, else from `ps`.
fn children(parent: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    if let Ok(entries) = std::fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            // The name of a program may hold anything, so what counts begins behind the last parenthesis.
            let after = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
            pairs.push((entry.file_name().to_string_lossy().into_owned(), after.flatten().unwrap_or_default()));
        }
    } else {
        let listed = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps answers");
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            let mut ids = line.split_whitespace().map(str::to_owned);
            pairs.push((ids.next().unwrap_or_default(), ids.next().unwrap_or_default()));
        }
    }
    let of_parent = pairs.iter().filter(|(_, whose)| whose.parse() == Ok(parent));
    of_parent.filter_map(|(id, _)| id.parse().ok()).collect()
}
