//! Recording what learners did, and resetting it. The two writes themselves are functions in `migrations/`, because
//! only statements that follow a lock see what was committed while they waited for it.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    access::Access,
    app::App,
    auth::Caller,
    body::{self, Node},
    db::{Failure, Param, Prepared, Repeat, Statement, column},
    enrollments::CLOCK_SKEW,
    error::{Error, reason},
    ids, learning,
};

/// Events in a batch at the most.
pub const MOST_EVENTS: usize = 500;
/// JSON values in a body at the most: seven for each event, and as many again for what a client adds of its own.
pub const MOST_VALUES: usize = 20 * MOST_EVENTS;
/// Seconds that one event may claim: a day.
const MOST_SECONDS: i32 = 86_400;

const RECORD: Prepared = Prepared(Statement {
    name: "progress.record",
    sql: "select * from record_progress_v4($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
});

const RESET: Statement =
    Statement { name: "progress.reset", sql: "select access, enrolled from reset_progress_v1($1, $2, $3, $4)" };

/// How long a request waits for PostgreSQL before its batch is parked instead. A batch takes milliseconds, and the client
/// also has to wait for what follows.
const REQUEST_BUDGET: Duration = Duration::from_millis(1_800);

/// One thing that a learner did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressEvent {
    /// The learner's `sub`.
    #[serde(rename = "userId")]
    pub user: String,
    /// By which the event is known together with the user.
    #[serde(rename = "eventId")]
    pub id: Uuid,
    /// Where.
    #[serde(rename = "sectionId")]
    pub section: Uuid,
    /// Seconds.
    pub time_spent: i32,
    /// Whether it completed the section.
    pub completed: bool,
    /// When, as sent.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// Reads the body of `POST /progress` in any of its three shapes.
///
/// Ids that the sender left out are derived from `key`; without one they are required.
pub fn parse_events(body: &Value, caller: &Caller, key: Option<&str>) -> Result<Vec<ProgressEvent>, Error> {
    let sender = Sender { caller, key };
    let items = body::parse(body, |root| {
        if root.is_array() {
            root.items(1..=MOST_EVENTS, |node| sender.item(node))
        } else if root.object()?.field("sectionIds").is_present() {
            sender.item(root).map(|item| vec![item])
        } else {
            root.field("events").items(1..=MOST_EVENTS, |node| sender.event(node))
        }
    })?;
    let count = items.iter().map(|item| item.parts.len()).sum();
    if count > MOST_EVENTS {
        let detail = format!("comes to {count} events; {MOST_EVENTS} are allowed");
        return Err(Error::invalid(reason::INVALID_BODY, "", detail));
    }
    let mut events = Vec::with_capacity(count);
    for item in items {
        if item.user != caller.user && !caller.service {
            return Err(Error::Forbidden(reason::FOREIGN_USER));
        }
        for part in item.parts {
            let id = match (part.id, key) {
                (Some(id), _) => id,
                // Without a key the parser has refused an item without an id.
                (None, key) => ids::derived_event(&item.user, key.unwrap_or_default(), events.len()),
            };
            events.push(ProgressEvent {
                user: item.user.clone(),
                id,
                section: part.section,
                time_spent: part.time_spent,
                completed: part.completed,
                occurred_at: part.occurred_at,
            });
        }
    }
    Ok(events)
}

/// One item of a body: an event, or time to be split over several sections.
struct Item {
    user: String,
    parts: Vec<Part>,
}

struct Part {
    id: Option<Uuid>,
    section: Uuid,
    time_spent: i32,
    completed: bool,
    occurred_at: Option<DateTime<Utc>>,
}

/// Who sends a batch, and the key from which the ids are made that it leaves out.
struct Sender<'a> {
    caller: &'a Caller,
    key: Option<&'a str>,
}

