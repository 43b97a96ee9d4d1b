//! A Lectern of one's own for each test: a fresh database, a Redis number of its own, a server on a free port.

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::Utc;
use local::{
    api::{Api, InvokeError},
    authorizer::{Authorizer, Grant, SigningKey},
    page::Page,
    services::dynamodb,
    template::Template,
};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use shared::{
    app::App,
    config::{Allowance, Config, Parking, Postgres, Redis},
    migrations,
};
use tokio::{net::TcpListener, sync::OnceCell};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{
    contract::{Outcome, Sent, contract},
    redis_servers,
};

/// What `make test` says about the servers that it started.
#[expect(clippy::disallowed_methods, reason = "tests read their environment here and nowhere else")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn required(name: &str) -> String {
    environment(name).unwrap_or_else(|| panic!("{name} is not set: run the tests by `make test`"))
}

/// A database URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (server, rest) = url.rsplit_once('/').expect("a database URL ends in /database");
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{server}/{database}{options}")
}

/// Where the server of a URL listens.
pub(crate) fn address_of(url: &str) -> SocketAddr {
    let rest = url.split_once("://").expect("a URL").1;
    let server = rest.split('/').next().expect("a server");
    server.rsplit('@').next().expect("an address").parse().expect("an address")
}

/// The same URL with another address.
pub(crate) fn at_address(url: &str, address: SocketAddr) -> String {
    url.replacen(&address_of(url).to_string(), &address.to_string(), 1)
}

/// Runs SQL in a database.
pub(crate) async fn sql(url: &str, statements: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    let driver = tokio::spawn(connection);
    client.batch_execute(statements).await.expect(statements);
    drop(client);
    let _ = driver.await;
}

/// A new empty database.
pub(crate) async fn empty_database() -> String {
    create_database("template0").await
}

/// A new database with the present schema.
pub(crate) async fn database() -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_init(|| async {
            let url = empty_database().await;
            migrations::apply(&Config::for_database(&url), migrations::ALL, deadline())
                .await
                .expect("migrations apply");
            url.rsplit_once('/').expect("a database name").1.to_owned()
        })
        .await;
    create_database(template).await
}

async fn create_database(template: &str) -> String {
    let server = required("LECTERN_TEST_DATABASE_URL");
    let name = format!("test_{}", Uuid::now_v7().simple());
    // PostgreSQL lets one session at a time copy a template.
    static COPYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = COPYING.lock().await;
    sql(&server, &format!("create database {name} template {template} strategy file_copy")).await;
    with_database(&server, &name)
}

/// The URL of each role of the functions, for a database of the tests' server.
///
/// They are members of the roles, with passwords: those themselves have none.
pub(crate) async fn in_roles(database: &str) -> BTreeMap<String, String> {
    static MEMBERS: OnceCell<Vec<(&str, String)>> = OnceCell::const_new();
    let members = MEMBERS.get_or_init(|| async {
        let run = Uuid::now_v7().simple();
        let mut members = Vec::new();
        for role in ["lectern_read", "lectern_write", "lectern_refresh"] {
            let member = format!("{role}_{run}");
            sql(database, &format!("create role {member} login password 'secret' in role {role}")).await;
            members.push((role, member));
        }
        members
    });
    let name = database.rsplit_once('/').expect("a database name").1;
    let url = |member: &str| format!("postgres://{member}:secret@{}/{name}", address_of(database));
    members.await.iter().map(|(role, member)| ((*role).to_owned(), url(member))).collect()
}

/// A Redis number that no other test of this run uses.
pub(crate) fn redis() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{}/{}", required("LECTERN_TEST_REDIS_URL").trim_end_matches('/'), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One Redis that is not given up on a busy machine: most tests are of something else than a slow cache.
pub(crate) fn unhurried(url: &str) -> Redis {
    Redis { command_limit: Duration::from_secs(5), ..Redis::at(url) }
}

/// What the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One Redis.
    Node,
    /// A cluster of three.
    Cluster,
}

