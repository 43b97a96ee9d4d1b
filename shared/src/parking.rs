//! `DynamoDB` as the place where a submission waits while PostgreSQL is away. Knows no noun: what is submitted is bytes.
//!
//! | item | `pk` | `sk` |
//! |---|---|---|
//! | pending | `pending#<00..15>` | the submission's id, a `UUIDv7`: a shard lists its submissions oldest first |
//! | finished | `finished#<id>` | the submission's id |
//!
//! Finishing deletes the one and puts the other in a single transaction, so that at every moment a submission is there
//! exactly once. It takes effect only on the very body that was read: one that was rewritten meanwhile stays pending. There is no index: its reads could be late, and what is not seen is not drained. Nothing here keeps a
//! submission from being *applied* twice; that is the ledger's part.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    operation::{put_item::PutItemError, transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    primitives::Blob,
    types::{AttributeValue, Delete, Put, ReturnValuesOnConditionCheckFailure, Select, TransactWriteItem},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    config,
    error::Error,
    gzip, ids,
    telemetry::{self, Metric},
};

/// The partition key, as the table has it.
pub const PARTITION_KEY: &str = "pk";
/// The sort key, as the table has it.
pub const SORT_KEY: &str = "sk";
/// Seconds since 1970 after which `DynamoDB` removes an item.
pub const EXPIRY: &str = "expires_at";
/// Pending submissions are spread over so many partitions, each good for a thousand kilobytes a second.
pub const SHARDS: u8 = 16;
/// Parts in which the whole table is read side by side.
pub const SEGMENTS: i32 = 8;

/// One request to `DynamoDB` takes milliseconds; the first of an environment has a TLS handshake before it.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(400);
/// For an operation with its one repetition. A client that has waited for PostgreSQL in vain waits for this too.
const OPERATION_LIMIT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 2;
/// `DynamoDB` takes 400 kB an item; a little is left for what stands beside the body.
const MOST_BYTES: usize = 390 * 1024;
/// Much more than any submission has when it is unpacked again; something longer is not ours.
const MOST_UNPACKED: usize = 16 * 1024 * 1024;

/// A submission that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Its id; its time decides the order.
    pub id: Uuid,
    /// The `sub` of who sent it.
    pub sender: String,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// What was submitted.
    pub body: Vec<u8>,
    /// How often it was tried in vain.
    pub attempts: u32,
}

impl Submission {
    /// A new one.
    pub fn new(sender: &str, accepted_at: DateTime<Utc>, body: Vec<u8>) -> Self {
        Self { id: Uuid::now_v7(), sender: sender.to_owned(), accepted_at, body, attempts: 0 }
    }
}

/// How a submission ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something of it counts.
    Applied,
    /// Nothing of it can count.
    Rejected,
}

impl Outcome {
    /// As it is stored and answered.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Applied, Self::Rejected].into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// The end of a submission's wait.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// What is said of each item, as JSON.
    pub results: &'a [u8],
    /// For how long it can be asked for.
    pub keep: TimeDelta,
    /// Whether the body stays, for a person who finds that more of it should have counted.
    pub keeps_body: bool,
}

/// What is known of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The `sub` of who sent it.
    pub sender: String,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How it ended, with what was said of each item; nothing while it waits.
    pub ended: Option<(Outcome, Vec<u8>)>,
}

/// A finished submission, as it lies in the table.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its id.
    pub id: Uuid,
    /// The `sub` of who sent it.
    pub sender: String,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was said of each item.
    pub results: Vec<u8>,
    /// What was submitted, where that was kept.
    pub body: Option<Vec<u8>>,
    /// The results as they lie there: a rewriting takes effect on these, and this sender, alone.
    stored: AttributeValue,
}

/// Where a segment of the table goes on.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<Item>);

/// Some of the finished submissions of a segment, in no order.
#[derive(Debug, Default)]
pub struct FinishedPage {
    /// The submissions.
    pub submissions: Vec<Finished>,
    /// How many beside them cannot be read.
    pub unreadable: u64,
    /// Where the next page begins, where there is one.
    pub next: Option<Place>,
}

/// A part of a shard, oldest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The submissions.
    pub submissions: Vec<Submission>,
    /// Since when those wait that cannot be read: of a newer version, perhaps. They stay for who understands them.
    pub unreadable: Vec<DateTime<Utc>>,
    /// Behind which the next page begins, where there is one.
    pub behind: Option<Uuid>,
}