impl Sender<'_> {
    /// An event, or time for several sections.
    fn item(&self, node: &Node<'_>) -> Option<Item> {
        if !node.object()?.field("sectionIds").is_present() {
            return self.event(node);
        }
        let (user, parts) = (self.user(node), self.split(node));
        Some(Item { user: user?, parts: parts? })
    }

    fn event(&self, node: &Node<'_>) -> Option<Item> {
        let node = node.object()?;
        let (user, part) = (self.user(node), self.part(node));
        Some(Item { user: user?, parts: vec![part?] })
    }

    /// Whose event it is: a service names somebody, others may name themselves.
    fn user(&self, node: &Node<'_>) -> Option<String> {
        let node = node.field("userId");
        match node.optional() {
            None if !self.caller.service => Some(self.caller.user.clone()),
            _ => node.user().map(str::to_owned),
        }
    }

    fn part(&self, node: &Node<'_>) -> Option<Part> {
        let id = match node.field("eventId").optional() {
            Some(node) => node.id().map(Some),
            None if self.key.is_some() => Some(None),
            None => node.field("eventId").refuse("is required where there is no Idempotency-Key header"),
        };
        let section = node.field("sectionId").id();
        let time_spent = node.field("timeSpent").whole(0..=MOST_SECONDS);
        let completed = node.field("completed").boolean();
        let occurred_at = node.field("occurredAt").optional_or(|node| node.time());
        Some(Part {
            id: id?,
            section: section?,
            time_spent: time_spent?,
            completed: completed?,
            occurred_at: occurred_at?,
        })
    }

    /// `{sectionIds, timeSpent}`: time spent on several sections together, split so that it sums exactly.
    fn split(&self, node: &Node<'_>) -> Option<Vec<Part>> {
        let sections = node.field("sectionIds").items(1..=MOST_EVENTS, |node| node.id());
        let time_spent = node.field("timeSpent").whole(0..=MOST_SECONDS);
        if self.key.is_none() {
            node.field("sectionIds").fault("needs an Idempotency-Key header, from which the events' ids are made");
        }
        let (sections, time_spent) = (sections?, time_spent?);
        let mut seen = HashSet::new();
        if !sections.iter().all(|section| seen.insert(section)) {
            return node.field("sectionIds").refuse("must not name a section twice");
        }
        let shares = shares(time_spent, sections.len());
        let part = |(section, time_spent)| Part { id: None, section, time_spent, completed: false, occurred_at: None };
        Some(sections.into_iter().zip(shares).map(part).collect())
    }
}

/// Splits a whole into equal parts by the method of the largest remainder: the first ones get a second more.
fn shares(whole: i32, count: usize) -> impl Iterator<Item = i32> {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let (share, rest) = (whole / count, whole % count);
    (0..count).map(move |index| share + i32::from(index < rest))
}

/// What became of a batch.
#[derive(Debug)]
pub struct Recorded {
    /// The body of the answer.
    pub body: String,
    /// Events that counted.
    pub recorded: i32,
    /// Events that had counted before.
    pub duplicates: i32,
    /// Events that cannot count.
    pub rejected: i32,
}

/// On which occasion a batch is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Its sender waits.
    Request,
    /// It was accepted while PostgreSQL was away.
    Replay {
        /// How long it may take now.
        budget: Duration,
        /// How old an event was allowed to be then, in days.
        max_age_days: u32,
    },
}

/// Records a batch in one round trip; good items are applied together, the others are told one by one.
pub async fn record(
    app: &App,
    caller: &Caller,
    events: &[ProgressEvent],
    accepted_at: DateTime<Utc>,
    occasion: Occasion,
) -> Result<Recorded, Error> {
    let users: Vec<&str> = events.iter().map(|event| event.user.as_str()).collect();
    let event_ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let sections: Vec<Uuid> = events.iter().map(|event| event.section).collect();
    let times: Vec<i32> = events.iter().map(|event| event.time_spent).collect();
    let completions: Vec<bool> = events.iter().map(|event| event.completed).collect();
    let occurrences: Vec<Option<DateTime<Utc>>> = events.iter().map(|event| event.occurred_at).collect();
    let (was_parked, budget, max_age_days) = match occasion {
        Occasion::Request => {
            (false, REQUEST_BUDGET.min(app.config.database_budget), app.config.progress_max_event_age_days)
        }
        Occasion::Replay { budget, max_age_days } => (true, budget, max_age_days),
    };
    let oldest = accepted_at - TimeDelta::days(max_age_days.into());
    let newest = accepted_at + CLOCK_SKEW;
    let params: [Param<'_>; 11] = [
        (&users, Type::TEXT_ARRAY),
        (&event_ids, Type::UUID_ARRAY),
        (&sections, Type::UUID_ARRAY),
        (&times, Type::INT4_ARRAY),
        (&completions, Type::BOOL_ARRAY),
        (&occurrences, Type::TIMESTAMPTZ_ARRAY),
        (&accepted_at, Type::TIMESTAMPTZ),
        (&oldest, Type::TIMESTAMPTZ),
        (&newest, Type::TIMESTAMPTZ),
        (&caller.service, Type::BOOL),
        (&was_parked, Type::BOOL),
    ];
    // The ledger makes a second run of the same batch harmless.
    let rows = app.db.query_within(budget, RECORD, &params, Repeat::Safe).await?;
    let row = rows.first().ok_or_else(|| Failure::fault(RECORD.0.name, "no row"))?;
    let learners: Vec<&str> = column(row, "counted_users")?;
    let courses: Vec<Uuid> = column(row, "counted_courses")?;
    let generations: Vec<_> =
        learners.into_iter().zip(courses).map(|(user, course)| learning::generation(user, course)).collect();
    app.cache.bump(&generations).await;
    Ok(Recorded {
        body: column(row, "answer")?,
        recorded: column(row, "recorded")?,
        duplicates: column(row, "duplicates")?,
        rejected: column(row, "rejected")?,
    })
}

