//! The roles in which functions come to PostgreSQL. What they can do is shown by all other tests, which run each function
//! in its own; here is what they cannot.

use std::collections::BTreeMap;

use local::template::Template;
use reqwest::StatusCode;
use serde_json::json;
use shared::{
    config::{Config, Iam, Postgres},
    migrations::{self, ALL},
    telemetry,
};
use tokio_postgres::{Client, NoTls, error::SqlState};
use uuid::Uuid;

use crate::{
    log::Log,
    own_servers::OwnPostgres,
    signatures::credentials,
    support::{Lectern, address_of, database, deadline, empty_database, event, in_roles, sql},
};

const GRANTS: &str = include_str!("../../migrations/grants.sql");
/// Some user id, and whatever else a call of the function needs.
const ERASE: &str = "select erase_learner_v1('alice', gen_random_uuid(), now(), 20, 100)";

async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

async fn column(session: &Client, query: &str) -> Vec<String> {
    let rows = session.query(query, &[]).await.expect(query);
    rows.iter().map(|row| row.try_get(0).expect("a text")).collect()
}

#[test]
fn the_template_and_the_grants_agree_on_the_role_of_each_function() {
    let template = Template::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml").as_ref()).unwrap();
    for function in template.functions {
        let role = function.role.unwrap_or_else(|| panic!("{} has no role", function.binary));
        if function.binary == "prepare-database" {
            // It makes this role, and comes as the cluster's master, not by a connection of ours.
            assert_eq!(role, "lectern_migrate");
            continue;
        }
        let line = GRANTS.lines().find(|line| line.starts_with(&format!("--   {role} "))).unwrap();
        assert!(line.split([' ', ',']).any(|word| word == function.binary), "{}: {line}", function.binary);
    }
}

#[tokio::test]
async fn functions_come_each_in_its_role() {
    let lectern = Lectern::start_with(|config| config.redis = None).await;
    let roles = "select distinct regexp_replace(usename, '_[0-9a-f]{32}$', '') from pg_stat_activity
        where datname = current_database() and usename like 'lectern\\_%' order by 1";
    let course = lectern.course("teacher", &[1]).await;
    assert_eq!(lectern.fetch(&format!("select string_agg(a.r, ' ') from ({roles}) as a (r)")).await, "lectern_write");
    lectern.anyone().get(&format!("/courses/{}", course.id)).await.expect(StatusCode::OK);
    lectern.invoke("refresh-analytics", json!({})).await;
    assert_eq!(
        lectern.fetch(&format!("select string_agg(a.r, ' ') from ({roles}) as a (r)")).await,
        "lectern_read lectern_refresh lectern_write"
    );
}

