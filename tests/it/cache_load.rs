//! The cache under many readers at once, and with a Redis that dies, hangs, forgets, lies, loads or is full.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use chrono::Utc;
use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, cmd};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::config::Redis;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    redis_servers,
    round_trips::{Flights, Tap, address},
    support::{Answer, Course, Lectern, Received, course_body, environment, event},
};

/// For a moment in which Redis, which the machine has much else to do beside, is quick enough for our time limits.
const CALM_COMES: Duration = Duration::from_secs(240);
/// What a write waits at the least for a Redis that does not answer.
const TELLING_LIMIT: Duration = Duration::from_millis(50);
const OK: StatusCode = StatusCode::OK;
/// A whole lecture hall.
const READERS: usize = 200;
/// For what happens by itself; a Redis that was left alone is tried again after five seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(20);

async fn ask<T: FromRedisValue>(url: &str, command: &Cmd) -> T {
    let mut connection = redis_servers::connect(url).await;
    command.query_async(&mut connection).await.unwrap()
}

fn redis_url(lectern: &Lectern) -> String {
    lectern.app().config.redis.clone().unwrap().url
}

// ---- Many readers ---------------------------------------------------------------------------------------------------

/// Two environments that speak to PostgreSQL through one tap, warm.
struct Tapped {
    environments: [Lectern; 2],
    /// Past the tap.
    database: String,
    postgres: Tap,
    course: Course,
}

impl Tapped {
    async fn start() -> Self {
        let plain = Lectern::start().await;
        let course = plain.course("teacher", &[3, 2]).await;
        let postgres = Tap::to(address(&plain.database), || Box::<Flights>::default()).await;
        let config = plain.app().config.clone();
        let first = Lectern::start_with(|fresh| {
            *fresh = config;
            fresh.postgres.url = plain.database.replace(address(&plain.database), &postgres.address);
        })
        .await;
        let second = first.another().await;
        let tapped = Self { environments: [first, second], database: plain.database, postgres, course };
        // Connections to both servers are open before anybody counts.
        for environment in &tapped.environments {
            let alice = environment.learner("alice");
            join_all((0..8).map(|_| alice.get("/me/courses"))).await;
            environment.anyone().get("/courses?limit=99").await.expect(OK);
        }
        tapped.postgres.take();
        tapped
    }

    fn paths(&self) -> [String; 2] {
        [format!("/courses/{}", self.course.id), "/courses".to_owned()]
    }

    /// So many readers at once, half of them in each environment.
    async fn crowd(&self, path: &str, readers: usize) -> Vec<Answer> {
        let [first, second] = [self.environments[0].anyone(), self.environments[1].anyone()];
        let reader = |number: usize| {
            let caller = if number.is_multiple_of(2) { &first } else { &second };
            Received::of(caller.request(Method::GET, path))
        };
        join_all((0..readers).map(reader)).await.into_iter().map(Received::checked).collect()
    }

    /// Makes every entry one that has just passed its time.
    async fn age(&self) {
        let url = redis_url(&self.environments[0]);
        let entries = entries(&url).await;
        assert!(!entries.is_empty());
        for (key, mut envelope, rest) in entries {
            assert!(envelope["until"].is_u64(), "{envelope}");
            envelope["until"] = 1.into();
            let old = [envelope.to_string().into_bytes(), rest].concat();
            ask::<()>(&url, cmd("SET").arg(&key).arg(old).arg("KEEPTTL")).await;
        }
    }
}

/// What is kept: the key of each entry, its first line, and the rest.
async fn entries(url: &str) -> Vec<(String, Value, Vec<u8>)> {
    let mut entries = Vec::new();
    for key in ask::<Vec<String>>(url, cmd("KEYS").arg("*")).await {
        let mut entry: Vec<u8> = ask(url, cmd("GET").arg(&key)).await;
        // Generations have no lines.
        let Some(end) = entry.iter().position(|byte| *byte == b'\n') else { continue };
        let rest = entry.split_off(end);
        entries.push((key, serde_json::from_slice(&entry).unwrap(), rest));
    }
    entries
}

