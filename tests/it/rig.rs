//! Lectern as it is spread over processes: execution environments that can be frozen and killed, over a PostgreSQL, a
//! Redis and a `DynamoDB` that each stand behind a proxy of faults. What goes wrong with them is decided elsewhere.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use shared::parking::SHARDS;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::sleep,
};
use uuid::Uuid;

use crate::{
    faults::{Protocol, Proxy},
    own_servers::{OwnPostgres, OwnRedis, signal},
    support::{self, Course, Lectern, address_of, at_address},
};

/// Environments beside each other: their connections, breakers and caches are their own.
pub(crate) const ENVIRONMENTS: usize = 2;
/// Many requests are under way at once in one of them, as where Lambda is told to send several.
const DATABASE_CONNECTIONS: &str = "4";
/// How long something that must happen soon may take.
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(10);

/// Which servers there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    /// Those of all tests.
    Shared,
    /// A PostgreSQL and a Redis that can be killed.
    Own,
}

/// All of it.
pub(crate) struct Rig {
    /// Sees everything without faults.
    pub(crate) control: Lectern,
    pub(crate) postgres: Arc<Proxy>,
    pub(crate) redis: Proxy,
    pub(crate) dynamodb: Proxy,
    pub(crate) environments: Arc<Environments>,
    pub(crate) courses: Vec<Course>,
    /// The role as which the functions come to PostgreSQL.
    pub(crate) role: String,
    /// Where Redis is, past the proxy.
    pub(crate) redis_url: String,
    pub(crate) own_redis: Option<OwnRedis>,
    pub(crate) own_postgres: Option<OwnPostgres>,
}

impl Rig {
    /// Starts everything, with two courses in it.
    pub(crate) async fn start(servers: Servers) -> Self {
        let (own_postgres, own_redis) = match servers {
            Servers::Shared => (None, None),
            Servers::Own => (Some(OwnPostgres::start().await), Some(OwnRedis::start().await)),
        };
        let database = match &own_postgres {
            Some(own) => own.url(),
            None => support::database().await,
        };
        let redis_url = own_redis.as_ref().map_or_else(support::redis, OwnRedis::url);
        let mut control = Lectern::start_with(|config| {
            config.postgres.url = database.clone();
            config.redis = None;
        })
        .await;
        control.database = database.clone();
        let role = create_role(&control).await;
        let parking = control.app().config.parking.clone().expect("a parking table");
        let endpoint = parking.endpoint.expect("an endpoint");

        let server = own_postgres.as_ref().map_or_else(|| address_of(&database), OwnPostgres::address);
        let postgres = Arc::new(Proxy::start(server, Protocol::Postgres).await);
        let redis = Proxy::start(address_of(&redis_url), Protocol::Other).await;
        let dynamodb = Proxy::start(address_of(&endpoint), Protocol::Http).await;
        let name = database.rsplit_once('/').expect("a database name").1;
        let variables = vec![
            ("DATABASE_URL", format!("postgres://{role}:{role}@{}/{name}", postgres.address())),
            ("DATABASE_CONNECTIONS", DATABASE_CONNECTIONS.to_owned()),
            ("REDIS_URL", at_address(&redis_url, redis.address())),
            ("PARKING_TABLE", parking.table),
            ("AWS_ENDPOINT_URL_DYNAMODB", at_address(&endpoint, dynamodb.address())),
            // Counted, but not limited.
            ("WRITES_PER_MINUTE", "60000".to_owned()),
            ("RUST_LOG", support::environment("RUST_LOG").unwrap_or_else(|| "off".to_owned())),
        ];
        let environments = Arc::new(Environments::start(variables).await);
        let courses = vec![control.course("teacher", &[3, 3]).await, control.course("teacher", &[5]).await];
        Self { control, postgres, redis, dynamodb, environments, courses, role, redis_url, own_redis, own_postgres }
    }

    /// Replays in one environment until nothing waits, and says how many submissions were ended there.
    pub(crate) async fn drain(&self, environment: usize) -> u64 {
        let (mut ended, patience) = (0, Instant::now() + PATIENCE);
        loop {
            if let Some(answer) = self.environments.replay(environment).await {
                ended += answer["applied"].as_u64().expect("a number") + answer["rejected"].as_u64().expect("a number");
                if answer["remaining"] == 0 {
                    return ended;
                }
            }
            assert!(Instant::now() < patience, "submissions remain");
            sleep(GLANCE).await;
        }
    }

