//! Migrations over rows that were there before them, and what the runner does when it is not alone or fails.
//!
//! `samples/V<n>.sql` holds rows as the binaries of that time wrote them, on top of those of the steps before. A database
//! that has lived through `n` steps got each step's samples before the next migration came.

use std::{fs, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use shared::{
    analytics,
    app::App,
    config::Config,
    error::Error,
    migrations::{self, ALL, Applied, Migration},
    telemetry,
};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::{deadline, empty_database, sql};

/// Courses beside the samples: more than two batches of the backfill.
const MANY: usize = 2_345;

#[tokio::test]
async fn every_migration_keeps_all_rows_of_the_step_before() {
    for step in 2..=ALL.len() {
        let url = lived_through(step - 1).await;
        let session = session(&url).await;
        let tables = rows(
            &session,
            "select table_name, string_agg(quote_ident(column_name), ', ' order by ordinal_position)
            from information_schema.columns
            where table_schema = 'public' and table_name <> 'schema_migrations'
            group by table_name",
        )
        .await;
        let mut before = Vec::new();
        for table in tables {
            let (table, columns) = table.split_once('|').expect("two columns");
            let query = format!("select jsonb_strip_nulls(to_jsonb(t)) from (select {columns} from {table}) as t");
            let rows = rows(&session, &query).await;
            assert!(!rows.is_empty(), "samples/V{}.sql: no table may be without a row, and {table} is", step - 1);
            before.push((query, rows));
        }

        up_to(&url, step).await.expect("the migration applies");

        for (query, rows_before) in before {
            let mut rows_after = rows(&session, &query).await;
            for row in rows_before {
                // What was null may have been filled in.
                let place = rows_after.iter().position(|found| has_all_of(found, &row));
                let place = place.unwrap_or_else(|| panic!("V{step} lost a row of {query}: {row}"));
                rows_after.swap_remove(place);
            }
        }
    }
}

/// Whether a row has all values of another, both as JSON.
fn has_all_of(found: &str, row: &str) -> bool {
    let [found, row] = [found, row].map(|row| serde_json::from_str::<Map<String, Value>>(row).expect("a row"));
    row.iter().all(|(column, value)| found.get(column) == Some(value))
}

/// Old binaries go on writing while new ones are being deployed.
#[tokio::test]
async fn what_was_written_before_a_migration_can_be_written_after_it() {
    for step in 2..=ALL.len() {
        let url = lived_through(step - 2).await;
        up_to(&url, step).await.expect("the migrations apply");
        sql(&url, &sample(step - 1)).await;
    }
}

#[tokio::test]
async fn v2_counts_nobody_yet_and_rewrites_nothing() {
    let url = lived_through(1).await;
    let session = session(&url).await;
    let file = rows(&session, "select pg_relation_filenode('courses')").await;

    up_to(&url, 2).await.expect("V2 applies");

    assert_eq!(rows(&session, "select pg_relation_filenode('courses')").await, file);
    let columns = "select analytics_enabled, enrollment_count, count(*) from courses group by 1, 2";
    assert_eq!(rows(&session, columns).await, ["t|0|4"]);
    assert_eq!(rows(&session, "select course_id from course_analytics").await, [""; 0]);
    assert_eq!(rows(&session, "select course_id from course_changes").await, [""; 0]);
}

#[tokio::test]
async fn v3_gives_each_old_course_one_row_of_figures_and_one_mark_and_can_be_repeated() {
    let url = lived_through(2).await;
    let session = session(&url).await;
    add_many_courses(&session).await;

    up_to(&url, 3).await.expect("V3 applies");

    check_backfill(&session).await;
    let all = "select 'analytics', course_analytics::text from course_analytics
        union all select 'changes', course_changes::text from course_changes order by 1, 2";
    let before = rows(&session, all).await;
    session.batch_execute(ALL[2].sql).await.expect("V3 can be repeated");
    assert_eq!(rows(&session, all).await, before);
}

#[tokio::test]
async fn an_interrupted_backfill_goes_on_where_it_stopped() {
    let url = lived_through(2).await;
    let (session, holder) = (session(&url).await, session(&url).await);
    add_many_courses(&session).await;
    // A row that is being written by somebody else stops the second batch.
    holder.batch_execute("begin").await.expect("a transaction");
    let row = format!("insert into course_analytics (course_id) values ('{}')", course(1_500));
    holder.batch_execute(&row).await.expect("a row");
    let migrating = tokio::spawn({
        let url = url.clone();
        async move { up_to(&url, 3).await }
    });
    let waiting = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    until(&session, &format!("exists ({waiting})")).await;

    assert_eq!(rows(&session, &format!("select pg_terminate_backend(pid) from ({waiting}) as stopped")).await, ["t"]);

    migrating.await.expect("a run").expect_err("the run ends with its connection");
    let first_batch_alone = "select count(*) between 1000 and 1999 from course_analytics";
    assert_eq!(rows(&session, first_batch_alone).await, ["t"]);
    assert_eq!(versions(&session).await, ["1", "2"]);
    holder.batch_execute("rollback").await.expect("the holder gives up");
    assert_eq!(up_to(&url, 3).await.expect("V3 applies").applied, [ALL[2].name]);
    check_backfill(&session).await;
}

#[tokio::test]
async fn v29_notes_what_was_completed_before_and_can_be_repeated() {
    let url = lived_through(26).await;
    let session = session(&url).await;
    up_to(&url, 29).await.expect("the migrations apply");
    let noted = "select section_id, sum(difference) from section_completion_changes group by 1 order by 1";
    let completed = "select section_id, count(*) from progress join enrollments using (user_id, course_id)
        where progress.completed_at is not null and status <> 'cancelled' group by 1 order by 1";
    let before = rows(&session, noted).await;
    assert!(before.len() > 3, "{before:?}");
    assert_eq!(before, rows(&session, completed).await);
    session.batch_execute(ALL[28].sql).await.expect("V29 can be repeated");
    assert_eq!(rows(&session, noted).await, before);
    // Whoever writes now is noted by the triggers.
    session.batch_execute("update enrollments set status = 'cancelled'; delete from progress").await.expect("rows");
    assert_eq!(rows(&session, &format!("select * from ({noted}) as noted where sum <> 0")).await, [""; 0]);
}

#[tokio::test]
async fn v4_judges_stored_rows_by_the_rules() {
    let url = lived_through(3).await;

    up_to(&url, 4).await.expect("V4 applies");

    let session = session(&url).await;
    // The answers must not depend on where the session thinks that it is.
    session.batch_execute("set time zone 'Asia/Kathmandu'").await.expect("a time zone");
    let judged = rows(
        &session,
        "select enrollments.user_id, right(enrollments.course_id::text, 2),
            completion_percentage_v1(enrollments.completed_sections, courses.section_count),
            rfc3339_v1(enrollments.completed_at), rfc3339_v1(courses.published_at),
            course_access_v1(courses.status, false, enrollments.status)
        from enrollments join courses on courses.id = enrollments.course_id
        order by 2, 1",
    )
    .await;
    assert_eq!(
        judged,
        [
            "ada|c1|100|2026-03-05T09:00:00.25Z|2026-02-10T08:00:00.123456Z|learn",
            "bob|c1|66.66|null|2026-02-10T08:00:00.123456Z|learn",
            "cleo|c1|0|null|2026-02-10T08:00:00.123456Z|learn",
            "dan|c1|33.33|null|2026-02-10T08:00:00.123456Z|browse_former",
            "ada|c3|100|2025-02-02T08:00:00Z|2025-01-02T08:00:00Z|learn",
            "Ünal|😀 \"x\"|c3|0|null|2025-01-02T08:00:00Z|former",
            "bob|c4|0|null|2026-02-04T08:00:00Z|none",
            "eve|c5|100|2026-03-16T08:00:00Z|2026-02-10T08:00:00Z|learn",
            "cleo|c6|0|null|2026-03-21T08:00:00Z|learn",
        ]
    );
    let others = "select right(id::text, 2), completion_percentage_v1(0, section_count),
            course_access_v1(status, false, null), course_access_v1(status, true, null)
        from courses where id::text like '%c_' order by 1 limit 3";
    assert_eq!(rows(&session, others).await, ["c1|0|browse|manage", "c2|null|none|manage", "c3|0|none|manage"]);
}

#[tokio::test]
async fn v5_records_and_resets_over_stored_rows_and_a_refresh_has_the_right_figures() {
    let url = lived_through(4).await;

    up_to(&url, 5).await.expect("V5 applies");
    // A refresh speaks to the schema of its own day.
    apply(&url, ALL).await.expect("the later ones apply");

    let session = session(&url).await;
    let app = App::new(Config::for_database(&url)).expect("a good configuration");
    let mut expected = [
        "c1|3|2|1|33.33|349200|349200|349200|349200|1200|2026-04-01T00:00:00Z|2026-04-05T09:00:00Z",
        "c2|0|0|0|null|null|null|null|null|null|2026-04-01T00:00:00Z|null",
        "c3|1|0|1|100.00|86400|86400|86400|86400|86400|2026-04-01T00:00:00Z|null",
        "c4|1|0|0|0.00|null|null|null|null|null|2026-04-01T00:00:00Z|null",
        "c5|1|1|0|0.00|null|null|null|null|null|2026-03-14T08:00:00Z|2026-04-10T08:00:00Z",
        "c6|2|1|0|0.00|null|null|null|null|null|2026-04-01T00:00:00Z|2026-04-25T08:00:00.5Z",
    ];
    assert_eq!(refreshed(&app, &session).await, expected);

    let answer = rows(
        &session,
        "select answer from record_progress_v1(
            array['bob', 'bob', 'bob', 'dan', 'bob'],
            array[
                '00000000-0000-7000-8000-00000000e001', '00000000-0000-7000-8000-00000000e00f',
                '00000000-0000-7000-8000-00000000e006', '00000000-0000-7000-8000-00000000e010',
                '00000000-0000-7000-8000-00000000e011'
            ]::uuid[],
            array[
                '00000000-0000-7000-8000-0000000001b1', '00000000-0000-7000-8000-0000000001b3',
                '00000000-0000-7000-8000-0000000001b2', '00000000-0000-7000-8000-0000000001b1',
                '00000000-0000-7000-8000-0000000004b1'
            ]::uuid[],
            array[120, 50, 81, 1, 1],
            array[true, true, true, true, true],
            array['2026-03-10T10:00:00Z', '2026-03-20T08:00:00Z', '2026-03-11T10:00:00Z', null, null]::timestamptz[],
            '2026-03-20T09:00:00Z', '2026-02-18T09:00:00Z', '2026-03-20T09:05:00Z', false
        )",
    )
    .await;
    let answer: Value = serde_json::from_str(&answer[0]).expect("JSON");
    let results: Vec<_> =
        answer["results"].as_array().expect("results").iter().map(|it| (&it["status"], &it["code"])).collect();
    assert_eq!(
        results,
        [
            (&json!("duplicate"), &Value::Null),
            (&json!("recorded"), &Value::Null),
            (&json!("rejected"), &json!("event_conflict")),
            (&json!("rejected"), &json!("not_enrolled")),
            (&json!("rejected"), &json!("not_published")),
        ]
    );
    assert_eq!(answer["courses"][0]["completedAt"], json!("2026-03-20T08:00:00Z"));
    let reset =
        format!("select * from reset_progress_v1('ada', '{}', '2026-03-21T08:00:00Z', false)", sample_course(3));
    assert_eq!(rows(&session, &reset).await, ["learn|t"]);

    expected[0] = "c1|3|2|2|66.66|952200|952200|650700|1253700|725|2026-04-01T00:00:00Z|2026-04-05T09:00:00Z";
    expected[2] = "c3|1|0|0|0.00|null|null|null|null|null|2026-04-01T00:00:00Z|null";
    assert_eq!(refreshed(&app, &session).await, expected);
    let attempts =
        "select attempt, completed_sections, completed_at from enrollments where reset_at is not null order by 1, 2";
    assert_eq!(rows(&session, attempts).await, ["2|0|null", "2|1|null"]);
}

