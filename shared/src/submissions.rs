//! Batches of progress that came while PostgreSQL was away: parked, replayed, and what became of them.
//!
//! A submission is applied by the code that records any batch. Every crash in between leads to applying it again, which
//! the ledger makes harmless: the events that had counted are duplicates.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::{StreamExt, future, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use crate::{
    app::App,
    auth::Caller,
    cache::{Document, Source},
    error::{Error, reason},
    ids,
    ledger::{self, LONGEST_PARKING},
    parking::{End, Outcome, Parking, SHARDS, Submission},
    progress::{self, Occasion, ProgressEvent, Recorded},
    telemetry::{self, Metric},
};

/// Applied submissions can be asked for so long.
const KEEP_APPLIED: TimeDelta = TimeDelta::days(7);
/// Rejected ones longer: somebody has to look at them.
const KEEP_REJECTED: TimeDelta = TimeDelta::days(30);
/// Nobody asks for a canary.
const KEEP_CANARY: TimeDelta = TimeDelta::days(1);
/// A submission that has waited longer is warned of: replay runs every minute.
const LONG_WAIT: TimeDelta = TimeDelta::hours(1);
/// How long one batch may take to replay: nobody waits for it, and it may have been parked because it takes long.
const REPLAY_BUDGET: Duration = Duration::from_secs(10);
/// So many are under way at once, one in PostgreSQL and the others in `DynamoDB`.
const LANES: usize = 8;
/// Submissions that are read at a time from each shard.
const PAGE: i32 = 25;
/// What was tried so often comes after all others, so that it cannot hold them up.
const TROUBLESOME: u32 = 2;
/// Troublesome ones that one run remembers for its end.
const MOST_TROUBLESOME: usize = 500;
/// A canary is sent in each of so many runs in a row, a minute apart: the first may only wake a database that sleeps.
const CANARIES: i64 = 3;
/// The sender of canaries: no `sub` is empty.
const CANARY: &str = "";

/// What is parked of a batch, beside its sender.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    /// Whether the sender may act for others.
    service: bool,
    /// How old an event was allowed to be when it was accepted.
    max_age_days: u32,
    /// Parked by ourselves to prove that all of this works.
    #[serde(default)]
    canary: bool,
    /// What was sent, each with its learner.
    pub(crate) events: Vec<ProgressEvent>,
}

/// What became of a batch when it came in.
#[derive(Debug)]
pub enum Received {
    /// PostgreSQL has it.
    Recorded(Recorded),
    /// `DynamoDB` has it, as this submission.
    Parked(Uuid),
}

/// Records a batch, or parks it where PostgreSQL is away.
pub async fn receive(
    app: &App,
    caller: &Caller,
    events: Vec<ProgressEvent>,
    accepted_at: DateTime<Utc>,
) -> Result<Received, Error> {
    let away = match progress::record(app, caller, &events, accepted_at, Occasion::Request).await {
        Ok(recorded) => return Ok(Received::Recorded(recorded)),
        Err(error @ Error::Unavailable { .. }) => error,
        Err(error) => return Err(error),
    };
    let Some(parking) = &app.parking else { return Err(away) };
    tracing::warn!(error = telemetry::chain(&away), "PostgreSQL is away: a batch is parked");
    let max_age_days = app.config.progress_max_event_age_days;
    let batch = Batch { service: caller.service, max_age_days, canary: false, events };
    let id = park(parking, &caller.user, accepted_at, &batch).await?;
    telemetry::count(Metric::Parked);
    Ok(Received::Parked(id))
}

async fn park(parking: &Parking, sender: &str, accepted_at: DateTime<Utc>, batch: &Batch) -> Result<Uuid, Error> {
    let body = serde_json::to_vec(batch).map_err(|error| Error::internal("writing a submission", error))?;
    let submission = Submission::new(sender, accepted_at, body);
    parking.put(&submission).await?;
    Ok(submission.id)
}