/// The table. Connects when it is first used: most environments never need it.
#[derive(Debug)]
pub struct Parking {
    settings: config::Parking,
    client: OnceCell<Client>,
}

type Item = std::collections::HashMap<String, AttributeValue>;

impl Parking {
    /// The table of these settings.
    pub fn new(settings: config::Parking) -> Self {
        Self { settings, client: OnceCell::new() }
    }

    /// Puts a submission where it waits. Putting the same one again changes nothing.
    pub async fn put(&self, submission: &Submission) -> Result<(), Error> {
        let (body, hash) = pack(&submission.body)?;
        let put =
            self.client().await.put_item().table_name(&self.settings.table).set_item(Some(pending_key(submission.id)));
        let put = put
            .item("sender", AttributeValue::S(submission.sender.clone()))
            .item("accepted_at", time(submission.accepted_at))
            .item("body", body)
            .item("hash", AttributeValue::B(Blob::new(hash.as_slice())))
            .item("attempts", AttributeValue::N("0".to_owned()))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        // On the heap: a call of the SDK is larger than all else that a function does.
        let result = Box::pin(put.send()).await.map_err(|error| error.into_service_error());
        match result {
            Ok(_) => Ok(()),
            // The first attempt did reach the table, only its answer did not come back.
            Err(PutItemError::ConditionalCheckFailedException(failed))
                if failed.item.as_ref().and_then(|item| blob(item, "hash")) == Some(hash.as_slice()) =>
            {
                Ok(())
            }
            Err(error) => Err(away("parking.put", error)),
        }
    }

    /// The next submissions of a shard, as many as fit into a page.
    pub async fn pending(&self, shard: u8, behind: Option<Uuid>, most: i32) -> Result<Page, Error> {
        let mut query = self.query(shard).await.limit(most);
        if let Some(id) = behind {
            query = query.set_exclusive_start_key(Some(key(partition(shard), id)));
        }
        let answer = query.send().await.map_err(|error| away("parking.pending", error.into_service_error()))?;
        let behind = answer.last_evaluated_key.as_ref().and_then(id);
        let items = answer.items.unwrap_or_default();
        let mut page = Page { behind, ..Page::default() };
        for item in &items {
            match read_pending(item) {
                Some(submission) => page.submissions.push(submission),
                None => {
                    // What was not stored by us has no time, and should be looked at now.
                    page.unreadable.push(id(item).and_then(ids::made_at).unwrap_or_default());
                    tracing::error!(submission = text(item, SORT_KEY), "a parked submission cannot be read");
                }
            }
        }
        Ok(page)
    }

