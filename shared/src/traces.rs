//! What is parked of one learner: in batches of their own, and within the batches of services. Finding it, taking it out.
//!
//! The table has no index by learner, so everything is read: first what waits, then what is finished. What moves from the
//! one to the other meanwhile is seen at least once, and whoever moves it can only move what has been left of it.

use std::{collections::BTreeMap, time::Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    app::App,
    error::Error,
    ledger,
    parking::{Finished, Parking, Place, SEGMENTS, SHARDS, Submission},
    progress::ProgressEvent,
    submissions::Batch,
};

/// Submissions that are read at a time from each shard or segment: so many of the largest fit into memory, unpacked.
const PAGE: i32 = 10;
/// The same of finished ones: most have no body, and not all that is read is finished.
const FINISHED_PAGE: i32 = 40;
/// Changes that are under way at once.
const LANES: usize = 16;
/// The sender of what is left of a batch whose sender was erased: no `sub` is empty.
const NOBODY: &str = "";

/// Takes a learner out of all that is parked, and answers of how many submissions.
///
/// Their own are removed; of a service's the others' part is left. Must run while the ledger still knows the learner:
/// where the body of a finished batch was not kept, it alone can tell which of the results are theirs.
pub async fn erase(app: &App, user: &str, deadline: Instant) -> Result<u64, Error> {
    let Some(parking) = &app.parking else { return Ok(0) };
    let eraser = Eraser { app, parking, user, deadline };
    let mut erased = 0;
    loop {
        let Pass { changed, overtaken } = eraser.pass().await?;
        erased += changed;
        if overtaken == 0 {
            return Ok(erased);
        }
    }
}

struct Eraser<'a> {
    app: &'a App,
    parking: &'a Parking,
    user: &'a str,
    deadline: Instant,
}

/// What a pass through the table came to.
struct Pass {
    changed: u64,
    /// Submissions that were changed by somebody else since they had been read: they have to be read again.
    overtaken: u64,
}

impl Pass {
    fn add(&mut self, effects: &[bool]) {
        let changed = effects.iter().filter(|took_effect| **took_effect).count() as u64;
        self.changed += changed;
        self.overtaken += effects.len() as u64 - changed;
    }
}

/// What has to be done with a submission.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Keep,
    Remove,
    /// Leaves the items at these positions alone.
    Rewrite(Vec<usize>),
}

impl Eraser<'_> {
    async fn pass(&self) -> Result<Pass, Error> {
        let mut pass = Pass { changed: 0, overtaken: 0 };
        let mut waiting = Waiting::new(self.parking);
        while let Some(submissions) = waiting.next(self.deadline).await? {
            let mut work = Vec::new();
            for submission in &submissions {
                work.push(self.treat_pending(submission));
            }
            pass.add(&all(work).await?);
        }
        let mut ended = Ended::new(self.parking);
        while let Some(submissions) = ended.next(self.deadline).await? {
            let known = recorded(self.app, self.user, &submissions).await?;
            let mut work = Vec::new();
            for submission in &submissions {
                work.push(self.treat_finished(submission, &known));
            }
            pass.add(&all(work).await?);
        }
        Ok(pass)
    }

    /// Whether a change was made, or would have had to be; nothing where there is none to make.
    async fn treat_pending(&self, submission: &Submission) -> Result<Option<bool>, Error> {
        let is_sender = submission.sender == self.user;
        let Ok(mut batch) = serde_json::from_slice::<Batch>(&submission.body) else {
            // Somebody else's, or one that only a newer version understands, which then has to be there first.
            return if is_sender || mentions(&submission.body, self.user) { Err(unreadable()) } else { Ok(None) };
        };
        match remedy(&batch.events, self.user, is_sender) {
            Remedy::Keep => Ok(None),
            Remedy::Remove => self.parking.forget(submission.id).await.map(|()| Some(true)),
            Remedy::Rewrite(_) => {
                batch.events.retain(|event| event.user != self.user);
                let body = serde_json::to_vec(&batch).map_err(writing)?;
                let sender = if is_sender { NOBODY } else { &submission.sender };
                self.parking.rewrite_pending(submission, sender, &body).await.map(Some)
            }
        }
    }

    async fn treat_finished(&self, submission: &Finished, known: &Known) -> Result<Option<bool>, Error> {
        let is_sender = submission.sender == self.user;
        let results: Vec<&RawValue> = serde_json::from_slice(&submission.results).map_err(|_| unreadable())?;
        let batch = submission.body.as_deref().map(serde_json::from_slice::<Batch>);
        let remedy = match &batch {
            Some(Ok(batch)) if batch.events.len() == results.len() => remedy(&batch.events, self.user, is_sender),
            // Nobody will ask for it any more, or it was given up because nobody understood it.
            _ if is_sender || submission.body.as_deref().is_some_and(|body| mentions(body, self.user)) => {
                Remedy::Remove
            }
            Some(_) => Remedy::Keep,
            None => without(&positions_known(submission, &results, known), results.len()),
        };
        match remedy {
            Remedy::Keep => Ok(None),
            Remedy::Remove => self.parking.forget_finished(submission.id).await.map(|()| Some(true)),
            Remedy::Rewrite(kept) => {
                let results: Vec<&RawValue> = kept.iter().filter_map(|place| results.get(*place).copied()).collect();
                let results = serde_json::to_vec(&results).map_err(writing)?;
                let body = batch.and_then(Result::ok).map(|mut batch| {
                    batch.events.retain(|event| event.user != self.user);
                    serde_json::to_vec(&batch).map_err(writing)
                });
                let sender = if is_sender { NOBODY } else { &submission.sender };
                self.parking
                    .rewrite_finished(submission, sender, &results, body.transpose()?.as_deref())
                    .await
                    .map(Some)
            }
        }
    }
}