#[tokio::test]
async fn v6_lists_stored_courses_by_popularity_without_sorting_them() {
    let url = lived_through(5).await;

    up_to(&url, 6).await.expect("V6 applies");

    let session = session(&url).await;
    let popular = "select right(id::text, 2), enrollment_count
        from courses where status = 'published' order by enrollment_count desc, id desc";
    assert_eq!(rows(&session, popular).await, ["c5|1", "c6|0", "c1|0"]);
    // A table of six rows would be read as a whole otherwise.
    session.batch_execute("set enable_seqscan = off; set enable_bitmapscan = off").await.expect("settings");
    let plan = rows(&session, &format!("explain (costs off) {popular}")).await.join("\n");
    assert!(plan.contains("courses_popular_idx") && !plan.contains("Sort"), "{plan}");
}

/// A long run, and a second one that waits for it: a concurrent build waits in turn for all who are in the middle of a
/// statement, so the second must not wait within one.
#[tokio::test]
async fn an_index_can_be_built_concurrently_while_another_runner_waits() {
    let url = lived_through(1).await;
    let index = "-- lectern: no transaction\ncreate index concurrently title_idx on courses (title);\n";
    let migrations = [ALL[0], Migration { name: "V2__index_titles", sql: index }];
    let (session, holder) = (session(&url).await, session(&url).await);
    // Keeps the build from its end until the second runner is there.
    holder.batch_execute("begin; lock table courses in share update exclusive mode").await.expect("a lock");
    let run = || {
        let url = url.clone();
        tokio::spawn(async move { apply(&url, &migrations).await })
    };
    let first = run();
    until(&session, "exists (select from pg_locks where relation = 'courses'::regclass and not granted)").await;
    let second = run();
    let runners = "select count(*) from pg_stat_activity where datname = current_database() and query like '%advisory%'
        and pid <> pg_backend_pid()";
    until(&session, &format!("({runners}) > 0")).await;

    holder.batch_execute("rollback").await.expect("the holder gives up");

    let mut applied = first.await.expect("a run").expect("the first run").applied;
    applied.extend(second.await.expect("a run").expect("the second run").applied);
    assert_eq!(applied, ["V2__index_titles"]);
    let valid = "select indisvalid from pg_index where indexrelid = 'title_idx'::regclass";
    assert_eq!(rows(&session, valid).await, ["t"]);
}

