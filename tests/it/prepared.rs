//! Statements that a connection knows by name.

use std::time::Duration;

use reqwest::StatusCode;
use shared::db::{Database, FailureKind, Prepared, Repeat, Statement};
use tokio_postgres::{Row, types::Type};

use crate::support::Lectern;

/// What the session that asks has prepared: the text, and how often it was run by its name, with a plan of its own and with
/// the one for all.
const KNOWN: Statement = Statement {
    name: "test.known",
    sql: "select statement, custom_plans, generic_plans from pg_prepared_statements order by prepare_time",
};

/// The role of the function that lists courses.
const READER: &str = "lectern_read";

/// One connection, and so one session.
async fn lectern(prepares: bool) -> Lectern {
    Lectern::start_with(|config| {
        config.database_connections = 1;
        config.postgres.prepares = Some(prepares);
    })
    .await
}

async fn ask(db: &Database, sql: &'static str) -> Vec<Row> {
    db.query(Prepared(Statement { name: "test.ask", sql }), &[], Repeat::Safe).await.expect("it answers")
}

/// How often each statement with this text in it was run, with a plan of its own and with the one for all.
async fn plans(db: &Database, text: &str) -> Vec<[i64; 2]> {
    let known = db.query(KNOWN, &[], Repeat::Safe).await.expect("it answers");
    known
        .iter()
        .filter(|row| row.try_get::<_, &str>(0).unwrap().contains(text))
        .map(|row| [1, 2].map(|column| row.try_get(column).unwrap()))
        .collect()
}

async fn runs(db: &Database, text: &str) -> Vec<i64> {
    plans(db, text).await.into_iter().map(|[own, common]| own + common).collect()
}

#[tokio::test]
async fn a_statement_has_a_name_from_its_second_run_on() {
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    for run in 0..7 {
        ask(db, "select 'named'").await;
        assert_eq!(runs(db, "named").await, [run]);
    }
}

#[tokio::test]
async fn nothing_has_a_name_where_nobody_vouches_for_the_server() {
    let lectern = lectern(false).await;
    lectern.course("teacher", &[1]).await;
    for _ in 0..3 {
        lectern.anyone().get("/courses").await.expect(StatusCode::OK);
    }
    assert!(runs(&lectern.app_in(READER).db, "").await.is_empty());
}

/// A plan for rare words looks cheaper than one for any: with the words before it, the planner would make one each time.
#[tokio::test]
async fn a_search_is_planned_once_for_all_words() {
    let lectern = lectern(true).await;
    let many = "insert into courses (
            id, owner_id, title, description, difficulty, status, created_at, updated_at, published_at, words
        )
        select gen_random_uuid(), 'ada', 'Horse ' || n, 'a zebra', 'beginner', 'published', now(), now(), now(),
            course_words_v1('Horse ' || n, 'a zebra')
        from generate_series(1, 2000) as n;
        analyze courses";
    lectern.sql(many).await;
    for number in 0..12 {
        lectern.anyone().get(&format!("/courses?q=horse+{}", 100 + number)).await.expect(StatusCode::OK);
    }
    // The first search of a connection goes out with its text.
    assert_eq!(plans(&lectern.app_in(READER).db, "words_query_v1").await, [[5, 6]]);
}

#[tokio::test]
async fn what_a_migration_makes_of_a_column_is_read_at_once() {
    const READ: &str = "select value from changing";
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    lectern.sql("create table changing (value integer); insert into changing values (1)").await;
    for _ in 0..7 {
        assert_eq!(ask(db, READ).await[0].try_get::<_, i32>(0).unwrap(), 1);
    }
    lectern.sql("alter table changing alter value type text").await;
    for _ in 0..3 {
        assert_eq!(ask(db, READ).await[0].try_get::<_, &str>(0).unwrap(), "1");
    }
    lectern.sql("drop table changing").await;
    let gone = db.query(Prepared(Statement { name: "test.gone", sql: READ }), &[], Repeat::Safe).await.unwrap_err();
    assert_eq!(gone.kind, FailureKind::NotMigrated);
}

#[tokio::test]
async fn a_session_that_was_made_to_forget_is_told_again() {
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    for _ in 0..3 {
        assert_eq!(ask(db, "select 7").await[0].try_get::<_, i32>(0).unwrap(), 7);
        ask(db, "deallocate all").await;
    }
}

#[tokio::test]
async fn a_statement_that_fails_does_so_each_time_and_spoils_nothing() {
    const DIVIDE: Prepared = Prepared(Statement { name: "test.divide", sql: "select 1 / (random() * 0)::integer" });
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    let session = ask(db, "select pg_backend_pid()").await[0].try_get::<_, i32>(0).unwrap();
    for _ in 0..3 {
        let failure = db.query(DIVIDE, &[], Repeat::Safe).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Fault);
        assert_eq!(ask(db, "select pg_backend_pid()").await[0].try_get::<_, i32>(0).unwrap(), session);
    }
}

#[tokio::test]
async fn a_write_that_is_told_again_is_done_once() {
    const WRITE: Prepared = Prepared(Statement {
        name: "test.write",
        sql: "insert into written (at) values (clock_timestamp()) returning number, at::text",
    });
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    lectern.sql("create table written (number integer generated always as identity, at timestamptz not null)").await;
    let changes: [&[&str]; 4] = [&[], &[], &["deallocate all"], &["alter table written alter number type bigint"]];
    for (written, changes) in changes.into_iter().enumerate() {
        for change in changes {
            ask(db, change).await;
        }
        db.query(WRITE, &[], Repeat::Safe).await.expect("it writes");
        let rows = ask(db, "select count(*) from written").await[0].try_get::<_, i64>(0).unwrap();
        assert_eq!(rows, written as i64 + 1);
    }
}

#[tokio::test]
async fn a_first_run_that_takes_too_long_leaves_nothing_half_prepared() {
    const SLOW: Prepared = Prepared(Statement { name: "test.slow", sql: "select pg_sleep($1)" });
    let lectern = lectern(true).await;
    let db = &lectern.app().db;
    for (seconds, answers) in [(5.0, false), (0.0, true), (0.0, true)] {
        let params = [(&seconds as _, Type::FLOAT8)];
        let result = db.query_within(Duration::from_millis(500), SLOW, &params, Repeat::Unsafe).await;
        assert_eq!(result.is_ok(), answers, "{seconds}");
    }
}
