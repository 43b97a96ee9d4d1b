//! Erasing all that is kept under one user id: in PostgreSQL, in `DynamoDB` and in Redis.
//!
//! Everything is found by the id alone and removed in small steps, each for good. Whatever is cut short, and wherever, the
//! same request goes on with what is left; it succeeds only when there is nothing left.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::time::sleep_until;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    app::App,
    db::{Param, Repeat, Statement, column},
    error::Error,
    ids, learning, throttle,
    traces::{self, in_time},
};

/// After this nothing more is begun: API Gateway waits for 30 s.
const BUDGET: Duration = Duration::from_secs(20);
/// For one statement, which may have to wait for a batch that is being recorded.
const STATEMENT_BUDGET: Duration = Duration::from_secs(5);
/// Enrollments that one statement erases, with all progress in their courses.
const MOST_ENROLLMENTS: i32 = 20;
/// Rows of the ledger, or of anything else, that one statement erases: some ten milliseconds.
const MOST_ROWS: i32 = 5_000;
/// Courses whose keys are erased together.
const COURSES: i64 = 200;
/// How long whoever wrote something for the learner before they were erased may still be at it: telling the cache, or
/// sending once more to `DynamoDB` what had not been answered. Each has shorter limits of its own.
const SETTLING: Duration = Duration::from_millis(1_500);

const ERASE: Statement =
    Statement { name: "erasure.erase", sql: "select erase_learner_v1($1, $2, $3, $4, $5) as erased" };

/// By `courses_pkey`.
const NEXT_COURSES: Statement = Statement {
    name: "erasure.next_courses",
    sql: "select courses.id from courses where $1 is null or courses.id > $1 order by courses.id limit $2",
};

/// By `erasures_pkey`. There is a row already if PostgreSQL had anything.
const FINISH: Statement = Statement {
    name: "erasure.finish",
    sql: "insert into erasures (id, began_at, finished_at, submissions)
        values ($1, $2, greatest(clock_timestamp(), $2), $3)
        on conflict (id) do update set finished_at = excluded.finished_at, submissions = excluded.submissions",
};

/// Erases a user. Afterwards nothing is left that names them, and nothing that is under way brings any of it back:
///
/// 1. What is parked, because replaying it would bring it back, and because the ledger, which is erased next, is needed to
///    tell whose a result is. A drainer that has read a batch before cannot finish it any more ([`crate::parking`]).
/// 2. PostgreSQL. What is recorded before is erased with the rest; what comes later, by a drainer too, finds no enrollment
///    and counts for nothing.
/// 3. A pause for those who had written before that, or had not committed yet.
/// 4. What is parked, once more: what was put or rejected meanwhile. And PostgreSQL; from 3 again if there was anything.
/// 5. Redis, which is filled from PostgreSQL alone, and so for the last time before 2.
pub async fn erase(app: &App, user: &str, now: DateTime<Utc>) -> Result<(), Error> {
    let deadline = Instant::now() + BUDGET;
    // A name for this erasure, of which nothing leads to the user.
    let id = ids::new_id();
    let mut submissions = traces::erase(app, user, deadline).await?;
    erase_rows(app, user, id, now, deadline).await?;
    loop {
        sleep_until((Instant::now() + SETTLING).into()).await;
        submissions += traces::erase(app, user, deadline).await?;
        if !erase_rows(app, user, id, now, deadline).await? {
            break;
        }
    }
    erase_keys(app, user, deadline).await?;
    let submissions = i64::try_from(submissions).unwrap_or(i64::MAX);
    let params: [Param<'_>; 3] = [(&id, Type::UUID), (&now, Type::TIMESTAMPTZ), (&submissions, Type::INT8)];
    app.db.query(FINISH, &params, Repeat::Safe).await?;
    Ok(())
}

/// Part by part, until a look has found nothing: only then was nothing written between two parts. Says whether there was
/// anything.
async fn erase_rows(app: &App, user: &str, id: Uuid, now: DateTime<Utc>, deadline: Instant) -> Result<bool, Error> {
    let params: [Param<'_>; 5] = [
        (&user, Type::TEXT),
        (&id, Type::UUID),
        (&now, Type::TIMESTAMPTZ),
        (&MOST_ENROLLMENTS, Type::INT4),
        (&MOST_ROWS, Type::INT4),
    ];
    let mut had_any = false;
    loop {
        in_time(deadline)?;
        let rows = app.db.query_within(STATEMENT_BUDGET, ERASE, &params, Repeat::Safe).await?;
        let erased: Option<i32> = rows.first().map(|row| column(row, "erased")).transpose()?;
        if erased == Some(0) {
            return Ok(had_any);
        }
        had_any = true;
    }
}

/// The names of all other keys can be told from the courses alone, whether the learner was ever enrolled there or not.
async fn erase_keys(app: &App, user: &str, deadline: Instant) -> Result<(), Error> {
    if app.config.redis.is_none() {
        return Ok(());
    }
    app.cache.erase(&throttle::keys(user)).await?;
    let mut behind: Option<Uuid> = None;
    loop {
        in_time(deadline)?;
        let params: [Param<'_>; 2] = [(&behind, Type::UUID), (&COURSES, Type::INT8)];
        let rows = app.db.query(NEXT_COURSES, &params, Repeat::Safe).await?;
        let courses = rows.iter().map(|row| column(row, "id")).collect::<Result<Vec<Uuid>, _>>()?;
        let keys: Vec<String> = courses.iter().flat_map(|course| learning::keys(user, *course)).collect();
        app.cache.erase(&keys).await?;
        match courses.last().filter(|_| rows.len() as i64 == COURSES) {
            Some(last) => behind = Some(*last),
            None => return Ok(()),
        }
    }
}