    /// How many submissions of a shard wait.
    pub async fn count(&self, shard: u8) -> Result<u64, Error> {
        let (mut count, mut start) = (0, None);
        loop {
            let query = self.query(shard).await.select(Select::Count).set_exclusive_start_key(start);
            let answer = query.send().await.map_err(|error| away("parking.count", error.into_service_error()))?;
            count += u64::try_from(answer.count).unwrap_or_default();
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(count);
            }
        }
    }

    /// Notes that a submission was tried in vain, and why.
    pub async fn note_failure(&self, id: Uuid, why: &str) -> Result<(), Error> {
        let update = self.client().await.update_item().table_name(&self.settings.table).set_key(Some(pending_key(id)));
        let result = update
            .update_expression("add attempts :one set last_error = :why")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .expression_attribute_values(":why", AttributeValue::S(why.to_owned()))
            // Another drainer may have finished it.
            .condition_expression("attribute_exists(pk)")
            .send()
            .await
            .map_err(|error| error.into_service_error());
        match result {
            Err(error) if !error.is_conditional_check_failed_exception() => Err(away("parking.note_failure", error)),
            _ => Ok(()),
        }
    }

    /// Ends the wait of a submission: it is pending no more, and its outcome can be read for a while.
    ///
    /// Nothing changes where that has been done already: the first outcome stays.
    pub async fn finish(&self, submission: &Submission, end: &End<'_>, now: DateTime<Utc>) -> Result<(), Error> {
        let mut item = key(finished(submission.id), submission.id);
        item.insert("sender".to_owned(), AttributeValue::S(submission.sender.clone()));
        item.insert("accepted_at".to_owned(), time(submission.accepted_at));
        item.insert("finished_at".to_owned(), time(now));
        item.insert("status".to_owned(), AttributeValue::S(end.outcome.as_str().to_owned()));
        item.insert("results".to_owned(), pack(end.results)?.0);
        item.insert(EXPIRY.to_owned(), AttributeValue::N((now + end.keep).timestamp().to_string()));
        let (body, hash) = pack(&submission.body)?;
        if end.keeps_body && fits_beside(&item, &body) {
            item.insert("body".to_owned(), body);
        }
        let table = &self.settings.table;
        let delete = Delete::builder().table_name(table).set_key(Some(pending_key(submission.id)));
        let delete = delete
            .condition_expression("#hash = :hash and #sender = :sender")
            .expression_attribute_names("#hash", "hash")
            .expression_attribute_names("#sender", "sender")
            .expression_attribute_values(":hash", AttributeValue::B(Blob::new(hash.as_slice())))
            .expression_attribute_values(":sender", AttributeValue::S(submission.sender.clone()))
            .build();
        let put = Put::builder().table_name(table).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(pk)").build();
        let malformed = |error| Error::internal("parking.finish", error);
        let result = self
            .client()
            .await
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().delete(delete.map_err(malformed)?).build())
            .transact_items(TransactWriteItem::builder().put(put.map_err(malformed)?).build())
            .send()
            .await
            .map_err(|error| error.into_service_error());
        match result {
            Ok(_) => Ok(()),
            Err(TransactWriteItemsError::TransactionCanceledException(canceled)) => {
                let failed: Vec<bool> = canceled
                    .cancellation_reasons()
                    .iter()
                    .map(|reason| reason.code() == Some("ConditionalCheckFailed"))
                    .collect();
                match failed.as_slice() {
                    // Another drainer was first; or it was rewritten, and the next run finds what is left of it.
                    [true, _] => Ok(()),
                    // It was finished before, and came back by a repeated request that was late.
                    [false, true] => self.forget(submission.id).await,
                    // Somebody else is at it in this moment.
                    _ => Err(away("parking.finish", TransactWriteItemsError::TransactionCanceledException(canceled))),
                }
            }
            Err(error) => Err(away("parking.finish", error)),
        }
    }

    /// What is known of a submission.
    pub async fn find(&self, id: Uuid, now: DateTime<Utc>) -> Result<Option<Status>, Error> {
        // In this order: what is finished between the two questions is found by the second.
        if let Some(item) = self.get(pending_key(id)).await? {
            return Ok(read_status(&item, None));
        }
        let Some(item) = self.get(key(finished(id), id)).await? else { return Ok(None) };
        // DynamoDB takes days to remove what has expired.
        let expired = number(&item, EXPIRY).is_none_or(|at| at <= now.timestamp());
        let outcome = text(&item, "status").and_then(Outcome::of);
        Ok(outcome.filter(|_| !expired).and_then(|outcome| read_status(&item, Some(outcome))))
    }

    async fn get(&self, key: Item) -> Result<Option<Item>, Error> {
        let get = self.client().await.get_item().table_name(&self.settings.table).set_key(Some(key));
        // On the heap, as in `put`.
        let answer = Box::pin(get.consistent_read(true).send()).await;
        Ok(answer.map_err(|error| away("parking.get", error.into_service_error()))?.item)
    }

    /// A page of the finished submissions in one of [`SEGMENTS`] parts of the table. There is no other way to find them
    /// but by reading all; what was finished before the first page is asked for is among them.
    pub async fn finished(&self, segment: i32, place: Place, most: i32) -> Result<FinishedPage, Error> {
        let scan = self.client().await.scan().table_name(&self.settings.table).consistent_read(true);
        let scan = scan.segment(segment).total_segments(SEGMENTS).limit(most).set_exclusive_start_key(place.0);
        let answer = scan
            .filter_expression("begins_with(pk, :finished)")
            .expression_attribute_values(":finished", AttributeValue::S("finished#".to_owned()))
            .send()
            .await
            .map_err(|error| away("parking.finished", error.into_service_error()))?;
        let next = answer.last_evaluated_key.map(|key| Place(Some(key)));
        let mut page = FinishedPage { next, ..FinishedPage::default() };
        for item in answer.items.unwrap_or_default() {
            match read_finished(&item) {
                Some(submission) => page.submissions.push(submission),
                None => {
                    page.unreadable += 1;
                    tracing::error!(submission = text(&item, SORT_KEY), "a finished submission cannot be read");
                }
            }
        }
        Ok(page)
    }

    /// Puts another sender and body into a submission that waits. Whether that took effect: not where it has been
    /// finished or rewritten since it was read.
    pub async fn rewrite_pending(&self, read: &Submission, sender: &str, body: &[u8]) -> Result<bool, Error> {
        let (_, old_hash) = pack(&read.body)?;
        let (body, hash) = pack(body)?;
        let blob = |hash: [u8; 32]| AttributeValue::B(Blob::new(hash.as_slice()));
        let update =
            self.client().await.update_item().table_name(&self.settings.table).set_key(Some(pending_key(read.id)));
        let result = update
            .update_expression("set #sender = :sender, #body = :body, #hash = :hash")
            .condition_expression("#hash = :old and #sender = :old_sender")
            .expression_attribute_values(":old_sender", AttributeValue::S(read.sender.clone()))
            .expression_attribute_names("#sender", "sender")
            .expression_attribute_names("#body", "body")
            .expression_attribute_names("#hash", "hash")
            .expression_attribute_values(":sender", AttributeValue::S(sender.to_owned()))
            .expression_attribute_values(":body", body)
            .expression_attribute_values(":hash", blob(hash))
            .expression_attribute_values(":old", blob(old_hash))
            .send()
            .await
            .map_err(|error| error.into_service_error());
        took_effect("parking.rewrite_pending", result)
    }

    /// Puts other results, and another body where there is one, into a finished submission. Whether that took effect: not
    /// where it has been removed or rewritten since it was read.
    pub async fn rewrite_finished(
        &self,
        read: &Finished,
        sender: &str,
        results: &[u8],
        body: Option<&[u8]>,
    ) -> Result<bool, Error> {
        let key = key(finished(read.id), read.id);
        let update = self.client().await.update_item().table_name(&self.settings.table).set_key(Some(key));
        let update = match body {
            Some(body) => update
                .update_expression("set #sender = :sender, #results = :results, #body = :body")
                .expression_attribute_names("#body", "body")
                .expression_attribute_values(":body", pack(body)?.0),
            None => update.update_expression("set #sender = :sender, #results = :results"),
        };
        let result = update
            .condition_expression("#results = :old and #sender = :old_sender")
            .expression_attribute_values(":old_sender", AttributeValue::S(read.sender.clone()))
            .expression_attribute_names("#sender", "sender")
            .expression_attribute_names("#results", "results")
            .expression_attribute_values(":sender", AttributeValue::S(sender.to_owned()))
            .expression_attribute_values(":results", pack(results)?.0)
            .expression_attribute_values(":old", read.stored.clone())
            .send()
            .await
            .map_err(|error| error.into_service_error());
        took_effect("parking.rewrite_finished", result)
    }

    /// Removes a submission that waits, if it does.
    pub async fn forget(&self, id: Uuid) -> Result<(), Error> {
        self.delete(pending_key(id)).await
    }

    /// Removes a finished submission, if it is there.
    pub async fn forget_finished(&self, id: Uuid) -> Result<(), Error> {
        self.delete(key(finished(id), id)).await
    }

    async fn delete(&self, key: Item) -> Result<(), Error> {
        let delete = self.client().await.delete_item().table_name(&self.settings.table).set_key(Some(key));
        let answer = delete.send().await;
        answer.map(drop).map_err(|error| away("parking.forget", error.into_service_error()))
    }

    async fn query(&self, shard: u8) -> aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder {
        let query = self.client().await.query().table_name(&self.settings.table).consistent_read(true);
        query
            .key_condition_expression("pk = :shard")
            .expression_attribute_values(":shard", AttributeValue::S(partition(shard)))
    }

    async fn client(&self) -> &Client {
        // On the heap: done once, and so large that every invocation would be.
        self.client.get_or_init(|| Box::pin(connect(&self.settings))).await
    }
}

