//! PostgreSQL behind TLS: one that refuses plain text, certificates that must not be trusted, and passwords that are
//! tokens of AWS, as RDS Proxy takes them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::StatusCode;
use serde_json::json;
use shared::{
    config::{Config, Iam, Postgres},
    migrations,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    certificates::Authority,
    log::Log,
    own_servers::OwnPostgres,
    signatures::{credentials, is_token},
    support::{Lectern, deadline, event, sql},
};

const OK: StatusCode = StatusCode::OK;
const REGION: &str = "eu-central-1";

/// The server's one that comes through TLS alone, in the role of its functions.
fn through_tls(own: &OwnPostgres, authority: &Authority) -> Postgres {
    let url = format!("postgres://functions:secret@{}/lectern?sslmode=verify-full", own.address());
    Postgres { ca_bundle: vec![authority.der()], ..Postgres::at(&url) }
}

async fn over(postgres: Postgres) -> Lectern {
    Lectern::start_with(|config| config.postgres = postgres).await
}

#[tokio::test]
async fn a_server_that_refuses_plain_text_is_spoken_to_through_tls_and_with_scram() {
    let authority = Authority::new();
    let mut own = OwnPostgres::start().await;
    own.encrypt(&authority.server("127.0.0.1")).await;
    let postgres = through_tls(&own, &authority);
    let lectern = over(postgres.clone()).await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(OK);
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 5);
    let connections = "select bool_and(pg_stat_ssl.ssl)
        from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'functions'";
    let mut control = over(Postgres::at(&own.url())).await;
    control.database = own.url();
    assert_eq!(control.fetch(connections).await, "true");

    let config = Config { postgres: postgres.clone(), ..Config::for_database("") };
    let done = migrations::apply(&config, migrations::ALL, deadline()).await.expect("migrate comes in, too");
    assert_eq!(done.applied, [""; 0]);

    let plain = postgres.url.replace("verify-full", "disable");
    over(Postgres { url: plain, ..postgres }).await.anyone().get("/courses").await.problem(503, "unavailable");
    own.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_the_right_one_is_away_and_the_log_says_why() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut own = OwnPostgres::start().await;
    own.encrypt(&authority.server("127.0.0.1")).await;
    let lectern = over(through_tls(&own, &authority)).await;
    let course = lectern.course("teacher", &[1]).await;
    lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
    for (identity, reason) in [
        (authority.server("db.example"), "not valid for name"),
        (stranger.server("127.0.0.1"), "UnknownIssuer"),
        (authority.former_server("127.0.0.1"), "expired"),
    ] {
        own.encrypt(&identity).await;
        let heard = Log::listen();
        let config = lectern.app().config.clone();
        let wary = Lectern::start_with(|fresh| {
            *fresh = Config { postgres: through_tls(&own, &authority), redis: None, ..config }
        })
        .await;
        wary.anyone().get("/courses").await.problem(503, "unavailable");
        wary.learner("alice").record(&[event(&course.sections[0], 7, false)]).await.expect(StatusCode::ACCEPTED);
        let log = heard.text();
        assert!(log.contains(reason) && !log.contains("secret"), "{reason}: {log}");
    }
    own.encrypt(&authority.server("127.0.0.1")).await;
    let config = lectern.app().config.clone();
    let back = Lectern::start_with(|fresh| *fresh = Config { postgres: through_tls(&own, &authority), ..config }).await;
    assert_eq!(back.invoke("replay-parked", json!({})).await["applied"], 3);
    assert_eq!(back.learner("alice").summary(&course).await["totalTimeSpent"], 21);
    own.stop().await;
}

#[tokio::test]
async fn by_iam_each_connection_brings_a_token_for_its_server_and_its_role() {
    let authority = Authority::new();
    let mut own = OwnPostgres::start().await;
    own.encrypt(&authority.server("127.0.0.1")).await;
    let proxy = RdsProxy::before(&own, authority.server("127.0.0.1").acceptor()).await;
    let by_iam = |user: &str, region: &str| Postgres {
        url: format!("postgres://{user}@127.0.0.1:{}/lectern?sslmode=verify-full", proxy.port),
        ca_bundle: vec![authority.der()],
        iam: Some(Iam { region: region.to_owned(), credentials: credentials() }),
        prepares: Some(false),
    };
    let lectern = over(by_iam("proxied", REGION)).await;
    lectern.course("teacher", &[1]).await;
    let entered = proxy.entered.load(Ordering::SeqCst);
    assert!(entered > 0);
    sql(&own.url(), "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'proxied'").await;
    lectern.anyone().get("/courses?sort=title").await.expect(OK);
    assert!(proxy.entered.load(Ordering::SeqCst) > entered);

    let heard = Log::listen();
    let stranger = over(by_iam("proxied", "us-east-1")).await;
    stranger.anyone().get("/courses").await.problem(503, "unavailable");
    let log = heard.text();
    assert!(log.contains("PAM authentication failed") && !log.contains("X-Amz"), "{log}");
    own.stop().await;
}

/// What of RDS Proxy a client sees: TLS, and a password that is a token. The role behind it needs none.
struct RdsProxy {
    port: u16,
    /// How many were let in.
    entered: Arc<AtomicUsize>,
}

impl RdsProxy {
    async fn before(own: &OwnPostgres, acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let entered = Arc::<AtomicUsize>::default();
        let (server, count) = (own.address(), entered.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), count.clone());
                tokio::spawn(async move {
                    // The request for TLS has eight bytes.
                    client.read_exact(&mut [0; 8]).await.unwrap();
                    client.write_all(b"S").await.unwrap();
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let startup = message(&mut client).await;
                    let user = parameter(&startup, "user");
                    // "Say your password", in clear.
                    client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.unwrap();
                    assert_eq!(client.read_u8().await.unwrap(), b'p');
                    let password = message(&mut client).await;
                    let token = String::from_utf8_lossy(&password[4..password.len() - 1]).into_owned();
                    if !is_token(&token, &format!("127.0.0.1:{port}"), &user, REGION) {
                        let refusal = b"SFATAL\0C28000\0MPAM authentication failed for user\0\0";
                        client.write_u8(b'E').await.unwrap();
                        client.write_u32(refusal.len() as u32 + 4).await.unwrap();
                        client.write_all(refusal).await.unwrap();
                        client.shutdown().await.unwrap();
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    let mut server = TcpStream::connect(server).await.unwrap();
                    server.write_all(&startup).await.unwrap();
                    // Ends with either.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, entered }
    }
}

/// A message behind its kind, its length included.
async fn message(client: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let length = client.read_u32().await.unwrap();
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    client.read_exact(&mut message[4..]).await.unwrap();
    message
}

/// A parameter of a client's first message: behind length and version, names and values that end in nought.
fn parameter(startup: &[u8], name: &str) -> String {
    let mut texts = startup[8..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    texts.find(|text| text == name).unwrap();
    texts.next().unwrap()
}