#[tokio::test]
async fn what_has_been_applied_is_not_applied_again() {
    let url = empty_database().await;
    let names: Vec<&str> = ALL.iter().map(|migration| migration.name).collect();
    let version = i32::try_from(ALL.len()).expect("few migrations");
    assert_eq!(up_to(&url, ALL.len()).await.expect("all apply"), Applied { applied: names, version });
    let nothing = Applied { applied: vec![], version };
    assert_eq!(up_to(&url, ALL.len()).await.expect("all are there"), nothing);
    // A binary of before, during a roll-back: the schema is ahead of it, and stays.
    assert_eq!(up_to(&url, 2).await.expect("all are there"), nothing);
}

#[tokio::test]
async fn runners_at_once_apply_each_migration_once() {
    let url = empty_database().await;
    let run = || up_to(&url, ALL.len());
    let (one, two, three) = tokio::join!(run(), run(), run());
    let mut applied: Vec<&str> = [one, two, three].into_iter().flat_map(|run| run.expect("a run").applied).collect();
    applied.sort_unstable();
    let mut all: Vec<&str> = ALL.iter().map(|migration| migration.name).collect();
    all.sort_unstable();
    assert_eq!(applied, all);
    assert_eq!(versions(&session(&url).await).await.len(), ALL.len());
}

