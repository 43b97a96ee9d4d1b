//! The proxy does what each fault says, and nothing else.

use std::{io::ErrorKind, time::Instant};

use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::support::{address_of, at_address, empty_database, sql};

const SILENCE: Duration = Duration::from_millis(100);

/// A server that says again what it is told, and how many connections and bytes it has seen.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let ears = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ears = ears.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    ears.fetch_add(count, Ordering::SeqCst);
                    stream.write_all(&buffer[..count]).await.unwrap();
                }
            });
        }
    });
    (address, heard)
}

async fn echo_proxy() -> (Proxy, Arc<AtomicUsize>) {
    let (address, heard) = echo().await;
    (Proxy::start(address, Protocol::Other).await, heard)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// What comes back, `None` for nothing.
async fn say(stream: &mut TcpStream, word: &str) -> Option<std::io::Result<String>> {
    let mut buffer = [0; 1024];
    if let Err(error) = stream.write_all(word.as_bytes()).await {
        return Some(Err(error));
    }
    let read = timeout(SILENCE, stream.read(&mut buffer)).await.ok()?;
    Some(read.map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned()))
}

#[tokio::test]
async fn what_is_passed_arrives_and_the_end_of_one_side_is_the_end_of_the_other() {
    let (proxy, heard) = echo_proxy().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(say(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(SILENCE, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert_eq!((heard.load(Ordering::SeqCst), proxy.bites()), (5, 0));
}

#[tokio::test]
async fn a_delay_holds_up_each_direction() {
    let (proxy, _) = echo_proxy().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Fault::Delay(Duration::from_millis(40)));
    let started = Instant::now();
    assert_eq!(say(&mut stream, "hello").await.unwrap().unwrap(), "hello");
    assert!(started.elapsed() >= Duration::from_millis(80), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_reset_ends_open_connections_and_new_ones() {
    let (proxy, heard) = echo_proxy().await;
    let mut open = connect(&proxy).await;
    say(&mut open, "hello").await.unwrap().unwrap();
    proxy.set(Fault::Reset);
    let error = timeout(SILENCE, open.read(&mut [0; 8])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(say(&mut connect(&proxy).await, "hello").await.unwrap().is_err());
    proxy.set(Fault::Pass);
    let mut open = connect(&proxy).await;
    say(&mut open, "hello").await.unwrap().unwrap();
    proxy.reset_all();
    assert!(timeout(SILENCE, open.read(&mut [0; 8])).await.unwrap().is_err());
    say(&mut connect(&proxy).await, "hello").await.unwrap().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 15);
}

#[tokio::test]
async fn who_is_refused_finds_nobody_listening_and_later_somebody_at_the_same_place() {
    let (proxy, _) = echo_proxy().await;
    let mut open = connect(&proxy).await;
    say(&mut open, "hello").await.unwrap().unwrap();
    proxy.set(Fault::Refuse);
    assert!(timeout(SILENCE, open.read(&mut [0; 8])).await.unwrap().is_err());
    while proxy.bites() < 2 {
        tokio::task::yield_now().await;
    }
    let error = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    proxy.set(Fault::Pass);
    let mut again = TcpStream::connect(proxy.address()).await;
    while again.is_err() {
        tokio::task::yield_now().await;
        again = TcpStream::connect(proxy.address()).await;
    }
    assert_eq!(say(&mut again.unwrap(), "hello").await.unwrap().unwrap(), "hello");
}

#[tokio::test]
async fn a_black_hole_swallows_everything_for_good_and_a_mute_connection_only_the_answers() {
    for (fault, understood) in [(Fault::BlackHole, 5), (Fault::Mute, 10)] {
        let (proxy, heard) = echo_proxy().await;
        let mut open = connect(&proxy).await;
        say(&mut open, "hello").await.unwrap().unwrap();
        proxy.set(fault);
        assert!(say(&mut open, "again").await.is_none());
        assert_eq!(heard.load(Ordering::SeqCst), understood, "{fault:?}");
        proxy.set(Fault::Pass);
        assert!(say(&mut open, "hello").await.is_none(), "what was swallowed is missing for ever");
        assert_eq!(say(&mut connect(&proxy).await, "hello").await.unwrap().unwrap(), "hello");
        assert_eq!(proxy.bites(), 1);
    }
}

#[tokio::test]
async fn a_fault_can_be_that_of_some_connections_or_of_some_requests() {
    let (proxy, _) = echo_proxy().await;
    proxy.set(Fault::BlackHole.to_every(2));
    let mut fates = Vec::new();
    for _ in 0..4 {
        fates.push(say(&mut connect(&proxy).await, "hello").await.is_some());
    }
    assert_eq!(fates, [false, true, false, true]);
    proxy.set(Fault::BlackHole.only_to("poison"));
    let mut stream = connect(&proxy).await;
    assert!(say(&mut stream, "hello").await.is_some());
    assert!(say(&mut stream, "some poison").await.is_none());
}

#[tokio::test]
async fn new_connections_can_be_led_elsewhere() {
    let (proxy, heard) = echo_proxy().await;
    let (other, heard_there) = echo().await;
    proxy.lead_to(other);
    say(&mut connect(&proxy).await, "hello").await.unwrap().unwrap();
    assert_eq!((heard.load(Ordering::SeqCst), heard_there.load(Ordering::SeqCst)), (0, 5));
}

async fn connect_postgres(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn an_answer_of_postgresql_is_cut_when_everything_is_committed_and_not_before() {
    let url = empty_database().await;
    sql(&url, "create table kept (value integer)").await;
    let proxy = Proxy::start(address_of(&url), Protocol::Postgres).await;
    let through = at_address(&url, proxy.address());
    proxy.set(Fault::CutAnswer);
    let client = connect_postgres(&through).await.expect("a start-up is no answer");
    let error = client.query_typed("insert into kept values (1)", &[]).await.unwrap_err();
    assert!(error.is_closed() || error.as_db_error().is_none(), "{error}");
    let count = async || {
        let row = connect_postgres(&url).await.unwrap().query_one("select count(*) from kept", &[]).await.unwrap();
        row.try_get::<_, i64>(0).unwrap()
    };
    assert_eq!(count().await, 1);
    // Within a transaction everything is answered but its end.
    let client = connect_postgres(&through).await.unwrap();
    client.batch_execute("begin").await.unwrap();
    client.query_typed("insert into kept values (2)", &[]).await.unwrap();
    assert_eq!(count().await, 1);
    client.batch_execute("commit").await.unwrap_err();
    assert_eq!((count().await, proxy.bites()), (2, 2));
    proxy.set(Fault::Pass);
    let client = connect_postgres(&through).await.unwrap();
    client.query_typed("insert into kept values (3)", &[]).await.unwrap();
}

#[tokio::test]
async fn a_statement_of_postgresql_is_executed_on_a_mute_connection() {
    let url = empty_database().await;
    sql(&url, "create table kept (value integer)").await;
    let proxy = Proxy::start(address_of(&url), Protocol::Postgres).await;
    proxy.set(Fault::Mute);
    let client = connect_postgres(&at_address(&url, proxy.address())).await.expect("a start-up is no answer");
    assert!(timeout(SILENCE, client.batch_execute("insert into kept values (1)")).await.is_err());
    let row = connect_postgres(&url).await.unwrap().query_one("select count(*) from kept", &[]).await.unwrap();
    assert_eq!(row.try_get::<_, i64>(0).unwrap(), 1);
}

/// A table of `DynamoDB` behind a proxy, and one submission for it.
async fn table() -> (Proxy, [shared::parking::Parking; 2], shared::parking::Submission) {
    use shared::parking::{Parking, Submission};
    let settings = crate::support::parking().await;
    let url = settings.endpoint.clone().unwrap();
    let proxy = Proxy::start(address_of(&url), Protocol::Http).await;
    let through = shared::config::Parking { endpoint: Some(at_address(&url, proxy.address())), ..settings.clone() };
    let submission = Submission::new("alice", chrono::Utc::now(), b"body".to_vec());
    (proxy, [Parking::new(through), Parking::new(settings)], submission)
}

#[tokio::test]
async fn dynamodb_answers_with_errors_without_having_been_asked() {
    let (proxy, [through, past], submission) = table().await;
    through.put(&submission).await.unwrap();
    proxy.set(Fault::ServerError);
    let other = shared::parking::Submission::new("bob", chrono::Utc::now(), vec![]);
    through.put(&other).await.unwrap_err();
    assert!(proxy.bites() >= 2, "the client has tried again");
    proxy.set(Fault::Pass);
    assert!(through.find(submission.id, chrono::Utc::now()).await.unwrap().is_some());
    assert!(past.find(other.id, chrono::Utc::now()).await.unwrap().is_none());
}

#[tokio::test]
async fn dynamodb_has_done_what_its_cut_answer_would_have_told() {
    let (proxy, [through, past], submission) = table().await;
    proxy.set(Fault::CutAnswer);
    through.put(&submission).await.unwrap_err();
    assert!(proxy.bites() > 0);
    assert!(past.find(submission.id, chrono::Utc::now()).await.unwrap().is_some());
}

#[tokio::test]
async fn one_operation_of_dynamodb_can_be_silenced_alone() {
    let (proxy, [through, past], submission) = table().await;
    proxy.set(Fault::BlackHole.only_to("DynamoDB_20120810.TransactWriteItems"));
    through.put(&submission).await.unwrap();
    let now = chrono::Utc::now();
    let (outcome, keep) = (shared::parking::Outcome::Applied, chrono::TimeDelta::days(1));
    let end = shared::parking::End { outcome, results: b"[]", keep, keeps_body: false };
    through.finish(&submission, &end, now).await.unwrap_err();
    assert!(proxy.bites() > 0);
    assert!(past.find(submission.id, now).await.unwrap().unwrap().ended.is_none());
}