/// A client of the endpoint of these settings. Where it is plain `http` it is an emulator, which takes any credentials.
pub async fn connect(settings: &config::Parking) -> Client {
    let time_limits = TimeoutConfig::builder()
        .connect_timeout(ATTEMPT_LIMIT)
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(OPERATION_LIMIT)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(time_limits).retry_config(
        RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(Duration::from_millis(20)),
    );
    let loader = match settings.endpoint.as_deref() {
        Some(endpoint) if endpoint.starts_with("http://") => loader
            .endpoint_url(endpoint)
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("lectern", "lectern", None, None, "emulator"))
            .http_client(Builder::new().build_http()),
        endpoint => {
            let loader = match endpoint {
                Some(endpoint) => loader.endpoint_url(endpoint),
                None => loader,
            };
            loader.http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
        }
    };
    Client::new(&loader.load().await)
}

fn away(context: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    telemetry::count(Metric::ParkingFailures);
    Error::unavailable(context, error)
}

/// Whether a change was made, or refused by its condition.
fn took_effect<T>(context: &'static str, result: Result<T, UpdateItemError>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.is_conditional_check_failed_exception() => Ok(false),
        Err(error) => Err(away(context, error)),
    }
}

/// Compressed, and a hash by which it is known again.
fn pack(bytes: &[u8]) -> Result<(AttributeValue, [u8; 32]), Error> {
    let packed = gzip::compress(bytes).filter(|packed| packed.len() <= MOST_BYTES);
    let packed = packed.ok_or(Error::Unavailable { context: "parking: too large for an item", source: None })?;
    Ok((AttributeValue::B(Blob::new(packed)), Sha256::digest(bytes).into()))
}