/// What became of a submission, for who sent it.
pub async fn status(app: &App, caller: &Caller, id: Uuid, now: DateTime<Utc>) -> Result<(Document, Source), Error> {
    let missing = Error::NotFound(reason::SUBMISSION_NOT_FOUND);
    let Some(parking) = &app.parking else { return Err(missing) };
    let status = parking.find(id, now).await?.filter(|status| status.sender == caller.user).ok_or(missing)?;
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        submission_id: Uuid,
        status: &'a str,
        accepted_at: String,
        results: Option<&'a RawValue>,
    }
    let unreadable = |error| Error::internal("reading results", error);
    let results = status.ended.as_ref().map(|(_, results)| serde_json::from_slice(results)).transpose();
    let answer = Answer {
        submission_id: id,
        status: status.ended.as_ref().map_or("parked", |(outcome, _)| outcome.as_str()),
        accepted_at: status.accepted_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        results: results.map_err(unreadable)?,
    };
    Ok((serde_json::to_string(&answer).map_err(unreadable)?.into(), Source::Bypass))
}

/// What a replay came to, in submissions; a canary is counted only where it has to stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Of which something counts now.
    pub applied: u64,
    /// Of which nothing can count.
    pub rejected: u64,
    /// That still wait.
    pub remaining: u64,
}

impl Replayed {
    /// As the function answers it.
    pub fn to_json(self) -> Value {
        json!({"applied": self.applied, "rejected": self.rejected, "remaining": self.remaining})
    }
}

/// Applies what is parked, oldest first, until nothing waits, the deadline is near or PostgreSQL is away.
pub async fn replay(app: &App, now: DateTime<Utc>, deadline: Instant) -> Result<Replayed, Error> {
    let Some(parking) = &app.parking else { return Ok(Replayed::default()) };
    let run = Run::new(app, parking, now, deadline);
    let canary_is_due = now.timestamp() / 60 % i64::from(app.config.canary_every_minutes) < CANARIES;
    // A database that sleeps while nobody learns is woken up by a look at it.
    if !canary_is_due && !run.finds_any().await? {
        return Ok(Replayed::default());
    }
    // Where it is away, nothing of what waits is to blame.
    run.over.store(!app.db.is_there().await, Ordering::Relaxed);
    let canary = if canary_is_due { run.send_canary().await? } else { None };
    run.drain().await?;
    run.look_after(canary).await;
    run.tell().await
}

/// One run of the replay.
struct Run<'a> {
    app: &'a App,
    parking: &'a Parking,
    now: DateTime<Utc>,
    deadline: Instant,
    /// Something is away: nothing more is begun.
    over: AtomicBool,
    /// Not all pages were read.
    cut: AtomicBool,
    applied: AtomicU64,
    rejected: AtomicU64,
    canaries: AtomicU64,
    left: AtomicU64,
    /// When the oldest submission was accepted that this run had to leave, in microseconds since 1970.
    oldest_left: AtomicI64,
}

impl<'a> Run<'a> {
    fn new(app: &'a App, parking: &'a Parking, now: DateTime<Utc>, deadline: Instant) -> Self {
        Self {
            app,
            parking,
            now,
            deadline,
            over: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            canaries: AtomicU64::new(0),
            left: AtomicU64::new(0),
            oldest_left: AtomicI64::new(i64::MAX),
        }
    }

    /// Whether anything waits.
    async fn finds_any(&self) -> Result<bool, Error> {
        let pages = future::try_join_all((0..SHARDS).map(|shard| self.parking.pending(shard, None, 1))).await?;
        Ok(pages.iter().any(|page| !page.submissions.is_empty() || !page.unreadable.is_empty()))
    }