impl Kind {
    /// A part of it that no other test of this run uses.
    pub(crate) async fn redis(self) -> Redis {
        match self {
            Self::Node => unhurried(&redis()),
            Self::Cluster => {
                static URL: OnceCell<String> = OnceCell::const_new();
                let url = URL.get_or_init(|| async {
                    let url = required("LECTERN_TEST_REDIS_CLUSTER_URL");
                    redis_servers::wait_until_ready(&url).await;
                    url
                });
                redis_servers::on_cluster(unhurried(url.await))
            }
        }
    }
}

/// Makes two tests of each, one for either kind of cache.
macro_rules! on_a_node_and_on_a_cluster {
    ($($test:ident,)+) => {
        mod on_a_node {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Kind::Node).await;
            })+
        }
        mod on_a_cluster {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Kind::Cluster).await;
            })+
        }
    };
}

pub(crate) use on_a_node_and_on_a_cluster;

/// A parking table that no other test uses.
pub(crate) async fn parking() -> Parking {
    let parking = Parking {
        table: format!("parking-{}", Uuid::now_v7().simple()),
        endpoint: Some(required("LECTERN_TEST_DYNAMODB_URL")),
    };
    dynamodb::ensure_table(&parking).await.expect("a table");
    parking
}

/// A PostgreSQL that refuses.
pub(crate) const NOWHERE: &str = "postgres://lectern:secret@127.0.0.1:1/lectern";

/// Far enough away.
pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A running Lectern.
pub(crate) struct Lectern {
    /// Where it listens.
    pub(crate) url: String,
    /// Where its database is, past any tap.
    pub(crate) database: String,
    api: Arc<Api>,
    http: reqwest::Client,
}

impl Lectern {
    /// With everything as in `make run`, and each function in its role, as on AWS.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With a cache of this kind.
    pub(crate) async fn start_on(kind: Kind) -> Self {
        let redis = kind.redis().await;
        Self::start_with(|config| config.redis = Some(redis)).await
    }

    /// With other settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::for_database(&database().await);
        config.redis = Some(Kind::Node.redis().await);
        config.parking = Some(parking().await);
        config.database_connections = 8;
        // Tests do in a loop what nobody does; writes are counted all the same.
        let plenty = Some(Allowance { per_minute: 60_000, burst: 60_000 });
        (config.writes, config.service_writes) = (plenty, plenty);
        let database = config.postgres.url.clone();
        change(&mut config);
        let roles = if config.postgres.url == database { in_roles(&database).await } else { BTreeMap::new() };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let template = Template::read(&root.join("template.yaml")).expect("a good template");
        let api = Api::over(config, &template, key().0.clone()).expect("a good configuration");
        let api = Arc::new(api.in_roles(roles).expect("good URLs"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(local::server::serve(listener, api.clone(), Page::of(&root), std::future::pending()));
        Self { url, database, api, http: reqwest::Client::new() }
    }

    /// A second execution environment: other connections, the same servers.
    pub(crate) async fn another(&self) -> Self {
        let config = self.api.app().config.clone();
        Self::start_with(|fresh| *fresh = config).await
    }

    /// A second execution environment, for which PostgreSQL is away: where it should be, nobody listens.
    pub(crate) async fn cut_off(&self) -> Self {
        let config = self.api.app().config.clone();
        Self::start_with(|fresh| *fresh = Config { postgres: Postgres::at(NOWHERE), ..config }).await
    }

    /// What its functions share.
    pub(crate) fn app(&self) -> &Arc<App> {
        self.api.app()
    }

    /// The same of those that come to PostgreSQL in a role.
    pub(crate) fn app_in(&self, role: &str) -> &Arc<App> {
        self.api.app_in(role)
    }

    /// A good token.
    pub(crate) fn token(&self, grant: &Grant) -> String {
        self.api.authorizer().mint(grant, Utc::now()).expect("a token")
    }

    /// The authorizer, for tokens that are not good.
    pub(crate) fn authorizer(&self) -> &Authorizer {
        self.api.authorizer()
    }

    /// Somebody with these groups.
    pub(crate) fn caller(&self, user: &str, groups: &[&str]) -> Caller<'_> {
        Caller { lectern: self, token: Some(self.token(&Grant::new(user, groups))) }
    }