/// Some at a time.
async fn all(work: Vec<impl Future<Output = Result<Option<bool>, Error>>>) -> Result<Vec<bool>, Error> {
    stream::iter(work).buffer_unordered(LANES).try_filter_map(future::ok).try_collect().await
}

/// A batch without the events of a user.
fn remedy(events: &[ProgressEvent], user: &str, is_sender: bool) -> Remedy {
    let theirs: Vec<usize> =
        events.iter().enumerate().filter(|(_, event)| event.user == user).map(|(at, _)| at).collect();
    match without(&theirs, events.len()) {
        Remedy::Keep if is_sender => Remedy::Rewrite((0..events.len()).collect()),
        remedy => remedy,
    }
}

fn without(theirs: &[usize], count: usize) -> Remedy {
    match theirs.len() {
        0 => Remedy::Keep,
        all if all == count => Remedy::Remove,
        _ => Remedy::Rewrite((0..count).filter(|place| !theirs.contains(place)).collect()),
    }
}

/// Whether bytes that nobody can read name a user.
fn mentions(bytes: &[u8], user: &str) -> bool {
    let quoted = serde_json::Value::from(user).to_string();
    bytes.windows(quoted.len()).any(|part| part == quoted.as_bytes())
}

/// The events of the learner among those that finished batches of others speak of, by sender and id.
type Known = std::collections::HashSet<(String, Uuid)>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spoken {
    event_id: Uuid,
}

fn spoken_of(result: &RawValue) -> Option<Uuid> {
    serde_json::from_str::<Spoken>(result.get()).ok().map(|spoken| spoken.event_id)
}

/// Asks the ledger whose the results are for which no body was kept: all of their events have counted.
async fn recorded(app: &App, user: &str, submissions: &[Finished]) -> Result<Known, Error> {
    let mut sent = Vec::new();
    for submission in submissions.iter().filter(|one| one.body.is_none() && one.sender != user) {
        let results: Vec<&RawValue> = serde_json::from_slice(&submission.results).map_err(|_| unreadable())?;
        sent.extend(results.into_iter().filter_map(spoken_of).map(|id| (submission.sender.as_str(), id)));
    }
    if sent.is_empty() { Ok(Known::new()) } else { ledger::sent_for(app, user, &sent).await }
}

fn positions_known(submission: &Finished, results: &[&RawValue], known: &Known) -> Vec<usize> {
    let is_theirs =
        |result: &RawValue| spoken_of(result).is_some_and(|id| known.contains(&(submission.sender.clone(), id)));
    results.iter().enumerate().filter(|(_, result)| is_theirs(result)).map(|(at, _)| at).collect()
}

/// What a learner has in a submission, as an export shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Share<'a> {
    submission_id: Uuid,
    status: &'a str,
    accepted_at: String,
    /// Null where they are not kept any more.
    events: Option<Vec<SharedEvent>>,
    /// Null while it waits.
    results: Option<Vec<&'a RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedEvent {
    event_id: Uuid,
    section_id: Uuid,
    time_spent: i32,
    completed: bool,
    occurred_at: Option<String>,
}

impl SharedEvent {
    fn of(event: &ProgressEvent) -> Self {
        Self {
            event_id: event.id,
            section_id: event.section,
            time_spent: event.time_spent,
            completed: event.completed,
            occurred_at: event.occurred_at.map(rfc3339),
        }
    }
}