/// How many of the answers say this of the cache; all are of the same bytes.
#[track_caller]
fn counted<const N: usize>(answers: &[Answer], sources: [&str; N]) -> [usize; N] {
    let tag = answers[0].header("etag");
    for answer in answers {
        answer.expect(OK);
        assert_eq!((&answer.text, answer.header("etag")), (&answers[0].text, tag));
    }
    sources.map(|source| answers.iter().filter(|answer| answer.header("x-cache") == source).count())
}

#[tokio::test]
async fn a_copy_is_fresh_for_as_long_as_it_should_be_and_kept_for_a_day() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let url = redis_url(&lectern);
    let detail = format!("/courses/{}", course.id);
    for (path, seconds) in [("/courses", 300), (&detail, 600), (&format!("{detail}/progress"), 60)] {
        alice.get(path).await.expect(OK);
        let now = Utc::now().timestamp_millis();
        let entries = entries(&url).await;
        let [(key, envelope, _)] = entries.as_slice() else { panic!("{path}: {entries:?}") };
        let fresh = (envelope["until"].as_i64().unwrap() - now) as f64 / 1e3;
        let kept: i64 = ask(&url, cmd("TTL").arg(key)).await;
        // Up to a tenth is taken off by lot; the test itself takes a while.
        let most = f64::from(seconds);
        assert!((0.9 * most - 5.0..=most).contains(&fresh), "{path}: {fresh}");
        assert!((86_390..=86_400).contains(&kept), "{path}: {kept}");
        ask::<()>(&url, &cmd("FLUSHDB")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_a_cold_key_costs_postgres_a_handful_of_statements() {
    let tapped = Tapped::start().await;
    for path in tapped.paths() {
        let answers = tapped.crowd(&path, READERS).await;
        let statements = tapped.postgres.take();
        let [hits, misses] = counted(&answers, ["hit", "miss"]);
        assert!((1..=5).contains(&statements), "{path}: {statements} statements, {hits} hits, {misses} misses");
        assert_eq!(hits + misses, READERS, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_an_entry_past_its_time_sends_one_of_them_to_postgres() {
    let tapped = Tapped::start().await;
    for path in tapped.paths() {
        let before = tapped.crowd(&path, 1).await;
        tapped.age().await;
        tapped.postgres.take();
        let mut answers = tapped.crowd(&path, READERS).await;
        let statements = tapped.postgres.take();
        let [hits, misses, stale] = counted(&answers, ["hit", "miss", "stale"]);
        assert!((1..=2).contains(&statements), "{path}: {statements} statements, {hits} hits, {stale} stale");
        assert!((1..=2).contains(&misses), "{path}: {hits} hits, {misses} misses, {stale} stale");
        assert_eq!(hits + misses + stale, READERS, "{path}");
        answers.extend(before);
        counted(&answers, []);
        assert_eq!(tapped.crowd(&path, 1).await[0].header("x-cache"), "hit", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_fetches_an_entry_anew_nobody_waits() {
    let tapped = Tapped::start().await;
    for path in tapped.paths() {
        tapped.crowd(&path, 1).await;
        tapped.age().await;
        let (client, connection) = tokio_postgres::connect(&tapped.database, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        tapped.postgres.take();
        // Whoever loads gets no further than this.
        client.batch_execute("begin; lock table courses in access exclusive mode").await.unwrap();
        let others_are_done = Notify::new();
        let loader = async {
            let answer = tapped.environments[0].anyone().get(&path).await;
            (answer, Instant::now())
        };
        let others = async {
            let deadline = Instant::now() + PATIENCE;
            while tapped.postgres.asked() == 0 {
                assert!(Instant::now() < deadline, "{path}: nobody loads");
                tokio::time::sleep(GLANCE).await;
            }
            let answers = tapped.crowd(&path, READERS).await;
            others_are_done.notify_one();
            (answers, Instant::now())
        };
        let release = async {
            others_are_done.notified().await;
            client.batch_execute("rollback").await.unwrap();
        };
        let ((loaded, loaded_at), (answers, answered_at), ()) = tokio::join!(loader, others, release);
        assert_eq!(counted(&answers, ["stale"]), [READERS], "{path}");
        assert!(answered_at < loaded_at, "{path}");
        assert_eq!((loaded.header("x-cache"), &loaded.text), ("miss", &answers[0].text), "{path}");
        assert_eq!(tapped.postgres.take(), 1, "{path}");
    }
}

// ---- A Redis in trouble ---------------------------------------------------------------------------------------------

/// A Redis of one's own, that is started again where it was.
struct Server {
    port: u16,
    directory: PathBuf,
    child: Child,
}

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("lectern-redis-{}", Uuid::now_v7()));
        std::fs::create_dir(&directory).unwrap();
        let server = Self { port, child: Self::spawn(port, &directory, &[]), directory };
        server.wait_for("PONG").await;
        server
    }

    fn spawn(port: u16, directory: &Path, settings: &[&str]) -> Child {
        let program = environment("LECTERN_TEST_REDIS_SERVER").expect("run the tests by `make test`");
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--rdbcompression", "no"]);
        command.arg("--dir").arg(directory).args(settings).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().expect("a Redis")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it says this to a PING, be it an error.
    async fn wait_for(&self, word: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = redis::Client::open(self.url()).unwrap();
            let ping = async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                cmd("PING").query_async::<String>(&mut connection).await
            };
            let said = match tokio::time::timeout(Duration::from_secs(1), ping).await {
                Ok(said) => said.unwrap_or_else(|error| error.to_string()),
                Err(_) => String::new(),
            };
            if said.contains(word) {
                return;
            }
            assert!(Instant::now() < deadline, "Redis does not say {word}, but {said}");
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self, settings: &[&str]) {
        self.child = Self::spawn(self.port, &self.directory, settings);
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// One command, in words.
    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = cmd(words[0]);
        command.arg(&words[1..]);
        ask(&self.url(), &command).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends a stopped one, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Somebody who teaches and somebody who learns, in a course of their own: the only one of its difficulty, so that they
/// know what a list of it must show.
struct Pair {
    difficulty: &'static str,
    learner: String,
    course: Course,
    version: i64,
    round: usize,
}

impl Pair {
    async fn all(lectern: &Lectern) -> Vec<Self> {
        let mut pairs = Vec::new();
        for difficulty in ["beginner", "intermediate", "advanced"] {
            let mut body = course_body(difficulty, &[3], true);
            body["courseData"]["difficulty"] = difficulty.into();
            let course = Course::of(&lectern.teacher("teacher").create(&body).await.expect(StatusCode::CREATED));
            let learner = format!("learner of {difficulty}");
            lectern.learner(&learner).enrol(&course).await.expect(StatusCode::CREATED);
            pairs.push(Self { difficulty, learner, version: course.version, course, round: 0 });
        }
        pairs
    }

    fn outline(&self) -> String {
        format!("/courses/{}", self.course.id)
    }

    /// What is cached and what a write may change: the list, the outline, the summary.
    fn paths(&self) -> [String; 3] {
        [format!("/courses?difficulty={}", self.difficulty), self.outline(), format!("{}/progress", self.outline())]
    }

    async fn change(&mut self, lectern: &Lectern, body: Value) -> Answer {
        let answer = lectern.teacher("teacher").patch(&self.outline(), self.version, &body).await;
        self.version += 1;
        answer
    }

    /// The next of the writes.
    async fn write(&mut self, lectern: &Lectern) -> Answer {
        self.round += 1;
        let learner = lectern.learner(&self.learner);
        match self.round % 8 {
            2 | 6 => self.change(lectern, json!({"title": format!("Title {}", self.round)})).await,
            3 => self.change(lectern, json!({"status": "draft"})).await,
            4 => self.change(lectern, json!({"status": "published"})).await,
            7 => learner.delete(&format!("{}/progress", self.outline())).await,
            _ => learner.record(&[event(&self.course.sections[self.round % 3], 1, true)]).await,
        }
    }
}

/// All of an answer that must not depend on the cache; the id of a request is its own.
fn shown(answer: &Answer) -> (StatusCode, String, String) {
    let mut body = answer.text.clone();
    if answer.status != OK {
        let mut problem: Value = serde_json::from_str(&body).unwrap();
        problem.as_object_mut().unwrap().remove("requestId");
        body = problem.to_string();
    }
    (answer.status, answer.header("etag").to_owned(), body)
}

/// Redis was late once: it was left alone, or has not heard of a write.
struct Disturbed;

/// What came of the work of everybody.
struct Worked {
    /// How long requests took with the cache, and in the Lectern that has none.
    times: [Vec<Duration>; 2],
    /// Old copies shown to somebody a write of whose had waited for Redis in vain: one that it could not hear of in time
    /// leaves them.
    hidden: Vec<String>,
}

/// Two environments with a cache of their own, one without over the same database, and another Lectern without one.
struct Field {
    server: Server,
    cached: [Lectern; 2],
    plain: Lectern,
    pairs: Vec<Pair>,
    elsewhere: Lectern,
    pairs_elsewhere: Vec<Pair>,
}

impl Field {
    async fn start() -> Self {
        let server = Server::start().await;
        let first = Lectern::start_with(|config| {
            config.redis = Some(Redis::at(&server.url()));
            config.database_budget = PATIENCE;
        })
        .await;
        let second = first.another().await;
        let config = first.app().config.clone();
        let plain = Lectern::start_with(|fresh| {
            *fresh = config;
            fresh.redis = None;
        })
        .await;
        let elsewhere = Lectern::start_with(|config| {
            config.redis = None;
            config.database_budget = PATIENCE;
        })
        .await;
        let (pairs, pairs_elsewhere) = (Pair::all(&first).await, Pair::all(&elsewhere).await);
        let field = Self { server, cached: [first, second], plain, pairs, elsewhere, pairs_elsewhere };
        field.wait_for_hits().await;
        field
    }

    /// Until both environments answer from the cache.
    async fn wait_for_hits(&self) {
        let deadline = Instant::now() + CALM_COMES;
        for environment in &self.cached {
            // Nobody else reads this page.
            while environment.anyone().get("/courses?limit=77").await.header("x-cache") != "hit" {
                assert!(Instant::now() < deadline, "hits do not come");
                tokio::time::sleep(GLANCE).await;
            }
        }
    }

    /// Everybody writes and sees what they wrote, for so many rounds; what happens to Redis happens in the midst of it.
    /// Answers how long requests took.
    async fn work(&mut self, rounds: usize, trouble: impl AsyncFnOnce(&mut Server)) -> [Vec<Duration>; 2] {
        let Worked { times, hidden } = self.work_though_late(rounds, trouble).await;
        assert_eq!(hidden, [""; 0]);
        times
    }

    /// The same with a Redis that may be late.
    async fn work_though_late(&mut self, rounds: usize, trouble: impl AsyncFnOnce(&mut Server)) -> Worked {
        let Self { server, cached, plain, pairs, elsewhere, pairs_elsewhere } = self;
        let looked_at: Vec<String> = pairs.iter().flat_map(|pair| pair.paths().into_iter().take(2)).collect();
        let rounds_done = AtomicUsize::new(0);
        let begun = Notify::new();
        let with = pairs.iter_mut().enumerate().map(async |(number, pair)| {
            let (mut times, mut hidden, mut waited) = (Vec::new(), Vec::new(), false);
            for round in 0..rounds {
                let (here, there) = (&cached[(round + number) % 2], &cached[(round + number + 1) % 2]);
                let answer = timed(&mut times, pair.write(here)).await;
                assert!(answer.status.is_success(), "{}: {}", answer.status, answer.text);
                waited |= times.last() >= Some(&TELLING_LIMIT);
                for path in pair.paths() {
                    let reader = there.learner(&pair.learner);
                    let answer = timed(&mut times, reader.get(&path)).await;
                    let expected = plain.learner(&pair.learner).get(&path).await;
                    let source = answer.header("x-cache");
                    let is_right = shown(&answer) == shown(&expected);
                    if !is_right && source == "hit" && waited {
                        hidden.push(format!("{path}, round {}: {answer:?}, not {expected:?}", pair.round));
                        continue;
                    }
                    assert_eq!(shown(&answer), shown(&expected), "{path}, round {}, {source}", pair.round);
                }
                if rounds_done.fetch_add(1, Ordering::Relaxed) == 3 {
                    begun.notify_one();
                }
            }
            (times, hidden)
        });
        let without = pairs_elsewhere.iter_mut().map(async |pair| {
            let mut times = Vec::new();
            for _ in 0..rounds {
                timed(&mut times, pair.write(elsewhere)).await;
                for path in pair.paths() {
                    timed(&mut times, elsewhere.learner(&pair.learner).get(&path)).await;
                }
            }
            times
        });
        let trouble = async {
            begun.notified().await;
            trouble(server).await;
        };
        // Others look at the same at any moment, also while it is being written.
        let is_over = AtomicBool::new(false);
        let onlookers = cached.iter().map(async |lectern| {
            while !is_over.load(Ordering::Relaxed) {
                for path in &looked_at {
                    let status = Received::of(lectern.anyone().request(Method::GET, path)).await.status;
                    assert!([OK, StatusCode::NOT_FOUND].contains(&status), "{path}: {status}");
                }
            }
        });
        let work = async {
            let times = tokio::join!(join_all(with), join_all(without), trouble);
            is_over.store(true, Ordering::Relaxed);
            times
        };
        let ((with, without, ()), _) = tokio::join!(work, join_all(onlookers));
        let (with, hidden): (Vec<_>, Vec<_>) = with.into_iter().unzip();
        Worked { times: [with.concat(), without.concat()], hidden: hidden.concat() }
    }

    /// What was written while nobody could tell the cache is told to it; then all is as without it.
    async fn is_as_without(&mut self) {
        let deadline = Instant::now() + CALM_COMES;
        while self.tells_and_compares().await.is_err() || self.goes_on().await.is_err() {
            assert!(Instant::now() < deadline, "Redis was too slow each time");
        }
    }

    /// Everybody sees what they write, but for a Redis that was late.
    async fn goes_on(&mut self) -> Result<(), Disturbed> {
        let Worked { hidden, .. } = self.work_though_late(8, async |_| {}).await;
        if hidden.is_empty() { Ok(()) } else { Err(Disturbed) }
    }

    /// Every answer must be right, and the second from the cache, but for a Redis that was late.
    async fn tells_and_compares(&self) -> Result<(), Disturbed> {
        self.wait_for_hits().await;
        self.cached[0].invoke("replay-parked", json!({})).await;
        let mut are_kept = true;
        for pair in &self.pairs {
            // A summary lives for a minute at the most, and until the next write.
            let learner = self.cached[1].learner(&pair.learner);
            learner.delete(&format!("{}/progress", pair.outline())).await.expect(StatusCode::NO_CONTENT);
            for path in pair.paths() {
                let expected = self.plain.learner(&pair.learner).get(&path).await;
                let reader = self.cached[0].learner(&pair.learner);
                let answers = [reader.get(&path).await, reader.get(&path).await];
                for answer in &answers {
                    assert_eq!(shown(answer), shown(&expected), "{path}, {}", answer.header("x-cache"));
                }
                are_kept &= answers[1].header("x-cache") == "hit";
            }
        }
        if are_kept { Ok(()) } else { Err(Disturbed) }
    }
}

async fn timed(times: &mut Vec<Duration>, request: impl Future<Output = Answer>) -> Answer {
    let started = Instant::now();
    let answer = request.await;
    times.push(started.elapsed());
    answer
}

/// The time within which ninety-nine of a hundred were answered.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// While Redis is dead, requests take little longer than where there is none. A noisy machine gets a few tries.
async fn is_hardly_slower(field: &mut Field) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let [with, without] = field.work(64, async |_| {}).await.map(p99);
        if with <= without + Duration::from_millis(60) {
            return;
        }
        seen.push((with, without));
    }
    panic!("p99 with a dead Redis and with none: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_changes_no_answer_and_hardly_slows_any() {
    let mut field = Field::start().await;
    field.work(16, async |server| server.kill()).await;
    is_hardly_slower(&mut field).await;
    field.server.start_again(&[]);
    field.server.wait_for("PONG").await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_changes_no_answer_and_hardly_slows_any() {
    let mut field = Field::start().await;
    field.work(16, async |server| server.signal("-STOP")).await;
    is_hardly_slower(&mut field).await;
    field.server.signal("-CONT");
    field.server.wait_for("PONG").await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stutters_hides_a_write_only_from_whoever_has_waited_for_it() {
    let mut field = Field::start().await;
    let stutter = async |server: &mut Server| {
        for pause in 0..20 {
            server.signal("-STOP");
            tokio::time::sleep(Duration::from_millis(40 + 10 * pause)).await;
            server.signal("-CONT");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    field.work_though_late(64, stutter).await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_changes_no_answer() {
    let mut field = Field::start().await;
    let forget = async |server: &mut Server| {
        for _ in 0..20 {
            server.ask::<()>(&["FLUSHALL"]).await;
            tokio::time::sleep(GLANCE).await;
        }
    };
    field.work(40, forget).await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_full_of_garbage_changes_no_answer() {
    let mut field = Field::start().await;
    let scribble = async |server: &mut Server| {
        for sweep in 0..20 {
            for key in server.ask::<Vec<String>>(&["KEYS", "*"]).await {
                // Never twice the same, as a generation is not either.
                let noise = Uuid::now_v7();
                let garbage = match sweep % 4 {
                    0 => String::new(),
                    1 => format!("{{\"generations\":[\"{noise}\"],\"until\":99999999999999}}\n{{}}"),
                    2 => format!("{{\"v\":2,\"id\":\"{noise}\"}}\n"),
                    _ => format!("\u{0} {noise}"),
                };
                server.ask::<()>(&["SET", &key, &garbage]).await;
                if sweep % 4 == 3 && !key.ends_with(":g") && !key.ends_with(":visibility") {
                    server.ask::<()>(&["RPUSH", "a list", &garbage]).await;
                    server.ask::<()>(&["RENAME", "a list", &key]).await;
                }
            }
        }
    };
    field.work(40, scribble).await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_changes_no_answer() {
    let mut field = Field::start().await;
    let fill = async |server: &mut Server| {
        server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    };
    field.work(24, fill).await;
    field.server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    field.is_as_without().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_seen_at_once_though_redis_is_too_full_to_be_told() {
    let mut field = Field::start().await;
    let Field { server, cached: [first, second], pairs, .. } = &mut field;
    let pair = &mut pairs[0];
    let [list, outline, summary] = pair.paths();
    for path in [&list, &outline, &summary] {
        for source in ["miss", "hit"] {
            assert_eq!(second.learner(&pair.learner).get(path).await.header("x-cache"), source, "{path}");
        }
    }
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut connection = redis_servers::connect(&server.url()).await;
    let refused = cmd("SET").arg("anything").arg(1).exec_async(&mut connection).await.unwrap_err();
    assert_eq!(refused.code(), Some("OOM"));
    pair.change(first, json!({"title": "New"})).await.expect(OK);
    first.learner(&pair.learner).record(&[event(&pair.course.sections[0], 7, true)]).await.expect(OK);
    let reader = second.learner(&pair.learner);
    assert_eq!(reader.get(&list).await.expect(OK)["courses"][0]["title"], "New");
    assert_eq!(reader.get(&outline).await.expect(OK)["title"], "New");
    assert_eq!(reader.get(&summary).await.expect(OK)["totalTimeSpent"], 7);
    pair.change(first, json!({"status": "draft"})).await.expect(OK);
    reader.get(&outline).await.problem(404, "course_not_found");
    assert_eq!(reader.get(&list).await.expect(OK)["courses"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_loading_its_data_changes_no_answer() {
    let mut field = Field::start().await;
    // What takes a while to load, and nothing of ours.
    field.server.ask::<()>(&["FLUSHALL"]).await;
    for number in 0..40 {
        field.server.ask::<()>(&["SETRANGE", &format!("ballast {number}"), "2200000", "x"]).await;
    }
    field.server.ask::<()>(&["SAVE"]).await;
    field.server.ask::<()>(&["FLUSHALL"]).await;
    let load = async |server: &mut Server| {
        server.kill();
        server.start_again(&["--key-load-delay", "40000"]);
        server.wait_for("loading the dataset").await;
    };
    field.work(24, load).await;
    field.server.wait_for("PONG").await;
    field.is_as_without().await;
}

#[tokio::test]
async fn a_redis_that_answers_but_takes_no_writes_is_left_alone() {
    let server = Server::start().await;
    let settings = Redis { doubt_after: Duration::ZERO, ..Redis::at(&server.url()) };
    let lectern = Lectern::start_with(|config| config.redis = Some(settings)).await;
    let course = lectern.course("teacher", &[1]).await;
    let (path, anyone) = (format!("/courses/{}", course.id), lectern.anyone());
    for source in ["miss", "hit", "hit"] {
        assert_eq!(anyone.get(&path).await.header("x-cache"), source);
    }
    // As the old primary after a failover: it has all that it had, and learns nothing new.
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    lectern.teacher("teacher").patch(&path, course.version, &json!({"title": "New"})).await.expect(OK);
    let answer = anyone.get(&path).await;
    assert_eq!((answer.expect(OK)["title"].as_str(), answer.header("x-cache")), (Some("New"), "bypass"));
}

// ---- A word that was lost -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_change_that_the_cache_was_not_told_of_is_told_by_the_next_replay() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let config = lectern.app().config.clone();
    let untold = Lectern::start_with(|fresh| {
        *fresh = config;
        fresh.redis = None;
    })
    .await;
    let other = lectern.another().await;
    let outline = format!("/courses/{}", course.id);
    let paths = ["/courses".to_owned(), outline.clone()];
    let is_shown_by_cache = async |expected: bool| {
        for path in &paths {
            let (cached, current) = (other.anyone().get(path).await, untold.anyone().get(path).await);
            assert_eq!(shown(&cached) == shown(&current), expected, "{path}: {}", cached.header("x-cache"));
        }
    };
    for (version, body) in [(1, json!({"title": "New"})), (2, json!({"status": "draft"}))] {
        is_shown_by_cache(true).await;
        untold.teacher("teacher").patch(&outline, version, &body).await.expect(OK);
        // The word was lost.
        is_shown_by_cache(false).await;
        lectern.invoke("replay-parked", json!({})).await;
        is_shown_by_cache(true).await;
    }
    other.anyone().get(&outline).await.problem(404, "course_not_found");
}
