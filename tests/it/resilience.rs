//! PostgreSQL away, silent, restarted or slow: what clients and operators see.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use shared::{
    breaker,
    config::{Config, Postgres},
    db::{Database, FailureKind, Repeat, Statement},
};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    editing,
    faults::{Fault, Protocol, Proxy},
    log::Log,
    support::{Lectern, NOWHERE, address_of, at_address, course_body, event},
};

/// Longer than any request may take while PostgreSQL says nothing.
const PATIENCE: Duration = Duration::from_secs(4);

async fn is_unavailable_everywhere(database_url: &str) {
    let lectern = Lectern::start_with(|config| {
        config.postgres.url = database_url.to_owned();
        config.parking = None;
    })
    .await;
    let (alice, teacher) = (lectern.learner("alice"), lectern.teacher("teacher"));
    let section = uuid::Uuid::now_v7().to_string();
    let events = [event(&section, 1, true)];
    let started = Instant::now();
    let answers = tokio::join!(alice.get("/courses"), alice.get("/me/courses"), alice.record(&events));
    for answer in <[_; 3]>::from(answers) {
        answer.problem(503, "unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    // What is wrong with a request is told without PostgreSQL.
    teacher.create(&course_body("", &[], false)).await.problem(400, "invalid_body");
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_unavailable() {
    is_unavailable_everywhere(NOWHERE).await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable_within_the_budget() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    is_unavailable_everywhere(&format!("postgres://lectern:secret@{address}/lectern")).await;
}

#[tokio::test]
async fn an_edit_that_may_take_long_does_not_wait_long_for_a_server_that_fell_silent() {
    let lectern = Lectern::start().await;
    let proxy = Proxy::start(address_of(&lectern.database), Protocol::Postgres).await;
    let config = lectern.app().config.clone();
    let postgres = Postgres::at(&at_address(&lectern.database, proxy.address()));
    let behind = Lectern::start_with(|fresh| *fresh = Config { postgres, ..config }).await;
    let ada = behind.teacher("ada");
    let course = behind.course("ada", &[1]).await;
    // From now on nothing comes back on the connection that is open.
    proxy.set(Fault::BlackHole);
    let started = Instant::now();
    let lesson = json!([{"title": "More", "order": 9, "sections": []}]);
    editing::append(&ada, &course.id, "key", &lesson).await.problem(503, "unavailable");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    // What comes next asks no more, until it is time to try again.
    let asked = proxy.bites();
    editing::put(&ada, &course.id, 1, &json!({"lessons": []})).await.problem(503, "unavailable");
    assert!(proxy.bites() == asked || started.elapsed() >= breaker::OPEN_FOR, "{:?}", started.elapsed());
    proxy.set(Fault::Pass);
    sleep(breaker::OPEN_FOR).await;
    editing::append(&ada, &course.id, "key", &lesson).await.expect(StatusCode::CREATED);
}

#[tokio::test]
async fn connections_that_died_while_nobody_looked_are_replaced_unnoticed() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    for _ in 0..3 {
        lectern
            .sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .await;
        alice.record(&[event(&course.sections[0], 1, false)]).await.expect(StatusCode::OK);
        lectern
            .sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .await;
        alice.get("/me/courses").await.expect(StatusCode::OK);
    }
    assert_eq!(alice.summary(&course).await["totalTimeSpent"], 3);
}

#[tokio::test]
async fn a_batch_that_waits_for_a_lock_too_long_is_parked_and_counts_once() {
    let lectern = Lectern::start_with(|config| config.database_budget = Duration::from_millis(300)).await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    let (client, connection) = tokio_postgres::connect(&lectern.database, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("begin; select * from enrollments for update").await.unwrap();
    let blocked = event(&course.sections[0], 5, false);
    alice.record(std::slice::from_ref(&blocked)).await.expect(StatusCode::ACCEPTED);
    client.batch_execute("rollback").await.unwrap();
    // Whether the first run took effect is nobody's worry: the event counts once.
    let other = lectern.another().await;
    assert_eq!(other.invoke("replay-parked", json!({})).await["applied"], 1);
    other.learner("alice").record(&[blocked]).await.expect(StatusCode::OK);
    assert_eq!(other.learner("alice").summary(&course).await["totalTimeSpent"], 5);
}

#[tokio::test]
async fn a_learner_of_a_huge_course_reads_it_within_the_budget() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    lectern.learner("alice").enrol(&course).await.expect(StatusCode::CREATED);
    // Sixteen thousand sections, all but the last of them complete.
    lectern
        .sql(&format!(
            "insert into sections (id, lesson_id, course_id, title, content, type, position, created_at)
            select gen_random_uuid(), '{lesson}', '{course}', 'S', '', 'text', number, now()
            from generate_series(2, 16000) as number;
            insert into progress (user_id, course_id, section_id, time_spent, completed_at, first_at, last_at)
            select 'alice', '{course}', id, 1, now(), now(), now() from sections where position < 16000;
            update courses set section_count = 16000;
            update enrollments set completed_sections = 15999, time_spent = 15999",
            lesson = course.lessons[0],
            course = course.id
        ))
        .await;
    let alice = lectern.learner("alice");
    let last = lectern.fetch("select id from sections where position = 16000").await;
    assert_eq!(alice.summary(&course).await["resume"]["nextSectionId"], last.as_str());
    let home = alice.get("/me/courses").await.expect(StatusCode::OK);
    assert_eq!(home["enrollments"][0]["nextSectionId"], last.as_str());
    for path in [format!("/me/courses/{}", course.id), format!("/lessons/{}/progress", course.lessons[0])] {
        let request = alice.request(reqwest::Method::GET, &path).header("accept-encoding", "gzip");
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn recording_in_a_course_of_very_many_learners_looks_at_the_learner_alone() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[5]).await;
    lectern
        .sql(&format!(
            "insert into enrollments (user_id, course_id, enrolled_at)
            select 'learner-' || number, '{}', now() from generate_series(1, 50000) as number;
            analyze",
            course.id
        ))
        .await;
    lectern.learner("zoe").enrol(&course).await.expect(StatusCode::CREATED);
    let events: Vec<_> = (0..500).map(|index| event(&course.sections[index % 5], 1, true)).collect();
    // Where the planner reads the whole course for each event, this takes longer than a request may.
    for batch in events.chunks(100) {
        assert_eq!(lectern.learner("zoe").record(batch).await.expect(StatusCode::OK)["recorded"], 100);
    }
}

#[tokio::test]
async fn slow_statements_are_warned_of_by_name_failed_ones_too() {
    const NAP: Statement = Statement { name: "test.nap", sql: "select pg_sleep(0.1)" };
    const FAILING_NAP: Statement =
        Statement { name: "test.failing_nap", sql: "select 1 / (length(pg_sleep(0.1)::text) * 0)" };
    const LONG_NAP: Statement = Statement { name: "test.long_nap", sql: "select pg_sleep(30)" };
    const QUICK: Statement = Statement { name: "test.quick", sql: "select 1" };
    let log = Log::listen();
    let mut config = Config::for_database(&crate::support::empty_database().await);
    config.slow_statement = Duration::from_millis(50);
    config.database_budget = Duration::from_millis(2_000);
    let db = Database::new(&config).unwrap();
    db.query(QUICK, &[], Repeat::Safe).await.unwrap();
    db.query(NAP, &[], Repeat::Safe).await.unwrap();
    assert_eq!(db.query(FAILING_NAP, &[], Repeat::Safe).await.unwrap_err().kind, FailureKind::Fault);
    let within = Duration::from_millis(200);
    assert_eq!(db.query_within(within, LONG_NAP, &[], Repeat::Safe).await.unwrap_err().kind, FailureKind::TimedOut);

    let lines = log.lines();
    let outcome = |name: &str| {
        let line = lines.iter().find(|line| line["statement"] == name);
        line.and_then(|line| line["outcome"].as_str())
    };
    assert_eq!(outcome("test.nap"), Some("ok"));
    assert_eq!(outcome("test.failing_nap"), Some("fault"));
    assert_eq!(outcome("test.long_nap"), Some("timed_out"));
    assert_eq!(outcome("test.quick"), None);
}