    /// A learner.
    pub(crate) fn learner(&self, user: &str) -> Caller<'_> {
        self.caller(user, &[])
    }

    /// An instructor.
    pub(crate) fn teacher(&self, user: &str) -> Caller<'_> {
        self.caller(user, &["instructor"])
    }

    /// A trusted back end.
    pub(crate) fn service(&self) -> Caller<'_> {
        Caller { lectern: self, token: Some(self.token(&Grant::service("loader"))) }
    }

    /// Somebody without a token.
    pub(crate) fn anyone(&self) -> Caller<'_> {
        Caller { lectern: self, token: None }
    }

    /// Somebody with any text for a token.
    pub(crate) fn bearer(&self, token: &str) -> Caller<'_> {
        Caller { lectern: self, token: Some(token.to_owned()) }
    }

    /// Runs a function that has no route.
    pub(crate) async fn invoke(&self, function: &str, event: Value) -> Value {
        self.api.invoke(function, event).await.expect("the function answers")
    }

    /// Gives an event to a function of either kind.
    pub(crate) async fn deliver(&self, function: &str, event: Value) -> Result<Value, InvokeError> {
        self.api.deliver(function, event).await
    }

    /// Runs SQL in its database.
    pub(crate) async fn sql(&self, statements: &str) {
        sql(&self.database, statements).await;
    }

    /// The first column of the one row that a query yields, as text.
    pub(crate) async fn fetch(&self, query: &str) -> String {
        let (client, connection) = tokio_postgres::connect(&self.database, NoTls).await.expect("PostgreSQL answers");
        let driver = tokio::spawn(connection);
        let row = client.query_one(&format!("select ({query})::text"), &[]).await.expect(query);
        let value = row.try_get::<_, Option<String>>(0).expect("a text").unwrap_or_else(|| "null".to_owned());
        drop(client);
        let _ = driver.await;
        value
    }

    /// How far stored values are from what they are made of; must be nought after anything.
    pub(crate) async fn drift(&self) -> i64 {
        let answer = self.invoke("refresh-analytics", json!({"mode": "reconcile"})).await;
        answer["drift"].as_i64().expect("a number")
    }

    /// Creates a published course of so many sections in each of its lessons.
    pub(crate) async fn course(&self, owner: &str, lessons: &[usize]) -> Course {
        let body = course_body("A course", lessons, true);
        let answer = self.teacher(owner).create(&body).await.expect(StatusCode::CREATED);
        Course::of(&answer)
    }
}

/// One key pair for all tests, because making one takes a while; and what a file of it holds, for other processes.
pub(crate) fn key() -> &'static (SigningKey, String) {
    static KEY: OnceLock<(SigningKey, String)> = OnceLock::new();
    KEY.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("lectern-key-{}.pem", Uuid::now_v7()));
        let key = SigningKey::load_or_generate(&file).expect("a key");
        let pem = std::fs::read_to_string(&file).expect("the key's file");
        std::fs::remove_file(&file).expect("the key's file");
        (key, pem)
    })
}

/// Somebody who sends requests.
pub(crate) struct Caller<'a> {
    lectern: &'a Lectern,
    token: Option<String>,
}

impl Caller<'_> {
    /// A request to be completed.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.lectern.http.request(method, format!("{}{path}", self.lectern.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// `PUT` without a body.
    pub(crate) async fn put(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::PUT, path)).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// `PATCH` of a version.
    pub(crate) async fn patch(&self, path: &str, version: i64, body: &Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).header("if-match", format!("\"v{version}\"")).json(body)).await
    }

    /// `POST /courses` with a new key.
    pub(crate) async fn create(&self, body: &Value) -> Answer {
        self.create_with_key(&Uuid::now_v7().to_string(), body).await
    }

    /// `POST /courses` with a key.
    pub(crate) async fn create_with_key(&self, key: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, "/courses").header("idempotency-key", key).json(body)).await
    }

    /// Enrols.
    pub(crate) async fn enrol(&self, course: &Course) -> Answer {
        self.put(&format!("/courses/{}/enrollment", course.id)).await
    }

    /// Records events.
    pub(crate) async fn record(&self, events: &[Value]) -> Answer {
        self.post("/progress", &json!({ "events": events })).await
    }

    /// The summary of a course.
    pub(crate) async fn summary(&self, course: &Course) -> Value {
        self.get(&format!("/courses/{}/progress", course.id)).await.expect(StatusCode::OK)
    }
}