#[tokio::test]
async fn who_reads_writes_nowhere_and_nobody_but_migrate_has_the_schema() {
    let url = database().await;
    let relations = "from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')";
    let control = session(&url).await;
    let writes = "select relname::text || ' ' || role || ' ' || privilege
        from (select relname, oid from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')) as a
        cross join unnest(array['lectern_read', 'lectern_write', 'lectern_refresh']) as role
        cross join unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as privilege
        where (role = 'lectern_read' or privilege in ('truncate', 'references', 'trigger'))
            and case privilege
                when 'insert' then has_any_column_privilege(role, oid, privilege)
                when 'update' then has_any_column_privilege(role, oid, privilege)
                when 'references' then has_any_column_privilege(role, oid, privilege)
                else has_table_privilege(role, oid, privilege)
            end";
    assert_eq!(column(&control, writes).await, [""; 0]);
    // What there is beside is decided, for every table and view.
    for relation in column(&control, &format!("select relname::text {relations}")).await {
        assert!(GRANTS.contains(&format!("'{relation}', ")), "grants.sql does not say who may do what with {relation}");
    }
}

#[tokio::test]
async fn no_role_can_do_what_no_function_of_it_does() {
    let urls = in_roles(&database().await).await;
    let denied = BTreeMap::from([
        (
            "lectern_read",
            vec![
                "insert into courses (id) values (gen_random_uuid())",
                "update enrollments set status = 'active'",
                "delete from progress",
                "select from progress_events",
                "select from course_creations",
                "select from course_creation_answers",
                "select from erasures",
                "select from courses for update",
                ERASE,
            ],
        ),
        (
            "lectern_write",
            vec![
                "update courses set owner_id = 'me'",
                "update courses set enrollment_count = 1",
                "delete from courses",
                "delete from sections",
                "delete from enrollments",
                "update progress_events set time_spent = 1",
                "delete from progress_events",
                "update ledger_horizon set pruned_before = now()",
                "select from course_analytics",
                "select from course_changes",
                "delete from course_recounts",
                "delete from erasures",
                "drop function record_progress_v3",
                "alter function erase_learner_v1 security invoker",
            ],
        ),
        (
            "lectern_refresh",
            vec![
                "select content from sections",
                "update courses set title = 'mine'",
                "update enrollments set status = 'active'",
                "delete from enrollments",
                "insert into progress_events (user_id) values ('alice')",
                "update progress set time_spent = 1",
                "select title from lessons",
                "select from course_creation_answers",
                "select from lesson_additions",
                ERASE,
            ],
        ),
    ]);
    for (role, statements) in denied {
        let session = session(&urls[role]).await;
        let everybody = [
            "create table mine (id integer)",
            "create function mine() returns integer language sql return 1",
            "alter table courses add column mine integer",
            "drop table progress",
            "truncate progress",
            "select from schema_migrations",
            "insert into schema_migrations (version) values (0)",
            "set role lectern_migrate",
        ];
        for statement in statements.into_iter().chain(everybody) {
            let error = session.batch_execute(statement).await.expect_err(statement);
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {statement}: {error:?}");
        }
    }
}

#[tokio::test]
async fn erasing_means_these_tables_whatever_its_caller_calls_by_their_names() {
    let lectern = Lectern::start().await;
    let course = lectern.course("teacher", &[1]).await;
    let alice = lectern.learner("alice");
    alice.enrol(&course).await.expect(StatusCode::CREATED);
    alice.record(&[event(&course.sections[0], 5, true)]).await.expect(StatusCode::OK);
    let session = session(&in_roles(&lectern.database).await["lectern_write"]).await;
    let trap = "create temporary table enrollments (user_id text, course_id uuid); set search_path = pg_temp, public";
    session.batch_execute(trap).await.unwrap();
    session.query_one(ERASE, &[]).await.unwrap();
    session.query_one(ERASE, &[]).await.unwrap();
    let left = "(select count(*) from public.enrollments) + (select count(*) from progress)
        + (select count(*) from progress_events)";
    assert_eq!(lectern.fetch(&format!("select {left}")).await, "0");
}

#[tokio::test]
async fn each_role_has_limits_in_this_database() {
    let url = empty_database().await;
    migrations::apply(&Config::for_database(&url), ALL, deadline()).await.expect("migrations apply");
    let limits = "select pg_roles.rolname || ' ' || setting
        from pg_db_role_setting
        join pg_database on pg_database.oid = setdatabase and datname = current_database()
        join pg_roles on pg_roles.oid = setrole
        cross join unnest(setconfig) as setting
        order by 1";
    let idle = |role: &str| format!("{role} idle_in_transaction_session_timeout=10s");
    assert_eq!(
        column(&session(&url).await, limits).await,
        [
            idle("lectern_migrate"),
            "lectern_migrate jit=off".to_owned(),
            idle("lectern_read"),
            "lectern_read jit=off".to_owned(),
            "lectern_read lock_timeout=1s".to_owned(),
            "lectern_read statement_timeout=10s".to_owned(),
            idle("lectern_refresh"),
            "lectern_refresh jit=off".to_owned(),
            "lectern_refresh lock_timeout=10s".to_owned(),
            "lectern_refresh statement_timeout=240s".to_owned(),
            "lectern_refresh work_mem=32MB".to_owned(),
            idle("lectern_write"),
            "lectern_write jit=off".to_owned(),
            "lectern_write lock_timeout=1s".to_owned(),
            "lectern_write statement_timeout=20s".to_owned(),
        ]
    );
}

#[tokio::test]
async fn an_owner_who_may_make_no_roles_grants_to_those_that_are_there() {
    // The roles are there, because some database of this server has been migrated by then.
    let server = database().await;
    let name = format!("owned_{}", Uuid::now_v7().simple());
    sql(&server, &format!("create role {name} login password 'secret'")).await;
    sql(&server, &format!("create database {name} owner {name} template template0")).await;
    let url = format!("postgres://{name}:secret@{}/{name}", address_of(&server));
    for applied in [ALL.len(), 0] {
        let done = migrations::apply(&Config::for_database(&url), ALL, deadline()).await.expect("migrations apply");
        assert_eq!(done.applied.len(), applied);
    }
    let may = "select has_table_privilege('lectern_read', 'courses', 'select')::text";
    assert_eq!(column(&session(&url).await, may).await, ["true"]);
}

#[tokio::test]
async fn roles_that_are_missing_are_named_and_stop_only_those_who_come_by_iam() {
    let own = OwnPostgres::start().await;
    let roles = "lectern_read, lectern_write, lectern_refresh, lectern_migrate";
    sql(&own.url(), &format!("drop owned by {roles}; drop role {roles}")).await;
    sql(&own.url(), "create role owner login password 'secret'").await;
    sql(&own.url(), "create database owned owner owner template template0").await;
    let mut config = Config::for_database(&format!("postgres://owner:secret@{}/owned", own.address()));
    let heard = Log::listen();
    migrations::apply(&config, ALL, deadline()).await.expect("migrations apply");
    let log = heard.text();
    assert!(log.contains("the roles lectern_read, lectern_write, lectern_refresh are missing"), "{log}");

    // By IAM a password is made that this server does not ask for.
    own.trust("owner").await;
    let iam = Iam { region: "eu-central-1".to_owned(), credentials: credentials() };
    config.postgres = Postgres { iam: Some(iam), ..config.postgres };
    let error = migrations::apply(&config, ALL, deadline()).await.expect_err("nobody could come in");
    assert!(telemetry::chain(&error).contains("are missing"), "{error:?}");
    own.stop().await;
}
