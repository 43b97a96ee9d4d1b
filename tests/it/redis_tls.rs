//! Redis behind TLS: a certificate of an authority that is trusted, of one that is not, and of another server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::StatusCode;
use shared::config::Redis;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    certificates::Authority,
    support::{Course, Lectern, unhurried},
};

const OK: StatusCode = StatusCode::OK;

/// An end of TLS before a Redis.
struct Front {
    port: u16,
    /// How many came, and how many of them were content with whom they met.
    came: Arc<AtomicUsize>,
    entered: Arc<AtomicUsize>,
}

impl Front {
    /// In front of `host:port`.
    async fn before(server: &str, acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let front = Self { port, came: Arc::default(), entered: Arc::default() };
        let (server, came, entered) = (server.to_owned(), front.came.clone(), front.entered.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                let (server, acceptor, entered) = (server.clone(), acceptor.clone(), entered.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    entered.fetch_add(1, Ordering::SeqCst);
                    let mut server = TcpStream::connect(server).await.unwrap();
                    // Ends with either.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        front
    }
}

/// A Lectern with a course, and where its Redis is: what stands before host and port in the URL, these, and the rest.
async fn plain() -> (Lectern, Course, [String; 3]) {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let url = lectern.app().config.redis.clone().unwrap().url;
    let (credentials, rest) = url.strip_prefix("redis://").unwrap().split_once('@').unwrap();
    let (server, number) = rest.split_once('/').unwrap();
    let parts = [credentials, server, number].map(str::to_owned);
    (lectern, course, parts)
}

/// Reads twice through a server of this name that shows this certificate: from where the second answer came, and what
/// the server saw.
async fn read_through(acceptor: TlsAcceptor, ca_bundle: Option<String>) -> (String, usize, usize) {
    let (lectern, course, [credentials, server, number]) = plain().await;
    let front = Front::before(&server, acceptor).await;
    let secure = Lectern::start_with(|config| {
        *config = lectern.app().config.clone();
        let url = format!("rediss://{credentials}@127.0.0.1:{}/{number}", front.port);
        config.redis = Some(Redis { ca_bundle: ca_bundle.map(String::into_bytes), ..unhurried(&url) });
    })
    .await;
    let path = format!("/courses/{}", course.id);
    let (expected, _) = (lectern.anyone().get(&path).await, secure.anyone().get(&path).await);
    let answer = secure.anyone().get(&path).await;
    assert_eq!((answer.status, &answer.text, answer.header("etag")), (OK, &expected.text, expected.header("etag")));
    let counts = [&front.came, &front.entered].map(|count| count.load(Ordering::SeqCst));
    (answer.header("x-cache").to_owned(), counts[0], counts[1])
}

#[tokio::test]
async fn a_certificate_of_any_authority_in_the_bundle_is_trusted() {
    let (authority, another) = (Authority::new(), Authority::new());
    let bundle = format!("{}{}", another.pem(), authority.pem());
    let (source, _, entered) = read_through(authority.server("127.0.0.1").acceptor(), Some(bundle)).await;
    assert_eq!((source.as_str(), entered), ("hit", 1));
}

#[tokio::test]
async fn a_certificate_of_an_authority_outside_the_bundle_is_refused() {
    let authority = Authority::new();
    for bundle in [None, Some(Authority::new().pem())] {
        let (source, came, entered) = read_through(authority.server("127.0.0.1").acceptor(), bundle).await;
        assert_eq!((source.as_str(), entered), ("bypass", 0));
        assert!(came > 0);
    }
}

#[tokio::test]
async fn a_certificate_of_another_server_is_refused() {
    let authority = Authority::new();
    let bundle = authority.pem();
    let (source, came, entered) = read_through(authority.server("cache.example").acceptor(), Some(bundle)).await;
    assert_eq!((source.as_str(), entered), ("bypass", 0));
    assert!(came > 0);
}