/// An answer that has not been looked at: holding it against the contract takes processor time, which a crowd of requests
/// would take from those that are still to be answered.
pub(crate) struct Received {
    sent: Sent,
    /// The status.
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Received {
    /// Sends a request.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let sent = Sent::of(&request);
        let response = client.execute(request).await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        Self { sent, status, headers, body: response.bytes().await.expect("a body").into() }
    }

    /// The answer, once it has been held against the contract.
    pub(crate) fn checked(self) -> Answer {
        let Self { sent, status, headers, body } = self;
        let outcome = contract().check(&sent, status, &headers, &body);
        let answer = Answer { status, headers, text: String::from_utf8_lossy(&body).into_owned(), outcome };
        if status.is_client_error() || status.is_server_error() {
            answer.is_discreet();
        }
        answer
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) text: String,
    /// What of the contract it is; nothing where there is no such route.
    pub(crate) outcome: Option<Outcome>,
}

impl Answer {
    /// Sends a request.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Received::of(request).await.checked()
    }

    /// A refusal tells nothing of our insides: no SQL, no path, no stack, no name of a library.
    #[track_caller]
    fn is_discreet(&self) {
        let text = self.text.to_lowercase();
        for inside in [
            "select ",
            "insert ",
            "update ",
            "postgres",
            "sqlstate",
            "constraint",
            "relation",
            "duplicate key",
            "redis",
            "dynamo",
            ".rs",
            "/root",
            "/tmp",
            "/home",
            "/work",
            "/var",
            "src/",
            "panick",
            "backtrace",
            "thread",
            "tokio",
            "serde",
            "unwrap",
            "::",
        ] {
            assert!(!text.contains(inside), "{inside:?} in {}", self.text);
        }
    }

    /// The body as JSON, after a look at the status.
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).expect("JSON") }
    }

    /// The body of a problem, after a look at its form.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body: Value = serde_json::from_str(&self.text).expect("JSON");
        assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)), "{body}");
        for key in ["type", "title", "detail", "requestId", "errors"] {
            assert!(!body[key].is_null(), "{key} is missing: {body}");
        }
        body
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The ids of a course.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    /// Its id.
    pub(crate) id: String,
    /// Its version when it was made.
    pub(crate) version: i64,
    /// Its lessons.
    pub(crate) lessons: Vec<String>,
    /// Its sections, in course order.
    pub(crate) sections: Vec<String>,
}

impl Course {
    /// Reads an outline.
    pub(crate) fn of(outline: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("an id").to_owned();
        let lessons = outline["lessons"].as_array().expect("lessons");
        let sections = lessons.iter().flat_map(|lesson| lesson["sections"].as_array().expect("sections"));
        Self {
            id: text(&outline["id"]),
            version: outline["version"].as_i64().expect("a version"),
            lessons: lessons.iter().map(|lesson| text(&lesson["id"])).collect(),
            sections: sections.map(|section| text(&section["id"])).collect(),
        }
    }
}

/// A body for `POST /courses`.
pub(crate) fn course_body(title: &str, lessons: &[usize], is_published: bool) -> Value {
    let section = |order: usize| json!({"title": format!("Section {order}"), "content": format!("Content {order}"), "type": "text", "order": order});
    let lesson = |(index, sections): (usize, &usize)| {
        let sections: Vec<Value> = (1..=*sections).map(section).collect();
        json!({"title": format!("Lesson {}", index + 1), "order": index + 1, "sections": sections})
    };
    json!({
        "courseData": {"title": title, "description": "About it", "difficulty": "beginner", "isPublished": is_published},
        "lessons": lessons.iter().enumerate().map(lesson).collect::<Vec<Value>>(),
    })
}

/// Says something past the harness, which keeps what tests print.
pub(crate) fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").expect("somebody reads it");
}

/// An event without a time of its own.
pub(crate) fn event(section: &str, time_spent: u32, completed: bool) -> Value {
    json!({"eventId": Uuid::now_v7(), "sectionId": section, "timeSpent": time_spent, "completed": completed})
}

/// The moment so many seconds ago, as clients write it.
pub(crate) fn seconds_ago(seconds: i64) -> String {
    // Whole seconds, which come back as they were sent: answers leave out the noughts at the end of a fraction.
    (Utc::now() - chrono::TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