#[tokio::test]
async fn a_migration_that_was_changed_is_refused_and_nothing_is_applied() {
    let url = lived_through(2).await;
    let mut changed = ALL.to_vec();
    changed[1].sql = format!("{}-- One more remark.\n", ALL[1].sql).leak();

    let error = apply(&url, &changed).await.expect_err("V2 is another");

    let error = telemetry::chain(&error);
    assert!(error.contains("V2__add_course_analytics was changed after it had been applied"), "{error}");
    let session = session(&url).await;
    assert_eq!(versions(&session).await, ["1", "2"]);
    assert_eq!(rows(&session, "select count(*) from course_analytics").await, ["1"]);
}

#[tokio::test]
async fn a_failed_migration_leaves_the_step_before_and_runs_again_once_mended() {
    for opening in ["", "-- lectern: no transaction\n"] {
        let url = empty_database().await;
        let third = |text: &str| Migration { name: "V3__half", sql: format!("{opening}{text}").leak() };
        let broken = [ALL[0], ALL[1], third("create table half (id integer); select 1 / 0;")];

        let error = apply(&url, &broken).await.expect_err("nothing can be divided by nought");

        assert!(telemetry::chain(&error).contains("division by zero"), "{error:?}");
        let session = session(&url).await;
        assert_eq!(versions(&session).await, ["1", "2"]);
        assert_eq!(rows(&session, "select to_regclass('half')").await, ["null"]);
        let mended = [ALL[0], ALL[1], third("create table half (id integer);")];
        assert_eq!(apply(&url, &mended).await.expect("it is mended").applied, ["V3__half"]);
        assert_eq!(rows(&session, "select to_regclass('half')").await, ["half"]);
    }
}