    /// How many submissions wait in the table.
    pub(crate) async fn parked(&self) -> u64 {
        let parking = self.control.app().parking.as_ref().expect("a parking table");
        let mut parked = 0;
        for shard in 0..SHARDS {
            parked += parking.count(shard).await.expect("DynamoDB answers");
        }
        parked
    }

    /// Ends what would not end by itself.
    pub(crate) async fn stop(self) {
        drop(self.environments);
        if let Some(own) = self.own_postgres {
            own.stop().await;
        }
    }
}

/// A role of no special rights beside those to the tables: what PostgreSQL lets pass for a superuser proves nothing.
///
/// Its commits are with the operating system when they are answered. The tests' PostgreSQL does without, but for that
/// the failure of a process would be that of a disk.
async fn create_role(control: &Lectern) -> String {
    let role = format!("functions_{}", Uuid::now_v7().simple());
    let sql = format!(
        "create role {role} login password '{role}' in role current_user; \
         alter role {role} set synchronous_commit = on"
    );
    control.sql(&sql).await;
    role
}

/// The execution environments, and where they are at the moment.
pub(crate) struct Environments {
    http: reqwest::Client,
    variables: Vec<(&'static str, String)>,
    key: KeyFile,
    places: Vec<Mutex<Place>>,
}

struct Place {
    url: String,
    child: Child,
    /// When it was frozen or dead. The end of the last may be open.
    troubles: Vec<(Instant, Option<Instant>)>,
}

impl Environments {
    async fn start(variables: Vec<(&'static str, String)>) -> Self {
        let key = KeyFile::write();
        let mut places = Vec::new();
        for _ in 0..ENVIRONMENTS {
            let (child, url) = spawn(&variables, key.path()).await;
            places.push(Mutex::new(Place { url, child, troubles: vec![] }));
        }
        Self { http: reqwest::Client::new(), variables, key, places }
    }

    fn place(&self, number: usize) -> MutexGuard<'_, Place> {
        self.places[number].lock().expect("a place")
    }

    /// Where one is.
    pub(crate) fn url(&self, number: usize) -> String {
        self.place(number).url.clone()
    }

    /// Runs replay-parked in one; `None` where that fails.
    pub(crate) async fn replay(&self, number: usize) -> Option<Value> {
        let url = format!("{}/_local/functions/replay-parked", self.url(number));
        let answer = self.http.post(url).json(&json!({})).send().await.ok()?;
        if answer.status() == StatusCode::OK { answer.json().await.ok() } else { None }
    }

    /// Stops one as Lambda does between two invocations, only that here it may be in the midst of one.
    pub(crate) fn freeze(&self, number: usize) {
        let mut place = self.place(number);
        place.troubles.push((Instant::now(), None));
        signal(place.child.id().expect("it runs"), Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, number: usize) {
        let mut place = self.place(number);
        signal(place.child.id().expect("it runs"), Signal::CONT);
        place.end_trouble();
    }

    /// Kills one.
    pub(crate) fn kill(&self, number: usize) {
        let mut place = self.place(number);
        place.troubles.push((Instant::now(), None));
        signal(place.child.id().expect("it runs"), Signal::KILL);
    }

    /// Puts a new one in its place.
    pub(crate) async fn replace(&self, number: usize) {
        let (child, url) = spawn(&self.variables, self.key.path()).await;
        let mut place = self.place(number);
        (place.child, place.url) = (child, url);
        place.end_trouble();
    }

    /// Whether one was frozen or dead at any moment between these two.
    pub(crate) fn was_in_trouble(&self, number: usize, from: Instant, to: Instant) -> bool {
        self.place(number).troubles.iter().any(|(began, ended)| *began <= to && ended.is_none_or(|ended| ended >= from))
    }
}

impl Place {
    fn end_trouble(&mut self) {
        if let Some((_, ended)) = self.troubles.last_mut() {
            *ended = Some(Instant::now());
        }
    }
}

async fn spawn(variables: &[(&'static str, String)], key: &Path) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_environment"));
    command.arg(key).envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("an environment starts");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut url = String::new();
    output.read_line(&mut url).await.expect("a line");
    tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::stderr()).await });
    assert!(url.starts_with("http://"), "an environment does not start: {url}");
    (child, url.trim().to_owned())
}

/// The tests' key in a file, which goes away with this.
struct KeyFile(PathBuf);

impl KeyFile {
    fn write() -> Self {
        let path = std::env::temp_dir().join(format!("lectern-key-{}.pem", Uuid::now_v7()));
        std::fs::write(&path, &support::key().1).expect("a file");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