/// A part of what a learner has parked, in the order of ids, each with its JSON.
#[derive(Debug, Default)]
pub struct Shares {
    /// The first ones.
    pub shares: BTreeMap<Uuid, String>,
    /// Whether there are more.
    pub goes_on: bool,
    bytes: usize,
}

impl Shares {
    /// Keeps the first ones alone, so many and so long in all at the most, but one in any case.
    fn add(&mut self, id: Uuid, share: String, most: usize, most_bytes: usize) {
        self.bytes += share.len();
        self.bytes -= self.shares.insert(id, share).map_or(0, |earlier| earlier.len());
        while self.shares.len() > most || self.bytes > most_bytes && self.shares.len() > 1 {
            self.bytes -= self.shares.pop_last().map_or(0, |(_, last)| last.len());
            self.goes_on = true;
        }
    }
}

/// What a learner has parked behind a submission, however it ended. Each is there once, because its id stays.
pub async fn shares(
    app: &App,
    user: &str,
    behind: Option<Uuid>,
    (most, most_bytes): (usize, usize),
    deadline: Instant,
) -> Result<Shares, Error> {
    let mut shares = Shares::default();
    let Some(parking) = &app.parking else { return Ok(shares) };
    let is_next = |id: Uuid| behind.is_none_or(|behind| id > behind);
    let mut waiting = Waiting::new(parking);
    while let Some(submissions) = waiting.next(deadline).await? {
        for submission in submissions.iter().filter(|submission| is_next(submission.id)) {
            if let Some(share) = pending_share(submission, user)? {
                shares.add(submission.id, share, most, most_bytes);
            }
        }
    }
    let mut ended = Ended::new(parking);
    while let Some(submissions) = ended.next(deadline).await? {
        let known = recorded(app, user, &submissions).await?;
        for submission in submissions.iter().filter(|submission| is_next(submission.id)) {
            if let Some(share) = finished_share(submission, user, &known)? {
                shares.add(submission.id, share, most, most_bytes);
            }
        }
    }
    Ok(shares)
}

fn pending_share(submission: &Submission, user: &str) -> Result<Option<String>, Error> {
    let is_sender = submission.sender == user;
    let events = match serde_json::from_slice::<Batch>(&submission.body) {
        Ok(batch) => {
            let events = batch.events.iter().filter(|event| event.user == user);
            Some(events.map(SharedEvent::of).collect::<Vec<_>>())
        }
        Err(_) => None,
    };
    if !is_sender && events.as_ref().is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    let (id, accepted_at) = (submission.id, rfc3339(submission.accepted_at));
    let share = Share { submission_id: id, status: "parked", accepted_at, events, results: None };
    serde_json::to_string(&share).map(Some).map_err(writing)
}

fn finished_share(submission: &Finished, user: &str, known: &Known) -> Result<Option<String>, Error> {
    let is_sender = submission.sender == user;
    let results: Vec<&RawValue> = serde_json::from_slice(&submission.results).map_err(|_| unreadable())?;
    let batch = submission.body.as_deref().and_then(|body| serde_json::from_slice::<Batch>(body).ok());
    let batch = batch.filter(|batch| batch.events.len() == results.len());
    let theirs: Vec<usize> = match &batch {
        Some(batch) => (0..results.len()).filter(|place| batch.events[*place].user == user).collect(),
        None if is_sender => (0..results.len()).collect(),
        None => positions_known(submission, &results, known),
    };
    if !is_sender && theirs.is_empty() {
        return Ok(None);
    }
    let share = Share {
        submission_id: submission.id,
        status: submission.outcome.as_str(),
        accepted_at: rfc3339(submission.accepted_at),
        events: batch.map(|batch| theirs.iter().map(|place| SharedEvent::of(&batch.events[*place])).collect()),
        results: Some(theirs.iter().map(|place| results[*place]).collect()),
    };
    serde_json::to_string(&share).map(Some).map_err(writing)
}

/// All submissions that wait, some of each shard at a time.
struct Waiting<'a> {
    parking: &'a Parking,
    ends: Vec<(u8, Option<Uuid>)>,
}

impl<'a> Waiting<'a> {
    fn new(parking: &'a Parking) -> Self {
        Self { parking, ends: (0..SHARDS).map(|shard| (shard, None)).collect() }
    }