/// Clears the caller's progress and completion in a course: the only way to undo.
pub async fn reset(app: &App, caller: &Caller, course: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    let params: [Param<'_>; 4] =
        [(&caller.user, Type::TEXT), (&course, Type::UUID), (&now, Type::TIMESTAMPTZ), (&caller.admin, Type::BOOL)];
    // The moment of a reset makes a second run harmless.
    let row = app.db.query_opt(RESET, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    Access::of(&row)?.require_own_progress(column(&row, "enrolled")?, reason::COURSE_NOT_FOUND)?;
    app.cache.bump(&[learning::generation(&caller.user, course)]).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn learner() -> Caller {
        Caller { user: "alice".into(), instructor: false, admin: false, service: false }
    }

    fn service() -> Caller {
        Caller { service: true, ..learner() }
    }

    fn event() -> Value {
        json!({"eventId": ids::new_id(), "sectionId": ids::new_id(), "timeSpent": 5, "completed": true})
    }

    proptest! {
        #[test]
        fn split_time_sums_exactly_and_differs_by_a_second_at_most(whole in 0..=MOST_SECONDS, count in 1..=500_usize) {
            let shares: Vec<i32> = shares(whole, count).collect();
            prop_assert_eq!(shares.len(), count);
            prop_assert_eq!(shares.iter().sum::<i32>(), whole);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn all_three_shapes_are_read() {
        let section = ids::new_id();
        let events = parse_events(&json!({"events": [event()]}), &learner(), None).unwrap();
        assert_eq!((events.len(), events[0].user.as_str()), (1, "alice"));
        let flat = json!([{"sectionId": section, "timeSpent": 7, "completed": false}, event()]);
        assert_eq!(parse_events(&flat, &learner(), Some("key")).unwrap().len(), 2);
        let split = json!({"sectionIds": [section, ids::new_id(), ids::new_id()], "timeSpent": 100});
        let events = parse_events(&split, &learner(), Some("key")).unwrap();
        assert_eq!(events.iter().map(|event| event.time_spent).collect::<Vec<_>>(), [34, 33, 33]);
        assert!(events.iter().all(|event| !event.completed));
        assert_eq!(parse_events(&json!([split, split]), &learner(), Some("key")).unwrap().len(), 6);
    }

    #[test]
    fn derived_ids_are_the_same_each_time_and_differ_within_a_batch() {
        let body = json!([{"sectionId": ids::new_id(), "timeSpent": 7, "completed": false}, {"sectionId": ids::new_id(), "timeSpent": 7, "completed": false}]);
        let first = parse_events(&body, &learner(), Some("key")).unwrap();
        assert_eq!(first, parse_events(&body, &learner(), Some("key")).unwrap());
        assert_ne!(first[0].id, first[1].id);
        assert_ne!(first[0].id, parse_events(&body, &learner(), Some("other")).unwrap()[0].id);
    }

    #[test]
    fn only_a_service_acts_for_others_and_it_must_say_for_whom() {
        let mut foreign = event();
        foreign["userId"] = "bob".into();
        let body = json!({"events": [foreign]});
        assert!(matches!(parse_events(&body, &learner(), None), Err(Error::Forbidden(_))));
        assert_eq!(parse_events(&body, &service(), None).unwrap()[0].user, "bob");
        assert!(matches!(parse_events(&json!({"events": [event()]}), &service(), None), Err(Error::Invalid { .. })));
        let mut own = event();
        own["userId"] = "alice".into();
        assert!(parse_events(&json!({"events": [own]}), &learner(), None).is_ok());
    }

    #[test]
    fn wrong_shapes_types_and_ranges_refuse_the_whole_request() {
        let with = |name: &str, value: Value| {
            let mut event = event();
            event[name] = value;
            json!({"events": [self::event(), event]})
        };
        for body in [
            json!(null),
            json!("events"),
            json!({}),
            json!({"events": {}}),
            json!({"events": []}),
            json!({"events": vec![event(); 501]}),
            json!([]),
            with("eventId", json!("1")),
            with("eventId", json!(null)),
            with("sectionId", json!(7)),
            with("timeSpent", json!(-1)),
            with("timeSpent", json!(86_401)),
            with("timeSpent", json!(1e300)),
            with("timeSpent", json!("5")),
            with("completed", json!("true")),
            with("completed", json!(1)),
            with("occurredAt", json!("2026-13-01T00:00:00Z")),
            with("userId", json!(5)),
            json!({"sectionIds": [], "timeSpent": 1}),
            json!({"sectionIds": [ids::new_id()], "timeSpent": 1}),
        ] {
            assert!(matches!(parse_events(&body, &learner(), None), Err(Error::Invalid { .. })), "{body}");
        }
        let twice = ids::new_id();
        let body = json!({"sectionIds": [twice, twice], "timeSpent": 1});
        assert!(parse_events(&body, &learner(), Some("key")).is_err());
        let many: Vec<Uuid> = (0..300).map(|_| ids::new_id()).collect();
        let item = json!({"sectionIds": many, "timeSpent": 1});
        assert!(parse_events(&json!([item, item]), &learner(), Some("key")).is_err());
    }
}
