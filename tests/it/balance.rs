//! The account after a load: what was promised against what counts, and how the answers were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::Value;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{
    load::{Attempt, Delivery, Taken},
    rig::Rig,
};

/// The three seconds that a function has, and a little for a machine that is busy with other things.
const LONGEST_ANSWER: Duration = Duration::from_millis(3_500);
/// How soon after PostgreSQL is back progress must be recorded again.
const LONGEST_RECOVERY: Duration = Duration::from_secs(5);
/// Submissions that are asked for at a time.
const QUESTIONS: usize = 8;

/// How a load went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) fault: String,
    /// Events that were taken, each once.
    pub(crate) events: usize,
    /// Answers to batches: 200, 202, 503.
    pub(crate) recorded: usize,
    pub(crate) parked: usize,
    pub(crate) unavailable: usize,
    /// Requests that got no answer because their environment was frozen or killed.
    pub(crate) broken: usize,
    /// Events of batches that one device sent, and that counted already: somebody tried again when all was committed.
    pub(crate) duplicates: usize,
    /// The same of batches that were parked.
    pub(crate) replayed_duplicates: usize,
    pub(crate) rejected: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    /// After the fault, until every environment had recorded something.
    pub(crate) recovery: Option<Duration>,
    /// How often proxies met with a fault.
    pub(crate) bites: usize,
    /// Submissions ended by each of several drainers.
    pub(crate) drained: Vec<u64>,
    /// Everything that must not be.
    pub(crate) wrong: Vec<String>,
}

/// Events that count, by learner and id: their section and seconds.
type Counted = BTreeMap<(String, Uuid), (Uuid, i64)>;

impl Report {
    /// Draws up the account of a load whose submissions have been replayed.
    pub(crate) async fn of(rig: &Rig, fault: &str, deliveries: &[Delivery], attempts: &[Attempt]) -> Self {
        let mut report = Self { fault: fault.to_owned(), ..Self::default() };
        report.read(attempts);
        let promised = report.promises(rig, deliveries).await;
        report.compare(rig, deliveries, &promised).await;
        let parked = rig.parked().await;
        report.check(parked == 0, || format!("{parked} submissions are still parked"));
        let drift = rig.control.drift().await;
        report.check(drift == 0, || format!("{drift} stored values have drifted"));
        report
    }

    /// Notes how long Lectern was away after the fault.
    pub(crate) fn recovered(&mut self, recovery: Option<Duration>) {
        self.recovery = recovery;
        let soon = recovery.is_some_and(|recovery| recovery <= LONGEST_RECOVERY);
        self.check(soon, || format!("recovered after {recovery:?}"));
    }