#[tokio::test]
async fn a_migration_that_does_not_get_its_lock_lets_readers_pass_and_tries_again() {
    let url = lived_through(1).await;
    let (session, holder, reader) = (session(&url).await, session(&url).await, session(&url).await);
    holder.batch_execute("begin; select from courses").await.expect("a long reader");
    let migrating = tokio::spawn({
        let url = url.clone();
        async move { up_to(&url, 2).await }
    });
    until(&session, "exists (select from pg_locks where relation = 'courses'::regclass and not granted)").await;

    // This one stands in line behind the migration, which waits for the first; it may lose 2 s and a little by that.
    reader.batch_execute("set statement_timeout = '4s'").await.expect("a limit");
    assert_eq!(rows(&reader, "select count(*) from courses").await, ["4"]);

    assert!(!migrating.is_finished());
    assert_eq!(versions(&session).await, ["1"]);
    holder.batch_execute("rollback").await.expect("the long reader ends");
    assert_eq!(migrating.await.expect("a run").expect("V2 applies").applied, [ALL[1].name]);
}

#[tokio::test]
async fn a_run_that_is_out_of_time_says_so_and_the_next_one_finishes() {
    let url = lived_through(1).await;
    let (session, holder) = (session(&url).await, session(&url).await);
    holder.batch_execute("begin; select from courses").await.expect("a long reader");
    let soon = std::time::Instant::now() + Duration::from_millis(300);

    let error = migrations::apply(&Config::for_database(&url), ALL, soon).await.expect_err("V2 has to wait");

    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(versions(&session).await, ["1"]);
    holder.batch_execute("rollback").await.expect("the long reader ends");
    // What the first run had begun may still come to its end in the database: here or there, each is applied once.
    up_to(&url, ALL.len()).await.expect("all apply");
    assert_eq!(versions(&session).await.len(), ALL.len());
}

