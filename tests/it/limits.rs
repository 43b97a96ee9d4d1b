//! How often a caller may write: counted in Redis for all environments together, and never a reason to fail.
//!
//! A write that Redis says nothing of in time is let through: tests ask until they are refused, and hold exact counts only
//! where nothing came late.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use local::template::Template;
use redis::cmd;
use reqwest::{Method, StatusCode};
use serde_json::json;
use shared::config::{Allowance, Config, Redis};
use tokio::{net::TcpListener, time::sleep};
use uuid::Uuid;

use crate::{
    redis_servers::{connect, nodes},
    support::{Answer, Caller, Kind, Lectern, course_body, event, on_a_node_and_on_a_cluster},
};

const OK: StatusCode = StatusCode::OK;
/// Longer than a Redis that was late is left alone.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions.
const GLANCE: Duration = Duration::from_millis(20);

on_a_node_and_on_a_cluster! {
    every_write_is_limited_and_no_read_is,
    environments_count_together_and_let_exactly_so_many_through,
    time_brings_room_again_and_no_more_than_that,
    what_lies_under_the_key_by_mistake_stops_nobody,
}

/// With room for so many writes at once, and next to no more.
async fn limited(kind: Kind, burst: u32) -> Lectern {
    let redis = kind.redis().await;
    Lectern::start_with(|config| {
        config.redis = Some(redis);
        config.writes = Some(Allowance { per_minute: 1, burst });
    })
    .await
}

/// With the limits of everybody who sets none.
fn by_default(config: &mut Config) {
    let defaults = Config::for_database(&config.postgres.url);
    (config.writes, config.service_writes) = (defaults.writes, defaults.service_writes);
}

/// Asks until it is refused.
async fn refused(ask: impl AsyncFn() -> Answer) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return answer;
        }
        assert!(Instant::now() < deadline, "never refused: {} {}", answer.status, answer.text);
        sleep(GLANCE).await;
    }
}

/// The least that writes anything, whatever comes of it.
async fn write(caller: &Caller<'_>) -> Answer {
    caller.delete(&format!("/courses/{}/enrollment", Uuid::now_v7())).await
}

async fn every_write_is_limited_and_no_read_is(kind: Kind) {
    let lectern = limited(kind, 1).await;
    let template = Template::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml")).unwrap();
    let routes = template.functions.iter().flat_map(|function| &function.routes);
    let mut writes = 0;
    for route in routes {
        let name = Uuid::now_v7().to_string();
        let caller = lectern.caller(&name, &["instructor", "admin"]);
        // Nobody: an erasure takes with it what was counted.
        let nobody = Uuid::now_v7().to_string();
        let segment = |segment: &str| if segment.starts_with('{') { nobody.clone() } else { segment.to_owned() };
        let path = route.path.split('/').map(segment).collect::<Vec<_>>().join("/");
        if route.method == Method::GET {
            refused(async || write(&caller).await).await;
            let answer = caller.get(&path).await;
            assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", route.key());
        } else {
            // No body, no key, no version: it is refused before anybody has looked.
            let answer = refused(async || Answer::of(caller.request(route.method.clone(), &path)).await).await;
            answer.problem(429, "rate_limited");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            writes += 1;
        }
    }
    assert!(writes >= 10, "{writes}");
}

async fn environments_count_together_and_let_exactly_so_many_through(kind: Kind) {
    const BURST: usize = 10;
    let first = limited(kind, BURST as u32).await;
    let second = first.another().await;
    for attempt in 0..10 {
        let name = format!("looping-{attempt}");
        let callers = [first.learner(&name), second.learner(&name)];
        let answers = join_all((0..40).map(|number| write(&callers[number % 2]))).await;
        let admitted = answers.iter().filter(|answer| answer.status != StatusCode::TOO_MANY_REQUESTS).count();
        assert!(admitted >= BURST, "{admitted}");
        // The others of the same number are nobody's business.
        assert_ne!(write(&first.learner(&format!("quiet-{attempt}"))).await.status, StatusCode::TOO_MANY_REQUESTS);
        if admitted == BURST {
            return;
        }
    }
    panic!("Redis was too slow ten times");
}