    /// Stops the test if anything went wrong.
    #[track_caller]
    pub(crate) fn is_exact(&self) {
        assert!(self.wrong.is_empty(), "{}\n{self}", self.wrong.join("\n"));
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    fn read(&mut self, attempts: &[Attempt]) {
        let mut times: Vec<Duration> = Vec::new();
        for attempt in attempts {
            match attempt.status {
                Some(StatusCode::OK) if attempt.is_read => {}
                Some(StatusCode::OK) => self.recorded += 1,
                Some(StatusCode::ACCEPTED) if !attempt.is_read => self.parked += 1,
                Some(StatusCode::SERVICE_UNAVAILABLE) if attempt.retry_after => {
                    self.unavailable += usize::from(!attempt.is_read);
                }
                None if attempt.excused => self.broken += 1,
                _ => self.wrong.push(format!("an answer: {attempt:?}")),
            }
            if !attempt.excused {
                times.push(attempt.took);
            }
        }
        times.sort();
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        let [p50, p99, max] = [50, 99, 100].map(|percent| at(percent).copied().unwrap_or_default());
        (self.p50, self.p99, self.max) = (p50, p99, max);
        self.check(max <= LONGEST_ANSWER, || format!("an answer took {max:?}"));
    }

    /// What every sender was told in the end, event by event.
    async fn promises(&mut self, rig: &Rig, deliveries: &[Delivery]) -> Counted {
        let ask = async |delivery: &Delivery| match &delivery.taken {
            Taken::Recorded(results) => results.clone(),
            Taken::Parked(id) => {
                let path = format!("/progress/submissions/{id}");
                let mut answer = rig.control.learner(&delivery.learner).get(&path).await.expect(StatusCode::OK);
                answer["results"].take()
            }
        };
        let told: Vec<Value> = stream::iter(deliveries).map(ask).buffered(QUESTIONS).collect().await;
        let mut promised = Counted::new();
        for (delivery, results) in deliveries.iter().zip(told) {
            let results = results.as_array().map(Vec::as_slice).unwrap_or_default();
            self.check(results.len() == delivery.events.len(), || format!("no results for {delivery:?}"));
            for (event, result) in delivery.events.iter().zip(results) {
                let status = result["status"].as_str().unwrap_or_default();
                let expected = match status {
                    "recorded" | "duplicate" => event.has_section,
                    "rejected" => !event.has_section && result["code"] == "unknown_section",
                    _ => false,
                };
                self.check(expected && result["eventId"] == event.id.to_string(), || format!("{event:?}: {result}"));
                let was_parked = matches!(delivery.taken, Taken::Parked(_));
                let tried_again = status == "duplicate" && delivery.is_only;
                self.duplicates += usize::from(tried_again && !was_parked);
                self.replayed_duplicates += usize::from(tried_again && was_parked);
                self.rejected += usize::from(status == "rejected");
                if status != "rejected" {
                    promised.insert((delivery.learner.clone(), event.id), (event.section, event.time_spent.into()));
                }
            }
        }
        promised
    }

    /// Holds the promises against the ledger, and their sums against both folds.
    async fn compare(&mut self, rig: &Rig, deliveries: &[Delivery], promised: &Counted) {
        let learners: BTreeSet<String> = deliveries.iter().map(|delivery| delivery.learner.clone()).collect();
        let learners: Vec<String> = learners.into_iter().collect();
        let taken: BTreeSet<Uuid> = deliveries.iter().flat_map(|one| &one.events).map(|event| event.id).collect();
        self.events = taken.len();

        let (client, connection) = tokio_postgres::connect(&rig.control.database, NoTls).await.expect("it answers");
        let driver = tokio::spawn(connection);
        let rows = async |sql: &str| client.query(sql, &[&learners]).await.expect("rows");
        let ledger = rows(
            "select user_id, event_id, section_id, time_spent::bigint from progress_events where user_id = any ($1)",
        );
        let mut counted = Counted::new();
        for row in ledger.await {
            let value = "a column";
            let key = (row.try_get(0).expect(value), row.try_get(1).expect(value));
            counted.insert(key, (row.try_get(2).expect(value), row.try_get(3).expect(value)));
        }
        self.lost += promised.keys().filter(|key| !counted.contains_key(key)).count();
        self.doubled += counted.keys().filter(|key| !promised.contains_key(key)).count();
        let altered = promised.iter().filter(|(key, value)| counted.get(key).is_some_and(|found| found != *value));
        let altered = altered.count();
        self.check(altered == 0, || format!("{altered} events stand in the ledger other than they were sent"));

        let by_section = |(learner, _): &(String, Uuid), section: Uuid| (learner.clone(), section.to_string());
        let by_course = |(learner, _): &(String, Uuid), section: Uuid| {
            let has = |sections: &[String]| sections.contains(&section.to_string());
            let course = rig.courses.iter().find(|course| has(&course.sections)).expect("a course");
            (learner.clone(), course.id.clone())
        };
        let progress = "select user_id, section_id::text, time_spent::bigint from progress where user_id = any ($1)";
        self.compare_sums(sums(promised, by_section), rows(progress).await);
        let enrollments = "select user_id, course_id::text, time_spent::bigint from enrollments \
                           where user_id = any ($1) and time_spent > 0";
        self.compare_sums(sums(promised, by_course), rows(enrollments).await);
        drop(client);
        let _ = driver.await;

        let (lost, doubled) = (self.lost, self.doubled);
        self.check(lost == 0, || format!("{lost} lost"));
        self.check(doubled == 0, || format!("{doubled} doubled"));
    }

    /// A sum that is too small has lost something, one that is too large has counted something twice.
    fn compare_sums(&mut self, mut expected: BTreeMap<(String, String), i64>, rows: Vec<tokio_postgres::Row>) {
        for row in rows {
            let key = (row.try_get(0).expect("a user"), row.try_get(1).expect("an id"));
            let difference = row.try_get::<_, i64>(2).expect("a sum") - expected.remove(&key).unwrap_or(0);
            self.lost += usize::from(difference < 0);
            self.doubled += usize::from(difference > 0);
        }
        self.lost += expected.len();
    }
}

fn sums<K: Ord>(promised: &Counted, key: impl Fn(&(String, Uuid), Uuid) -> K) -> BTreeMap<K, i64> {
    let mut sums = BTreeMap::new();
    for (event, (section, seconds)) in promised {
        *sums.entry(key(event, *section)).or_default() += seconds;
    }
    sums
}

/// The heading of a table of reports.
pub(crate) const HEADING: &str = "| fault | events | 200 | 202 | 503 | none | lost | doubled \
    | p50 ms | p99 ms | max ms | recovery s |\n\
    |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";

/// A row of the table.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, events, recorded, parked, unavailable, broken, lost, doubled, .. } = self;
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|time| time.as_millis());
        let recovery = self.recovery.map_or_else(|| "never".to_owned(), |time| format!("{:.2}", time.as_secs_f64()));
        write!(formatter, "| {fault} | {events} | {recorded} | {parked} | {unavailable} | {broken} ")?;
        write!(formatter, "| {lost} | {doubled} | {p50} | {p99} | {max} | {recovery} |")
    }
}