    /// Goes through all shards side by side, a page of each at a time.
    async fn drain(&self) -> Result<(), Error> {
        let mut ends: Vec<(u8, Option<Uuid>)> = (0..SHARDS).map(|shard| (shard, None)).collect();
        let mut troublesome = Vec::new();
        while !ends.is_empty() {
            let pages = ends.iter().map(|(shard, behind)| self.parking.pending(*shard, *behind, PAGE));
            let pages = future::try_join_all(pages).await?;
            let mut submissions = Vec::new();
            let mut next = Vec::new();
            for ((shard, _), page) in ends.iter().zip(pages) {
                submissions.extend(page.submissions);
                self.left.fetch_add(page.unreadable.len() as u64, Ordering::Relaxed);
                page.unreadable.iter().for_each(|since| self.wait_since(*since));
                next.extend(page.behind.map(|id| (*shard, Some(id))));
            }
            ends = next;
            let (ready, later): (Vec<_>, Vec<_>) =
                submissions.into_iter().partition(|submission| submission.attempts < TROUBLESOME);
            for submission in later {
                if troublesome.len() < MOST_TROUBLESOME {
                    troublesome.push(submission);
                } else {
                    self.leave(&submission);
                }
            }
            self.replay_all(ready, LANES).await;
            if !ends.is_empty() && self.is_over() {
                self.cut.store(true, Ordering::Relaxed);
                // What was not read was accepted after what was.
                ends.iter().filter_map(|(_, behind)| ids::made_at((*behind)?)).for_each(|time| self.wait_since(time));
                break;
            }
        }
        // One by one: they may hold what others wait for.
        self.replay_all(troublesome, 1).await;
        Ok(())
    }

    /// Replays submissions, oldest first, so many at once.
    async fn replay_all(&self, mut submissions: Vec<Submission>, lanes: usize) {
        submissions.sort_by_key(|submission| submission.id);
        stream::iter(&submissions).for_each_concurrent(lanes, |submission| self.replay_one(submission)).await;
    }

    async fn replay_one(&self, submission: &Submission) {
        if self.is_over() {
            return self.leave(submission);
        }
        if let Err(error) = self.apply(submission).await {
            tracing::warn!(submission = %submission.id, error = telemetry::chain(&error), "a submission was not replayed");
            self.leave(submission);
            // Was it this batch, or is nobody there, or had we no more time? Only the first is worth a note.
            if matches!(error, Error::Unavailable { .. }) && !self.app.db.is_there().await {
                self.over.store(true, Ordering::Relaxed);
            }
            if !self.is_over() {
                let noted = self.parking.note_failure(submission.id, &telemetry::chain(&error)).await;
                self.over.fetch_or(noted.is_err(), Ordering::Relaxed);
            }
        }
    }

    async fn apply(&self, submission: &Submission) -> Result<(), Error> {
        let is_late = submission.accepted_at < self.now - LONGEST_PARKING;
        let batch: Batch = match serde_json::from_slice(&submission.body) {
            Ok(batch) => batch,
            // Nobody has come who understands it.
            Err(_) if is_late => Batch { service: false, max_age_days: 0, canary: false, events: Vec::new() },
            Err(error) => return Err(Error::internal("reading a submission", error)),
        };
        let judged =
            if is_late { judge_late(self.app, &batch).await? } else { self.record(submission, &batch).await? };
        let end = End {
            outcome: if judged.counts { Outcome::Applied } else { Outcome::Rejected },
            results: &judged.results,
            keep: match judged.rejected {
                _ if batch.canary => KEEP_CANARY,
                0 if judged.counts => KEEP_APPLIED,
                _ => KEEP_REJECTED,
            },
            keeps_body: !batch.canary && (judged.rejected > 0 || !judged.counts),
        };
        self.parking.finish(submission, &end, self.now).await?;
        let counter = match end.outcome {
            _ if batch.canary => &self.canaries,
            Outcome::Applied => &self.applied,
            Outcome::Rejected => &self.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if !batch.canary {
            telemetry::count(Metric::Drained);
        }
        if end.keeps_body {
            telemetry::count(Metric::RejectedParked);
            // Somebody has been promised that these would be looked at.
            tracing::error!(
                submission = %submission.id,
                events = batch.events.len(),
                rejected = judged.rejected,
                "events of a submission were rejected"
            );
        }
        Ok(())
    }

    async fn record(&self, submission: &Submission, batch: &Batch) -> Result<Judged, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let occasion = Occasion::Replay { budget: REPLAY_BUDGET.min(left), max_age_days: batch.max_age_days };
        let sender =
            Caller { user: submission.sender.clone(), service: batch.service, instructor: false, admin: false };
        let recorded = progress::record(self.app, &sender, &batch.events, submission.accepted_at, occasion).await?;
        Ok(Judged {
            counts: recorded.recorded + recorded.duplicates > 0,
            rejected: recorded.rejected.try_into().unwrap_or_default(),
            results: results_of(&recorded.body)?,
        })
    }