async fn time_brings_room_again_and_no_more_than_that(kind: Kind) {
    let lectern = limited(kind, 3).await;
    let alice = lectern.learner("alice");
    for _ in 0..3 {
        assert_ne!(write(&alice).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    let answer = refused(async || write(&alice).await).await;
    let wait: i64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(answer.problem(429, "rate_limited")["detail"].as_str().unwrap().contains(&format!("{wait} s")));

    // As if everything had happened so much earlier.
    for (seconds, is_enough) in [(wait / 2, false), (wait - wait / 2, true)] {
        pass(&lectern, seconds).await;
        let answer = write(&alice).await;
        assert!(answer.status != StatusCode::TOO_MANY_REQUESTS || !is_enough, "{seconds} s");
    }
    refused(async || write(&alice).await).await;
}

/// Moves whatever is counted back in time.
async fn pass(lectern: &Lectern, seconds: i64) {
    let mut moved = 0;
    for (mut node, key) in counters(lectern).await {
        let settled: i64 = cmd("GET").arg(&key).query_async(&mut node).await.unwrap();
        let settled = settled - seconds * 1_000_000;
        cmd("SET").arg(&key).arg(settled).arg("KEEPTTL").exec_async(&mut node).await.unwrap();
        moved += 1;
    }
    assert!(moved > 0);
}

/// Where writes are counted.
async fn counters(lectern: &Lectern) -> Vec<(redis::aio::MultiplexedConnection, String)> {
    let settings = lectern.app().config.redis.clone().unwrap();
    let mut counters = Vec::new();
    for mut node in nodes(&settings).await {
        let pattern = format!("{}:*{{writer:*", settings.prefix);
        let keys: Vec<String> = cmd("KEYS").arg(pattern).query_async(&mut node).await.unwrap();
        counters.extend(keys.into_iter().map(|key| (node.clone(), key)));
    }
    counters
}

async fn what_lies_under_the_key_by_mistake_stops_nobody(kind: Kind) {
    let lectern = limited(kind, 1).await;
    let alice = lectern.learner("alice");
    refused(async || write(&alice).await).await;
    let (mut node, key) = counters(&lectern).await.pop().unwrap();
    for garbage in ["", "0", "-1", "inf", "-inf", "nan", "9e99", "0x7fffffffffffffff", "one", "\0"] {
        cmd("SET").arg(&key).arg(garbage).exec_async(&mut node).await.unwrap();
        assert_ne!(write(&alice).await.status, StatusCode::TOO_MANY_REQUESTS, "{garbage}");
        // And it counts again.
        refused(async || write(&alice).await).await;
    }
    cmd("DEL").arg(&key).exec_async(&mut node).await.unwrap();
    cmd("HSET").arg(&key).arg("a").arg("b").exec_async(&mut node).await.unwrap();
    assert_ne!(write(&alice).await.status, StatusCode::TOO_MANY_REQUESTS);
    refused(async || write(&alice).await).await;
    let life: i64 = cmd("PTTL").arg(&key).query_async(&mut node).await.unwrap();
    assert!((1..=60_000).contains(&life), "{life}");
}

#[tokio::test]
async fn a_refused_write_writes_nothing_and_burns_no_key() {
    let lectern = limited(Kind::Node, 1).await;
    let teacher = lectern.teacher("teacher");
    refused(async || write(&teacher).await).await;
    let (key, refused_body) = (Uuid::now_v7().to_string(), course_body("Refused", &[1], true));
    refused(async || teacher.create_with_key(&key, &refused_body).await).await;
    for table in ["courses", "course_creations"] {
        assert_eq!(lectern.fetch(&format!("select count(*) from {table}")).await, "0", "{table}");
    }

    pass(&lectern, 60).await;
    let answer = teacher.create_with_key(&key, &course_body("Another", &[1], true)).await;
    assert_eq!(answer.expect(StatusCode::CREATED)["title"], "Another");
}

#[tokio::test]
async fn a_service_has_an_allowance_of_its_own_and_none_means_no_limit() {
    let lectern = limited(Kind::Node, 1).await;
    let course = lectern.course("teacher", &[1]).await;
    let enrol = json!({"enrollments": [{"userId": "alice"}]});
    let path = format!("/courses/{}/enrollments", course.id);
    for _ in 0..20 {
        lectern.service().post(&path, &enrol).await.expect(OK);
    }
    let config = lectern.app().config.clone();
    let strict = Lectern::start_with(|fresh| {
        *fresh = config.clone();
        fresh.service_writes = Some(Allowance { per_minute: 1, burst: 1 });
    })
    .await;
    refused(async || strict.service().post(&path, &enrol).await).await.problem(429, "rate_limited");
    let free = Lectern::start_with(|fresh| {
        *fresh = config;
        (fresh.writes, fresh.service_writes) = (None, None);
    })
    .await;
    let alice = free.learner("alice");
    for _ in 0..20 {
        alice.record(&[event(&course.sections[0], 1, false)]).await.expect(OK);
        free.service().post(&path, &enrol).await.expect(OK);
    }
}

#[tokio::test]
async fn by_default_no_device_that_brings_a_month_of_batches_is_stopped() {
    let lectern = Lectern::start_with(by_default).await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    for _ in 0..200 {
        alice.record(&[event(&course.sections[0], 1, false)]).await.expect(OK);
    }
}

#[tokio::test]
async fn without_a_redis_that_answers_nobody_is_limited() {
    // It takes connections, because the operating system does, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for url in ["redis://127.0.0.1:1".to_owned(), format!("redis://{}", silent.local_addr().unwrap())] {
        let lectern = Lectern::start_with(|config| {
            config.redis = Some(Redis::at(&url));
            config.writes = Some(Allowance { per_minute: 1, burst: 1 });
        })
        .await;
        let course = lectern.course("teacher", &[1]).await;
        let alice = lectern.learner("alice");
        alice.enrol(&course).await.expect(StatusCode::CREATED);
        for _ in 0..5 {
            alice.record(&[event(&course.sections[0], 1, false)]).await.expect(OK);
        }
    }
}

#[tokio::test]
async fn a_counter_lives_only_as_long_as_it_counts() {
    let lectern = Lectern::start_with(by_default).await;
    write(&lectern.learner("alice")).await;
    let url = lectern.app().config.redis.clone().unwrap().url;
    for (_, key) in counters(&lectern).await {
        assert!(!key.contains("alice"), "{key}");
        let life: i64 = cmd("PTTL").arg(&key).query_async(&mut connect(&url).await).await.unwrap();
        // One of 600 in a minute is forgotten after a tenth of a second.
        assert!(life <= 100, "{life}");
    }
}