    async fn next(&mut self, deadline: Instant) -> Result<Option<Vec<Submission>>, Error> {
        if self.ends.is_empty() {
            return Ok(None);
        }
        in_time(deadline)?;
        let pages = self.ends.iter().map(|(shard, behind)| self.parking.pending(*shard, *behind, PAGE));
        let pages = future::try_join_all(pages).await?;
        if pages.iter().any(|page| !page.unreadable.is_empty()) {
            return Err(unreadable());
        }
        let shards = self.ends.iter().map(|(shard, _)| *shard);
        self.ends = shards.zip(&pages).filter_map(|(shard, page)| page.behind.map(|id| (shard, Some(id)))).collect();
        Ok(Some(pages.into_iter().flat_map(|page| page.submissions).collect()))
    }
}

/// All finished submissions, some of each segment at a time.
struct Ended<'a> {
    parking: &'a Parking,
    ends: Vec<(i32, Place)>,
}

impl<'a> Ended<'a> {
    fn new(parking: &'a Parking) -> Self {
        Self { parking, ends: (0..SEGMENTS).map(|segment| (segment, Place::default())).collect() }
    }

    async fn next(&mut self, deadline: Instant) -> Result<Option<Vec<Finished>>, Error> {
        if self.ends.is_empty() {
            return Ok(None);
        }
        in_time(deadline)?;
        let pages =
            self.ends.iter().map(|(segment, place)| self.parking.finished(*segment, place.clone(), FINISHED_PAGE));
        let mut pages = future::try_join_all(pages).await?;
        if pages.iter().any(|page| page.unreadable > 0) {
            return Err(unreadable());
        }
        let segments = self.ends.iter().map(|(segment, _)| *segment);
        let ends =
            segments.zip(&mut pages).filter_map(|(segment, page)| page.next.take().map(|place| (segment, place)));
        self.ends = ends.collect();
        Ok(Some(pages.into_iter().flat_map(|page| page.submissions).collect()))
    }
}

/// Whether there is time to go on.
pub fn in_time(deadline: Instant) -> Result<(), Error> {
    let late = Error::Unavailable { context: "personal data: there is more than fits into a request", source: None };
    if Instant::now() < deadline { Ok(()) } else { Err(late) }
}

/// Nobody could say that nothing is left.
fn unreadable() -> Error {
    Error::Unavailable { context: "personal data: a submission cannot be read", source: None }
}

fn writing(error: serde_json::Error) -> Error {
    Error::internal("writing a submission", error)
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: &str) -> ProgressEvent {
        let (id, section) = (Uuid::now_v7(), Uuid::now_v7());
        ProgressEvent { user: user.to_owned(), id, section, time_spent: 1, completed: false, occurred_at: None }
    }

    #[test]
    fn of_a_batch_only_what_is_others_is_kept() {
        let events = ["a", "b", "a", "c"].map(event);
        assert_eq!(remedy(&events, "a", false), Remedy::Rewrite(vec![1, 3]));
        assert_eq!(remedy(&events, "d", false), Remedy::Keep);
        assert_eq!(remedy(&[event("a"), event("a")], "a", true), Remedy::Remove);
        // A service is erased: its name goes, what it sent for learners counts.
        assert_eq!(remedy(&events, "service", true), Remedy::Rewrite(vec![0, 1, 2, 3]));
    }

    #[test]
    fn a_name_is_found_however_it_was_escaped() {
        assert!(mentions(br#"{"userId":"O\"Neil"}"#, "O\"Neil"));
        assert!(mentions(br#"{"userId":"O'Neil"}"#, "O'Neil"));
        assert!(!mentions(br#"{"userId":"O'Neil"}"#, "Shea"));
        // A name that is part of another one, or of a key.
        assert!(!mentions(br#"{"userId":"O'Neil"}"#, "Neil") && !mentions(br#"{"userId":"O'Neil"}"#, "user"));
    }

    #[test]
    fn the_first_shares_are_kept_as_far_as_they_fit() {
        let id = Uuid::from_u128;
        let mut shares = Shares::default();
        for number in [5, 1, 4, 2] {
            shares.add(id(number), "x".repeat(10), 3, 100);
        }
        assert_eq!(shares.shares.keys().copied().collect::<Vec<_>>(), [id(1), id(2), id(4)]);
        assert!(shares.goes_on);
        let mut shares = Shares::default();
        shares.add(id(1), "x".repeat(200), 3, 100);
        assert_eq!((shares.shares.len(), shares.goes_on), (1, false));
        shares.add(id(2), "x".to_owned(), 3, 100);
        assert_eq!((shares.shares.len(), shares.goes_on), (1, true));
    }
}