    /// Parks a canary, an event of a section that does not exist: so the whole way is gone again and again, not only on a
    /// bad day. While PostgreSQL is away none is needed.
    async fn send_canary(&self) -> Result<Option<Uuid>, Error> {
        if self.is_over() {
            return Ok(None);
        }
        let event = ProgressEvent {
            user: CANARY.to_owned(),
            id: ids::new_id(),
            section: ids::new_id(),
            time_spent: 0,
            completed: false,
            occurred_at: None,
        };
        let batch = Batch { service: false, max_age_days: 1, canary: true, events: vec![event] };
        park(self.parking, CANARY, self.now, &batch).await.map(Some)
    }

    /// Complains if the canary did not come through.
    async fn look_after(&self, canary: Option<Uuid>) {
        let Some(id) = canary.filter(|_| self.canaries.load(Ordering::Relaxed) == 0 && !self.is_over()) else {
            return;
        };
        // Another run may have been faster. Where DynamoDB does not say, that is another trouble.
        let found = self.parking.find(id, self.now).await;
        if found.is_ok_and(|status| status.is_none_or(|status| status.ended.is_none())) {
            telemetry::count(Metric::LostCanaries);
            tracing::error!(submission = %id, "the canary did not come through");
        }
    }

    /// Sums up, and warns of what has waited for long.
    async fn tell(&self) -> Result<Replayed, Error> {
        let remaining = if self.cut.load(Ordering::Relaxed) {
            let counts = future::try_join_all((0..SHARDS).map(|shard| self.parking.count(shard))).await?;
            counts.into_iter().sum()
        } else {
            self.left.load(Ordering::Relaxed)
        };
        let oldest = DateTime::from_timestamp_micros(self.oldest_left.load(Ordering::Relaxed));
        let wait = oldest.map(|oldest| self.now - oldest).filter(|_| remaining > 0).unwrap_or_default();
        telemetry::add(Metric::ParkedRemaining, remaining);
        telemetry::add(Metric::ParkedAgeMax, wait.num_seconds().try_into().unwrap_or_default());
        if wait > LONG_WAIT {
            tracing::warn!(remaining, oldest_minutes = wait.num_minutes(), "submissions have waited for long");
        }
        Ok(Replayed {
            applied: self.applied.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            remaining,
        })
    }

    fn leave(&self, submission: &Submission) {
        self.left.fetch_add(1, Ordering::Relaxed);
        if !is_canary(submission) {
            self.wait_since(submission.accepted_at);
        }
    }

    fn wait_since(&self, accepted_at: DateTime<Utc>) {
        self.oldest_left.fetch_min(accepted_at.timestamp_micros(), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Whether nobody waits for it. An erased service has no name either.
fn is_canary(submission: &Submission) -> bool {
    submission.sender == CANARY && serde_json::from_slice(&submission.body).is_ok_and(|batch: Batch| batch.canary)
}

/// The results in an answer of [`progress::record`].
fn results_of(answer: &str) -> Result<Vec<u8>, Error> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        results: &'a RawValue,
    }
    let answer: Answer<'_> = serde_json::from_str(answer).map_err(|error| Error::internal("reading results", error))?;
    Ok(answer.results.get().as_bytes().to_vec())
}

/// What was said of a batch.
struct Judged {
    /// Whether any of its events counts.
    counts: bool,
    /// How many cannot.
    rejected: u64,
    results: Vec<u8>,
}

/// What becomes of a batch that has waited for too long: what the ledger does not know might be what it has forgotten.
async fn judge_late(app: &App, batch: &Batch) -> Result<Judged, Error> {
    let known = ledger::known(app, &batch.events).await?;
    let is_known = |event: &&ProgressEvent| known.contains(&(event.user.clone(), event.id));
    let judge = |event: &ProgressEvent| match is_known(&event) {
        true => json!({"eventId": event.id, "status": "duplicate", "code": null}),
        false => json!({"eventId": event.id, "status": "rejected", "code": "parked_too_long"}),
    };
    Ok(Judged {
        counts: !known.is_empty(),
        rejected: (batch.events.len() - batch.events.iter().filter(is_known).count()) as u64,
        results: Value::from_iter(batch.events.iter().map(judge)).to_string().into_bytes(),
    })
}
