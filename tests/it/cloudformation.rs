//! `migrate` and `prepare-database` as custom resources: whatever happens, the stack hears of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use shared::{
    app::App,
    config::{Config, Iam},
    error::Error,
    migrations::{self, ALL},
};
use tokio_postgres::NoTls;

use crate::{
    http_server::{Asked, HttpServer, Reply},
    own_servers::OwnPostgres,
    signatures::{credentials, is_signed},
    support::{NOWHERE, deadline, empty_database, sql},
};

const REGION: &str = "eu-central-1";
/// As the address of an answer looks.
const PATH: &str = "/arn%3Aaws%3Acloudformation?X-Amz-Signature=0123";

/// A stack that gives these replies, the last of them from then on.
async fn stack(replies: &'static [Option<u16>]) -> HttpServer {
    let reply = |number: usize| replies.get(number).or(replies.last()).copied().flatten();
    HttpServer::start(move |_, number| {
        let reply = reply(number).map(|status| Reply::new(status, ""));
        async move { reply }.boxed()
    })
    .await
}

fn event(stack: &HttpServer, kind: &str, properties: Value) -> Value {
    let mut event = json!({
        "RequestType": kind,
        "ResponseURL": format!("{}{PATH}", stack.url),
        "StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/lectern/1",
        "RequestId": "request-1",
        "ResourceType": "Custom::Schema",
        "LogicalResourceId": "Schema",
        "ResourceProperties": properties,
    });
    if kind != "Create" {
        event["PhysicalResourceId"] = json!("as before");
    }
    event
}

/// What the stack was told, once.
#[track_caller]
fn told(stack: &HttpServer) -> Value {
    let asked = stack.asked();
    let last = asked.last().unwrap();
    assert_eq!(last.line, format!("PUT {PATH} HTTP/1.1"));
    assert_eq!(last.header("content-type"), None);
    assert!(last.body.len() < 4_096);
    let answer: Value = serde_json::from_slice(&last.body).unwrap();
    let ids = [&answer["StackId"], &answer["RequestId"], &answer["LogicalResourceId"]];
    let stack = "arn:aws:cloudformation:eu-central-1:123456789012:stack/lectern/1";
    assert_eq!(ids, [&json!(stack), &json!("request-1"), &json!("Schema")]);
    answer
}

async fn migrate(url: &str, event: Value, deadline: Instant) -> Result<Value, Error> {
    migrate::handle(Arc::new(App::new(Config::for_database(url)).unwrap()), event, deadline).await
}

fn newest() -> String {
    ALL.last().unwrap().version().to_string()
}

#[tokio::test]
async fn creating_and_updating_migrate_and_tell_the_version() {
    let (url, stack) = (empty_database().await, stack(&[Some(200)]).await);
    let properties = json!({"ServiceToken": "arn", "SchemaVersion": newest()});
    migrate(&url, event(&stack, "Create", properties.clone()), deadline()).await.unwrap();
    let created = told(&stack);
    assert_eq!((&created["Status"], &created["PhysicalResourceId"]), (&json!("SUCCESS"), &json!("Schema")));
    assert_eq!(created["Data"], json!({"version": newest(), "applied": newest()}));
    migrate(&url, event(&stack, "Update", properties), deadline()).await.unwrap();
    let updated = told(&stack);
    assert_eq!((&updated["Status"], &updated["PhysicalResourceId"]), (&json!("SUCCESS"), &json!("as before")));
    assert_eq!((&updated["Data"]["applied"], stack.asked().len()), (&json!("0"), 2));
}

