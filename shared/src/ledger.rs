//! What the event ledger remembers and what it may forget. Recording, which writes it, is in `migrations/` (`record_progress_v4`).

use std::{collections::HashSet, time::Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    app::App,
    db::{Param, Repeat, Statement, column},
    error::Error,
    progress::ProgressEvent,
};

/// How long a submission may wait to be replayed; after that its events might have been forgotten, and count twice.
pub const LONGEST_PARKING: TimeDelta = TimeDelta::days(5);
/// Clocks differ, and an event may be accepted five minutes before it occurs.
const MARGIN: TimeDelta = TimeDelta::hours(1);
/// Rows that one statement deletes: some ten milliseconds.
const BATCH: i64 = 5_000;
/// Batches of one run at the most: a fifth of a million events in five minutes is more than come in.
const MOST_BATCHES: u32 = 40;

/// By `progress_events_recorded_idx`. Up to the horizon as it was set by an earlier run: whoever judged an event by an
/// older horizon has long looked it up in the ledger.
const PRUNE: Statement = Statement {
    name: "ledger.prune",
    sql: "with pruned as (
            delete from progress_events
            where progress_events.ctid = any (array(
                select forgotten.ctid
                from progress_events as forgotten
                where forgotten.recorded_at < (select ledger_horizon.pruned_before from ledger_horizon)
                order by forgotten.recorded_at
                limit $1
                for update skip locked
            ))
            returning 1
        )
        select count(*) as pruned from pruned",
};

const MOVE_HORIZON: Statement = Statement {
    name: "ledger.move_horizon",
    sql: "update ledger_horizon set pruned_before = $1 where ledger_horizon.pruned_before < $1",
};

/// By `progress_events_pkey`.
const KNOWN: Statement = Statement {
    name: "ledger.known",
    sql: "select progress_events.user_id, progress_events.event_id
        from unnest($1::text[], $2::uuid[]) as sent (user_id, event_id)
        join progress_events on progress_events.user_id = sent.user_id and progress_events.event_id = sent.event_id",
};

/// By `progress_events_pkey`. The same id may be another learner's as well; what a learner sent by themselves is theirs.
const SENT_FOR: Statement = Statement {
    name: "ledger.sent_for",
    sql: "select sent.sender, sent.event_id
        from unnest($2::text[], $3::uuid[]) as sent (sender, event_id)
        join progress_events on progress_events.user_id = $1 and progress_events.event_id = sent.event_id
        where not exists (
            select from progress_events as own
            where own.user_id = sent.sender and own.event_id = sent.event_id
        )",
};

/// Which of these events, by sender and id, are a learner's whom somebody else sent them for.
pub async fn sent_for(app: &App, user: &str, sent: &[(&str, Uuid)]) -> Result<HashSet<(String, Uuid)>, Error> {
    let (senders, ids): (Vec<&str>, Vec<Uuid>) = sent.iter().copied().unzip();
    let params: [Param<'_>; 3] = [(&user, Type::TEXT), (&senders, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
    let rows = app.db.query(SENT_FOR, &params, Repeat::Safe).await?;
    rows.iter().map(|row| Ok((column(row, "sender")?, column(row, "event_id")?))).collect()
}

/// Which of these events have been counted, as far as the ledger remembers.
pub async fn known(app: &App, events: &[ProgressEvent]) -> Result<HashSet<(String, Uuid)>, Error> {
    let users: Vec<&str> = events.iter().map(|event| event.user.as_str()).collect();
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let params: [Param<'_>; 2] = [(&users, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
    let rows = app.db.query(KNOWN, &params, Repeat::Safe).await?;
    rows.iter().map(|row| Ok((column(row, "user_id")?, column(row, "event_id")?))).collect()
}

/// Forgets, in small batches, events that cannot come again: their ids are kept for as long as an event may be old when
/// it is accepted, and for the longest parking. Answers how many were forgotten.
pub async fn prune(app: &App, now: DateTime<Utc>, deadline: Instant) -> Result<i64, Error> {
    let mut forgotten = 0;
    for _ in 0..MOST_BATCHES {
        if Instant::now() >= deadline {
            break;
        }
        let row = app.db.query_one(PRUNE, &[(&BATCH, Type::INT8)], Repeat::Safe).await?;
        let pruned: i64 = column(&row, "pruned")?;
        forgotten += pruned;
        if pruned < BATCH {
            break;
        }
    }
    let age = TimeDelta::days(app.config.progress_max_event_age_days.into());
    let horizon = now - age - LONGEST_PARKING - MARGIN;
    // By the hour, so that the row is not rewritten with each run.
    let horizon = horizon.duration_trunc(TimeDelta::hours(1)).unwrap_or(horizon);
    let params: [Param<'_>; 1] = [(&horizon, Type::TIMESTAMPTZ)];
    app.db.query(MOVE_HORIZON, &params, Repeat::Safe).await?;
    Ok(forgotten)
}