/// A database that went through the first `steps` migrations and got the rows of each step's time.
async fn lived_through(steps: usize) -> String {
    let url = empty_database().await;
    for step in 1..=steps {
        up_to(&url, step).await.expect("the migration applies");
        sql(&url, &sample(step)).await;
    }
    url
}

fn sample(step: usize) -> String {
    let file = format!("{}/it/samples/V{step}.sql", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("{file}: {error}. A migration is tried over rows of the step before it: write them down there.")
    })
}

async fn up_to(url: &str, step: usize) -> Result<Applied, Error> {
    apply(url, &ALL[..step]).await
}

async fn apply(url: &str, migrations: &[Migration]) -> Result<Applied, Error> {
    migrations::apply(&Config::for_database(url), migrations, deadline()).await
}

/// A connection of its own, which ends with the client.
async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// What a query yields, a line a row.
async fn rows(session: &Client, query: &str) -> Vec<String> {
    let messages = session.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).unwrap_or("null")).collect::<Vec<&str>>().join("|"))
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

async fn versions(session: &Client) -> Vec<String> {
    rows(session, "select version from schema_migrations order by version").await
}

/// Asks the database until something has come about there.
async fn until(session: &Client, condition: &str) {
    let query = format!("select {condition}");
    let asking = async { while rows(session, &query).await != ["t"] {} };
    timeout(Duration::from_secs(20), asking).await.unwrap_or_else(|_| panic!("never: {condition}"));
}

fn sample_course(number: usize) -> String {
    format!("00000000-0000-7000-8000-0000000000c{number}")
}

/// One of the courses that stand behind the samples in the order of their ids.
fn course(number: usize) -> String {
    format!("00000000-0000-7000-8001-{number:012}")
}

async fn add_many_courses(session: &Client) {
    let ids: Vec<String> = (1..=MANY).map(course).collect();
    let courses = format!(
        "insert into courses (id, owner_id, title, description, difficulty, created_at, updated_at)
        select id::uuid, 'vera', 'One of many', '', 'beginner', now(), now()
        from unnest(string_to_array('{}', ',')) as id",
        ids.join(",")
    );
    session.batch_execute(&courses).await.expect("many courses");
}

/// After V3: every course has a row, and one mark more than before, unless it had had its row.
async fn check_backfill(session: &Client) {
    let marks = "select marks, count(*), count(total_enrollments)
        from (
            select courses.id, course_analytics.total_enrollments, count(course_changes.id) as marks
            from courses
            join course_analytics on course_analytics.course_id = courses.id
            left join course_changes on course_changes.course_id = courses.id
            group by courses.id, course_analytics.total_enrollments
        ) as counted
        group by marks order by marks";
    // The samples' first course had been marked twice; the fifth had its row with figures, and one mark.
    assert_eq!(rows(session, marks).await, [format!("1|{}|1", MANY + 4), "3|1|0".to_owned()]);
}

/// The figures of all courses after a refresh on 1 April 2026, and a reconciliation that finds nothing amiss.
async fn refreshed(app: &App, session: &Client) -> Vec<String> {
    let as_of: DateTime<Utc> = "2026-04-01T00:00:00Z".parse().expect("a time");
    let run = analytics::refresh(app, as_of, deadline()).await.expect("a refresh");
    assert_eq!((run.failed, run.remaining), (0, 0));
    let figures = rows(
        session,
        "select right(course_id::text, 2), total_enrollments, active_learners, completed_enrollments, completion_rate,
            avg_completion_time, median_completion_time, p25_completion_time, p75_completion_time, avg_time_spent,
            rfc3339_v1(as_of), rfc3339_v1(due_at)
        from course_analytics order by 1",
    )
    .await;
    let run = analytics::reconcile(app, as_of, deadline()).await.expect("a reconciliation");
    assert_eq!((run.failed, run.remaining, run.drift), (0, 0, Some(0)));
    figures
}