#[tokio::test]
async fn deleting_asks_nothing_of_the_database() {
    let stack = stack(&[Some(200)]).await;
    migrate(NOWHERE, event(&stack, "Delete", json!({})), deadline()).await.unwrap();
    assert_eq!(told(&stack)["Status"], "SUCCESS");
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_not_repeated_by_lambda() {
    let (url, stack) = (empty_database().await, stack(&[Some(200)]).await);
    migrations::apply(&Config::for_database(&url), &ALL[..3], deadline()).await.unwrap();
    sql(&url, "create table erasures (id integer)").await;
    for (url, properties, reason) in [
        (url.as_str(), json!({}), "V23__erasing_learners: db error: ERROR: relation \"erasures\" already exists"),
        (url.as_str(), json!({"SchemaVersion": "7"}), "the template is of schema version 7"),
        (NOWHERE, json!({}), "connecting to migrate: "),
    ] {
        migrate(url, event(&stack, "Update", properties), deadline()).await.expect("Lambda need not know");
        let answer = told(&stack);
        assert_eq!(answer["Status"], "FAILED");
        let told = answer["Reason"].as_str().unwrap();
        assert!(told.contains(reason) && !told.contains("secret") && told.chars().count() <= 400, "{told}");
    }
}

#[tokio::test]
async fn the_stack_hears_of_it_before_the_time_is_out() {
    let (url, stack) = (empty_database().await, stack(&[Some(200)]).await);
    migrations::apply(&Config::for_database(&url), &ALL[..1], deadline()).await.unwrap();
    let (holder, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    holder.batch_execute("begin; lock table courses").await.unwrap();
    for left in [Duration::from_secs(16), Duration::from_secs(5)] {
        let deadline = Instant::now() + left;
        migrate(&url, event(&stack, "Update", json!({})), deadline).await.unwrap();
        assert!(Instant::now() < deadline);
        let answer = told(&stack);
        assert!(answer["Reason"].as_str().unwrap().contains("out of time"), "{answer}");
        assert_eq!(answer["Status"], "FAILED");
    }
}

#[tokio::test]
async fn work_that_panics_or_never_ends_is_a_failure_like_others() {
    let stack = stack(&[Some(200)]).await;
    let panicking = async |_: Value, _: Instant| -> Result<Value, Error> { panic!("a fault of ours") };
    shared::cloudformation::answer(event(&stack, "Create", json!({})), deadline(), panicking).await.unwrap();
    assert_eq!(told(&stack)["Status"], "FAILED");
    let hanging = async |_: Value, _: Instant| std::future::pending().await;
    let soon = Instant::now() + Duration::from_secs(15);
    shared::cloudformation::answer(event(&stack, "Create", json!({})), soon, hanging).await.unwrap();
    assert!(told(&stack)["Reason"].as_str().unwrap().contains("out of time"));
}

#[tokio::test]
async fn an_answer_that_does_not_arrive_is_sent_again() {
    let stack_of = async |replies| stack(replies).await;
    for replies in [&[None, Some(200)][..], &[Some(503), Some(500), None, Some(200)]] {
        let stack = stack_of(replies).await;
        migrate(NOWHERE, event(&stack, "Delete", json!({})), deadline()).await.unwrap();
        assert_eq!((told(&stack)["Status"].as_str(), stack.asked().len()), (Some("SUCCESS"), replies.len()));
    }
    let deaf = stack_of(&[Some(403)]).await;
    let error = migrate(NOWHERE, event(&deaf, "Delete", json!({})), deadline()).await.expect_err("Lambda tries again");
    let error = shared::telemetry::chain(&error);
    assert!(error.contains("403") && !error.contains("X-Amz-Signature"), "{error}");
}

#[tokio::test]
async fn by_hand_it_answers_as_ever() {
    let url = empty_database().await;
    let answer = migrate(&url, json!({}), deadline()).await.unwrap();
    assert_eq!((&answer["version"], answer["applied"].as_array().unwrap().len()), (&json!(ALL.len()), ALL.len()));
    migrate(NOWHERE, json!({}), deadline()).await.expect_err("a failure is the caller's to see");
}

/// The Data API in front of a database that it enters as its master: first it has not heard of the function's rights, then
/// the database is asleep, then at work.
async fn data_api(url: String) -> HttpServer {
    HttpServer::start(move |asked: Asked, number| {
        let url = url.clone();
        async move {
            if number == 0 {
                return Some(Reply::aws_error(403, "AccessDeniedException", "User is not authorized to perform this"));
            }
            if number == 1 {
                return Some(Reply::aws_error(400, "DatabaseResumingException", "The cluster is resuming"));
            }
            let address = format!("http://{}/Execute", asked.header("host").unwrap());
            let headers: Vec<_> = asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if asked.line != "POST /Execute HTTP/1.1" || !is_signed("rds-data", REGION, &address, &headers, &asked.body)
            {
                return Some(Reply::aws_error(403, "InvalidSignatureException", "The signature does not match"));
            }
            let body: Value = serde_json::from_slice(&asked.body).unwrap();
            let names = (&body["resourceArn"], &body["secretArn"], &body["database"]);
            assert_eq!(names, (&json!("arn:cluster"), &json!("arn:secret"), &json!("lectern")));
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            // One statement, as the real one demands.
            match client.execute(body["sql"].as_str().unwrap(), &[]).await {
                Ok(_) => Some(Reply::new(200, json!({"numberOfRecordsUpdated": 0}).to_string())),
                Err(error) => Some(Reply::aws_error(400, "DatabaseErrorException", &shared::telemetry::chain(&error))),
            }
        }
        .boxed()
    })
    .await
}

fn prepared(endpoint: &str) -> Arc<App> {
    let mut config = Config::for_database(NOWHERE);
    config.iam = Some(Iam { region: REGION.to_owned(), credentials: credentials() });
    config.data_api_endpoint = Some(endpoint.to_owned());
    Arc::new(App::new(config).unwrap())
}

#[tokio::test]
async fn a_new_cluster_is_prepared_through_the_data_api_and_then_migrated_by_its_own_role() {
    let own = OwnPostgres::start().await;
    let roles = "lectern_read, lectern_write, lectern_refresh, lectern_migrate";
    sql(&own.url(), &format!("drop owned by {roles}; drop role {roles}")).await;
    // What RDS brings.
    sql(&own.url(), "create role rds_iam").await;
    sql(&own.url(), "create database prepared template template0").await;
    let database = format!("{}/prepared", own.url().rsplit_once('/').unwrap().0);
    let api = data_api(database.clone()).await;
    let properties = json!({"ClusterArn": "arn:cluster", "SecretArn": "arn:secret", "Database": "lectern"});
    let stack = stack(&[Some(200)]).await;
    for kind in ["Create", "Update"] {
        let event = event(&stack, kind, properties.clone());
        prepare_database::handle(prepared(&api.url), event, deadline()).await.unwrap();
        assert_eq!(told(&stack)["Status"], "SUCCESS", "{}", told(&stack));
    }
    sql(&own.url(), "alter role lectern_migrate password 'secret'").await;
    let url = format!("postgres://lectern_migrate:secret@{}/prepared", own.address());
    let done = migrations::apply(&Config::for_database(&url), ALL, deadline()).await.expect("its own role migrates");
    assert_eq!(done.applied.len(), ALL.len());
    let (client, connection) = tokio_postgres::connect(&database, NoTls).await.unwrap();
    tokio::spawn(connection);
    let granted = "select string_agg(member.rolname, ' ' order by member.rolname)
            || case when has_table_privilege('lectern_read', 'courses', 'select') then ' granted' end
            || case when not pg_has_role('lectern_migrate', 'lectern', 'member') then ' apart' end
        from pg_auth_members
        join pg_roles as member on member.oid = pg_auth_members.member
        where roleid = 'rds_iam'::regrole";
    let granted: String = client.query_one(granted, &[]).await.unwrap().try_get(0).unwrap();
    assert_eq!(granted, "lectern_migrate lectern_read lectern_refresh lectern_write granted apart");
    own.stop().await;
}

#[tokio::test]
async fn a_cluster_that_cannot_be_prepared_is_a_failure_with_its_reason() {
    let stack = stack(&[Some(200)]).await;
    let api = data_api(NOWHERE.to_owned()).await;
    let missing = event(&stack, "Create", json!({"ClusterArn": "arn:cluster", "Database": "lectern"}));
    prepare_database::handle(prepared(&api.url), missing, deadline()).await.unwrap();
    assert!(told(&stack)["Reason"].as_str().unwrap().contains("SecretArn is missing"), "{}", told(&stack));
    let refusal = Reply::aws_error(400, "BadRequestException", "HttpEndpoint is not enabled");
    let refusing = HttpServer::start(move |_, _| {
        let refusal = refusal.clone();
        async move { Some(refusal) }.boxed()
    })
    .await;
    let properties = json!({"ClusterArn": "arn:cluster", "SecretArn": "arn:secret", "Database": "lectern"});
    let event = event(&stack, "Create", properties);
    prepare_database::handle(prepared(&refusing.url), event, deadline()).await.unwrap();
    assert!(told(&stack)["Reason"].as_str().unwrap().contains("HttpEndpoint is not enabled"), "{}", told(&stack));
}
