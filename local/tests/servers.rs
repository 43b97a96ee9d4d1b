//! The private servers: who gets in, and what they are set to. They are found on this machine or fetched.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};

use local::services::Home;
use local::services::postgres::{Postgres, Profile};
use local::services::redis::{Program, Redis};
use tokio_postgres::NoTls;

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("lectern-servers-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    async fn home(&self) -> Home {
        Home::prepare(&self.0).await.expect("a home")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn with_another_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("//").expect("a URL");
    let (credentials, server) = rest.split_once('@').expect("credentials");
    let (user, _) = credentials.split_once(':').expect("a password");
    format!("{scheme}//{user}:guess@{server}")
}

async fn setting(client: &tokio_postgres::Client, name: &str) -> String {
    let row = client.query_one("select current_setting($1)", &[&name]).await.expect("a setting");
    row.try_get(0).expect("text")
}

#[tokio::test]
async fn postgresql_lets_in_whoever_has_the_password_and_keeps_a_cluster_over_a_restart() {
    let scratch = Scratch::new();
    let home = scratch.home().await;
    let postgres = Postgres::start(&home, Profile::Throwaway).await.expect("it starts");
    postgres.ensure_database("lectern").await.expect("made");
    postgres.ensure_database("lectern").await.expect("there already");
    let url = postgres.url("lectern");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("the password is right");
    tokio::spawn(connection);
    for (name, value) in [
        ("fsync", "off"),
        ("max_connections", "400"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ] {
        assert_eq!(setting(&client, name).await, value, "{name}");
    }
    client.batch_execute("create table kept (value integer); insert into kept values (7)").await.expect("written");
    assert!(tokio_postgres::connect(&with_another_password(&url), NoTls).await.is_err());
    postgres.stop().await.expect("it stops");

    let postgres = Postgres::start(&home, Profile::Durable).await.expect("it starts again");
    let (client, connection) =
        tokio_postgres::connect(&postgres.url("lectern"), NoTls).await.expect("the same password");
    tokio::spawn(connection);
    let row = client.query_one("select value from kept", &[]).await.expect("the data");
    assert_eq!(row.try_get::<_, i32>(0).expect("a number"), 7);
    for (name, value) in [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")] {
        assert_eq!(setting(&client, name).await, value, "{name}");
    }
    postgres.stop().await.expect("it stops");
}

#[tokio::test]
async fn redis_lets_in_whoever_has_the_password_and_keeps_nothing() {
    let scratch = Scratch::new();
    let home = scratch.home().await;
    let program = match std::env::var_os("LECTERN_TEST_REDIS_SERVER") {
        Some(path) => Program::at(Path::new(&path)),
        None => Program::find_or_fetch(&home).await.expect("found or fetched"),
    };
    let server = Redis::start(&home, &program, 10_000).await.expect("it starts");
    let url = server.url();
    let client = redis::Client::open(format!("{url}/9999")).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("the password is right");
    let saved: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("save").query_async(&mut connection).await.expect("a setting");
    assert_eq!(saved, ["save", ""]);
    let strangers = redis::Client::open(with_another_password(&url)).expect("a URL");
    assert!(strangers.get_multiplexed_async_connection().await.is_err());
    server.stop().await.expect("it stops");
    assert!(client.get_multiplexed_async_connection().await.is_err());
}
