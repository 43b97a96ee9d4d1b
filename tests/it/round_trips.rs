//! How often Lectern speaks to its servers, counted on the wire.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    editing::{put, tree_of},
    support::{Course, Lectern, course_body, event, unhurried},
};

const OK: StatusCode = StatusCode::OK;

/// A pipe to a server that counts what asks for an answer.
pub(crate) struct Tap {
    pub(crate) address: String,
    asked: Arc<AtomicUsize>,
}

impl Tap {
    pub(crate) async fn to(server: &str, counter: fn() -> Box<dyn Counter>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let (server, count) = (server.to_owned(), asked.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let counter = Arc::new(Mutex::new(counter()));
                let (count, asking) = (count.clone(), counter.clone());
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                        counter.lock().unwrap().answered(&buffer[..read]);
                        if to_client.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                        count.fetch_add(asking.lock().unwrap().asked(&buffer[..read]), Ordering::SeqCst);
                        to_server.write_all(&buffer[..read]).await.unwrap();
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn take(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

/// Counts requests in a stream that arrives in pieces.
pub(crate) trait Counter: Send {
    /// How many there are in what the client sends.
    fn asked(&mut self, bytes: &[u8]) -> usize;
    /// Sees what the server says to them.
    fn answered(&mut self, _: &[u8]) {}
}

/// Round trips: PostgreSQL answers at each `Sync` and each simple `Query`, and what is sent before it has answered travels
/// with what was sent before.
#[derive(Default)]
pub(crate) struct Flights {
    from_client: Messages,
    from_server: Messages,
    unanswered: usize,
}

impl Counter for Flights {
    fn asked(&mut self, bytes: &[u8]) -> usize {
        let mut count = 0;
        for kind in self.from_client.take(bytes, true) {
            if matches!(kind, b'S' | b'Q') {
                count += usize::from(self.unanswered == 0);
                self.unanswered += 1;
            }
        }
        count
    }

    fn answered(&mut self, bytes: &[u8]) {
        let ready = self.from_server.take(bytes, false).into_iter().filter(|kind| *kind == b'Z').count();
        // The first one follows the start-up, at which nothing was counted.
        self.unanswered = self.unanswered.saturating_sub(ready);
    }
}

/// Messages of PostgreSQL, of which pieces arrive.
#[derive(Default)]
struct Messages {
    pending: Vec<u8>,
    started: bool,
}

impl Messages {
    /// The types of those that are whole now. A client's first one, the start-up, has none.
    fn take(&mut self, bytes: &[u8], of_client: bool) -> Vec<u8> {
        self.pending.extend_from_slice(bytes);
        let mut kinds = Vec::new();
        loop {
            let head = usize::from(self.started || !of_client);
            let Some(length) = self.pending.get(head..head + 4) else { return kinds };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.pending.len() < head + length {
                return kinds;
            }
            kinds.extend(self.pending.first().filter(|_| head == 1));
            self.pending.drain(..head + length);
            self.started = true;
        }
    }
}

/// Redis answers each command, and a command is an array of bulk strings.
#[derive(Default)]
struct Commands {
    pending: Vec<u8>,
    strings_left: usize,
}

impl Commands {
    /// A line and where it ends, once it is there.
    fn line(&self) -> Option<(u8, usize, usize)> {
        let end = self.pending.windows(2).position(|pair| pair == b"\r\n")?;
        let number = std::str::from_utf8(&self.pending[1..end]).unwrap().parse().unwrap();
        Some((self.pending[0], number, end + 2))
    }
}

impl Counter for Commands {
    fn asked(&mut self, bytes: &[u8]) -> usize {
        self.pending.extend_from_slice(bytes);
        let mut count = 0;
        while let Some((kind, number, end)) = self.line() {
            let whole = if kind == b'$' { end + number + 2 } else { end };
            if self.pending.len() < whole {
                break;
            }
            match kind {
                b'*' => (count, self.strings_left) = (count + 1, number),
                _ => self.strings_left -= 1,
            }
            self.pending.drain(..whole);
        }
        count
    }
}

/// A Lectern whose both servers are tapped, warm.
struct Tapped {
    lectern: Lectern,
    postgres: Tap,
    redis: Tap,
}

impl Tapped {
    async fn start(cached: bool) -> Self {
        let plain = Lectern::start().await;
        let mut config = plain.app().config.clone();
        let postgres = Tap::to(address(&config.postgres.url), || Box::<Flights>::default()).await;
        let redis_url = config.redis.take().unwrap().url;
        let redis = Tap::to(address(&redis_url), || Box::<Commands>::default()).await;
        config.postgres.url = config.postgres.url.replace(address(&plain.database), &postgres.address);
        config.redis = cached.then(|| unhurried(&redis_url.replace(address(&redis_url), &redis.address)));
        config.database_connections = 1;
        let lectern = Lectern::start_with(|fresh| *fresh = config).await;
        // The first statement also opens the connections.
        lectern.anyone().get("/courses").await.expect(OK);
        let tapped = Self { lectern, postgres, redis };
        tapped.take();
        tapped
    }

    /// What has been asked of PostgreSQL and of Redis since the last look.
    fn take(&self) -> (usize, usize) {
        (self.postgres.take(), self.redis.take())
    }

    async fn course(&self) -> Course {
        let course = self.lectern.course("teacher", &[3, 2]).await;
        self.lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
        self.take();
        course
    }
}

/// Host and port of a URL.
pub(crate) fn address(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    rest.rsplit_once('@').map_or(rest, |(_, rest)| rest).split('/').next().unwrap()
}

#[tokio::test]
async fn every_uncached_read_is_one_round_trip() {
    let tapped = Tapped::start(false).await;
    let course = tapped.course().await;
    let (alice, teacher) = (tapped.lectern.learner("alice"), tapped.lectern.teacher("teacher"));
    for path in [
        "/courses".to_owned(),
        "/courses?sort=title&limit=1".to_owned(),
        "/me/courses".to_owned(),
        format!("/courses/{}", course.id),
        format!("/me/courses/{}", course.id),
        format!("/sections/{}", course.sections[0]),
        format!("/courses/{}/progress", course.id),
        format!("/lessons/{}/progress", course.lessons[0]),
    ] {
        alice.get(&path).await.expect(OK);
        assert_eq!(tapped.take(), (1, 0), "{path}");
    }
    let figures = format!("/courses/{}/analytics", course.id);
    for path in ["/me/authored-courses".to_owned(), format!("{figures}?detail=sections"), figures] {
        teacher.get(&path).await.expect(OK);
        assert_eq!(tapped.take(), (1, 0), "{path}");
    }
    alice.get("/courses?limit=0").await.problem(400, "invalid_parameter");
    assert_eq!(tapped.take(), (0, 0));
}

#[tokio::test]
async fn a_page_of_a_roster_is_one_round_trip_whoever_asks_and_whatever_is_on_it() {
    let tapped = Tapped::start(true).await;
    let course = tapped.course().await;
    let (alice, teacher) = (tapped.lectern.learner("alice"), tapped.lectern.teacher("teacher"));
    let admin = tapped.lectern.caller("root", &["admin"]);
    let path = format!("/courses/{}/enrollments", course.id);
    tapped.lectern.learner("bob").enrol(&course).await.expect(StatusCode::CREATED);
    let first = teacher.get(&format!("{path}?limit=1")).await.expect(OK);
    let second = format!("?limit=1&cursor={}", first["nextCursor"].as_str().unwrap());
    tapped.take();
    for query in ["", &second, "?status=active", "?status=cancelled", "?progress=0", "?progress=100&status=active"] {
        for caller in [&teacher, &admin] {
            caller.get(&format!("{path}{query}")).await.expect(OK);
            assert_eq!(tapped.take(), (1, 0), "{query}");
            let table = caller.request(reqwest::Method::GET, &format!("{path}{query}")).header("accept", "text/csv");
            assert_eq!(table.send().await.unwrap().status(), OK);
            assert_eq!(tapped.take(), (1, 0), "{query} as CSV");
        }
        alice.get(&format!("{path}{query}")).await.problem(403, "not_owner");
        assert_eq!(tapped.take(), (1, 0), "{query}");
    }
    let nowhere = format!("/courses/{}/enrollments", uuid::Uuid::now_v7());
    admin.get(&nowhere).await.problem(404, "course_not_found");
    assert_eq!(tapped.take(), (1, 0));
    for bad in ["progress=7", "status=7", "limit=0", "cursor=7"] {
        let problem = teacher.get(&format!("{path}?{bad}")).await;
        assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{bad}");
        assert_eq!(tapped.take(), (0, 0), "{bad}");
    }
}

#[tokio::test]
async fn a_cached_read_is_one_round_trip_to_redis_and_no_statement() {
    let tapped = Tapped::start(true).await;
    let course = tapped.course().await;
    let alice = tapped.lectern.learner("alice");
    for path in ["/courses".to_owned(), format!("/courses/{}", course.id), format!("/courses/{}/progress", course.id)] {
        alice.get(&path).await.expect(OK);
        let (statements, _) = tapped.take();
        assert_eq!(statements, 1, "{path}");
        let hit = alice.get(&path).await;
        assert_eq!(hit.header("x-cache"), "hit");
        assert_eq!(tapped.take(), (0, 1), "{path}");
        let known = alice.request(reqwest::Method::GET, &path).header("if-none-match", hit.header("etag"));
        assert_eq!(known.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(tapped.take(), (0, 1), "{path}: 304");
    }
}

#[tokio::test]
async fn recording_a_batch_of_any_size_is_one_round_trip() {
    let tapped = Tapped::start(false).await;
    let course = tapped.course().await;
    let alice = tapped.lectern.learner("alice");
    for size in [1, 10, 100, 500] {
        let events: Vec<Value> = (0..size).map(|index| event(&course.sections[index % 5], 1, index % 2 == 0)).collect();
        assert_eq!(alice.record(&events).await.expect(OK)["recorded"], size);
        assert_eq!(tapped.take(), (1, 0), "{size} events");
        assert_eq!(alice.record(&events).await.expect(OK)["duplicates"], size);
        assert_eq!(tapped.take(), (1, 0), "{size} duplicates");
    }
}

#[tokio::test]
async fn a_write_asks_redis_once_whether_there_is_room_for_it_and_tells_it_once() {
    let tapped = Tapped::start(true).await;
    let course = tapped.course().await;
    let alice = tapped.lectern.learner("alice");
    alice.record(&[event(&course.sections[0], 1, true)]).await.expect(OK);
    assert_eq!(tapped.take(), (1, 2));
    alice.post("/progress", &json!({})).await.problem(400, "invalid_body");
    assert_eq!(tapped.take(), (0, 1));
}

#[tokio::test]
async fn creating_a_large_course_takes_at_most_two_round_trips() {
    let tapped = Tapped::start(false).await;
    let body = course_body("Large", &[20; 50], true);
    let teacher = tapped.lectern.teacher("teacher");
    teacher.create_with_key("key", &body).await.expect(StatusCode::CREATED);
    assert_eq!(tapped.take(), (1, 0));
    teacher.create_with_key("key", &body).await.expect(StatusCode::CREATED);
    assert_eq!(tapped.take(), (2, 0));
}

#[tokio::test]
async fn the_other_writes_are_one_round_trip_each() {
    let tapped = Tapped::start(false).await;
    let course = tapped.course().await;
    let (alice, teacher) = (tapped.lectern.learner("alice"), tapped.lectern.teacher("teacher"));
    let path = format!("/courses/{}", course.id);
    alice.enrol(&course).await.expect(OK);
    assert_eq!(tapped.take(), (1, 0));
    alice.delete(&format!("{path}/progress")).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(tapped.take(), (1, 0));
    alice.delete(&format!("{path}/enrollment")).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(tapped.take(), (1, 0));
    let rows: Vec<Value> = (0..500).map(|index| json!({"userId": format!("user-{index}")})).collect();
    tapped.lectern.service().post(&format!("{path}/enrollments"), &json!({ "enrollments": rows })).await.expect(OK);
    assert_eq!(tapped.take(), (1, 0));
    teacher.patch(&path, 1, &json!({"title": "Renamed"})).await.expect(OK);
    assert_eq!(tapped.take(), (1, 0));
    teacher.delete(&path).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(tapped.take(), (1, 0));
}

#[tokio::test]
async fn an_edit_takes_as_many_round_trips_in_a_large_course_as_in_a_small_one() {
    let tapped = Tapped::start(false).await;
    let teacher = tapped.lectern.teacher("teacher");
    for lessons in [vec![2], vec![40; 25]] {
        let course = tapped.lectern.course("teacher", &lessons).await;
        let path = format!("/courses/{}", course.id);
        let mut tree = tree_of(&teacher.get(&path).await.expect(OK));
        tree["lessons"][0]["sections"][1]["content"] = "Corrected".into();
        tapped.take();
        // begin, lock, both kinds of what it has, the content, the version, commit
        put(&teacher, &course.id, 1, &tree).await.expect(OK);
        assert_eq!(tapped.take(), (7, 0));
        put(&teacher, &course.id, 1, &tree).await.problem(412, "stale_version");
        // begin, lock, what was changed, rollback
        assert_eq!(tapped.take(), (4, 0));
    }
}