fn fits_beside(item: &Item, body: &AttributeValue) -> bool {
    let size = |value: &AttributeValue| value.as_b().map_or(0, |blob| blob.as_ref().len());
    item.values().map(size).sum::<usize>() + size(body) <= MOST_BYTES
}

fn unpack(item: &Item, name: &str) -> Option<Vec<u8>> {
    gzip::decompress(blob(item, name)?, MOST_UNPACKED)
}

fn read_pending(item: &Item) -> Option<Submission> {
    Some(Submission {
        id: id(item)?,
        sender: text(item, "sender")?.to_owned(),
        accepted_at: moment(item)?,
        body: unpack(item, "body")?,
        attempts: number(item, "attempts").and_then(|attempts| attempts.try_into().ok())?,
    })
}

fn read_finished(item: &Item) -> Option<Finished> {
    Some(Finished {
        id: id(item)?,
        sender: text(item, "sender")?.to_owned(),
        accepted_at: moment(item)?,
        outcome: text(item, "status").and_then(Outcome::of)?,
        results: unpack(item, "results")?,
        body: match item.contains_key("body") {
            true => Some(unpack(item, "body")?),
            false => None,
        },
        stored: item.get("results")?.clone(),
    })
}

fn read_status(item: &Item, outcome: Option<Outcome>) -> Option<Status> {
    let ended = match outcome {
        Some(outcome) => Some((outcome, unpack(item, "results")?)),
        None => None,
    };
    Some(Status { sender: text(item, "sender")?.to_owned(), accepted_at: moment(item)?, ended })
}

fn pending_key(id: Uuid) -> Item {
    // The last byte of a UUIDv7 is random.
    key(partition(id.as_bytes()[15] % SHARDS), id)
}

fn partition(shard: u8) -> String {
    format!("pending#{shard:02}")
}

fn finished(id: Uuid) -> String {
    format!("finished#{id}")
}

fn key(partition: String, id: Uuid) -> Item {
    Item::from([
        (PARTITION_KEY.to_owned(), AttributeValue::S(partition)),
        (SORT_KEY.to_owned(), AttributeValue::S(id.to_string())),
    ])
}

fn time(moment: DateTime<Utc>) -> AttributeValue {
    AttributeValue::S(moment.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn moment(item: &Item) -> Option<DateTime<Utc>> {
    text(item, "accepted_at")?.parse().ok()
}

fn id(item: &Item) -> Option<Uuid> {
    text(item, SORT_KEY)?.parse().ok()
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn blob<'a>(item: &'a Item, name: &str) -> Option<&'a [u8]> {
    item.get(name)?.as_b().ok().map(AsRef::as_ref)
}
