//! Putting learners' counts right after sections were retired or restored.
//!
//! An enrollment says by which tree of its course it was counted (`tree_version`). One that is behind is never wrong for
//! a reader, who counts it afresh (`standings_v1`), nor for who records, which settles it first. So the rows themselves
//! can wait: where few are enrolled they are settled in the edit's own transaction, else in batches by the scheduled
//! refresh.

use std::time::Instant;

use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    app::App,
    db::{Param, Repeat, Session, Statement, column},
    error::Error,
};

/// Enrollments that an edit settles by itself: a tenth of a second.
const AT_ONCE: i64 = 250;
/// Enrollments that are settled in one transaction: learners among them wait for so long.
const BATCH: i64 = 250;

/// Locks the enrollments of course $1 that are behind its tree, $2 of them at the most, in the order of locks. By
/// `enrollments_tree_idx`, then `enrollments_pkey`.
const LOCK: Statement = Statement {
    name: "recount.lock",
    sql: "select enrollments.user_id
        from enrollments
        where enrollments.course_id = $1 and enrollments.user_id = any (array(
            select behind.user_id
            from enrollments as behind
            where behind.course_id = $1
                and behind.tree_version < (select courses.tree_version from courses where courses.id = $1)
            limit $2
        ))
        order by enrollments.user_id
        for no key update",
};

const SETTLE: Statement = Statement {
    name: "recount.settle",
    sql: "with settled as (
            select settle_standings_v1($1, $2) as count
        ), marked as (
            insert into course_changes (course_id) select $1 from settled where settled.count > 0
        )
        select settled.count from settled",
};

/// Leaves the course to the refresh, with the sections that it has now.
const LEAVE: Statement = Statement {
    name: "recount.leave",
    sql: "insert into course_recounts (course_id, tree_version, section_count, section_ids)
        select courses.id, courses.tree_version, courses.section_count, array(
            select sections.id from sections where sections.course_id = courses.id and sections.position is not null
        )
        from courses
        where courses.id = $1",
};

/// The courses that wait, and up to which tree. By `course_recounts_pkey`.
const WAITING: Statement = Statement {
    name: "recount.waiting",
    sql: "select course_recounts.course_id, max(course_recounts.tree_version) as tree_version
        from course_recounts
        group by course_recounts.course_id
        order by course_recounts.course_id",
};

/// What nobody is behind any more. The enrollments by `enrollments_tree_idx`.
const FORGET: Statement = Statement {
    name: "recount.forget",
    sql: "delete from course_recounts
        where course_recounts.course_id = $1 and course_recounts.tree_version <= $2 and not exists (
            select from enrollments
            where enrollments.course_id = $1 and enrollments.tree_version < course_recounts.tree_version
        )",
};

/// By `enrollments_tree_idx`.
const REMAINING: Statement = Statement {
    name: "recount.remaining",
    sql: "select count(*) as remaining
        from (select distinct course_recounts.course_id from course_recounts) as waiting
        join courses on courses.id = waiting.course_id
        join enrollments on enrollments.course_id = courses.id and enrollments.tree_version < courses.tree_version",
};

/// Settles the learners of a course whose tree the transaction at hand has changed, or leaves them to [`settle`].
///
/// The course's row is locked, and then enrollments. Nobody waits for that row who holds an enrollment.
pub(crate) async fn begin(session: &mut Session<'_>, course: Uuid) -> Result<(), Error> {
    let behind = lock(session, course, AT_ONCE + 1).await?;
    let few = i64::try_from(behind.len()).is_ok_and(|count| count <= AT_ONCE);
    if few {
        store(session, course, &behind).await?;
    } else {
        session.query(LEAVE, &[(&course, Type::UUID)]).await?;
    }
    Ok(())
}

/// What a run came to, in enrollments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Those that were put right.
    pub settled: i64,
    /// Those that are behind still.
    pub remaining: i64,
}

impl Settled {
    /// As the refresh answers it.
    pub fn to_json(self) -> Value {
        json!({ "settled": self.settled, "remaining": self.remaining })
    }
}

/// Settles in batches what edits have left, until all is done or the deadline is near. `None` where nothing waits.
///
/// It may be stopped anywhere and run beside itself: each batch is a transaction that takes whoever is still behind.
pub async fn settle(app: &App, deadline: Instant) -> Result<Option<Settled>, Error> {
    let waiting = app.db.query(WAITING, &[], Repeat::Safe).await?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let mut settled = 0;
    for row in &waiting {
        let (course, tree_version): (Uuid, i32) = (column(row, "course_id")?, column(row, "tree_version")?);
        while Instant::now() < deadline {
            let batch = settle_batch(app, course, deadline).await?;
            settled += batch;
            if batch == 0 {
                let params: [Param<'_>; 2] = [(&course, Type::UUID), (&tree_version, Type::INT4)];
                app.db.query(FORGET, &params, Repeat::Safe).await?;
                break;
            }
        }
    }
    let row = app.db.query_one(REMAINING, &[], Repeat::Safe).await?;
    let done = Settled { settled, remaining: column(&row, "remaining")? };
    tracing::info!(settled = done.settled, remaining = done.remaining, "enrollments were counted by their new trees");
    Ok(Some(done))
}

async fn settle_batch(app: &App, course: Uuid, deadline: Instant) -> Result<i64, Error> {
    let mut session = app.db.session("recount.settle", deadline).await?;
    session.begin().await?;
    let behind = lock(&mut session, course, BATCH).await?;
    let settled = store(&mut session, course, &behind).await?;
    session.commit().await?;
    Ok(settled)
}

async fn lock(session: &mut Session<'_>, course: Uuid, most: i64) -> Result<Vec<String>, Error> {
    let rows = session.query(LOCK, &[(&course, Type::UUID), (&most, Type::INT8)]).await?;
    rows.iter().map(|row| column(row, "user_id")).collect()
}

/// A statement of its own: only one that follows the locks sees what was committed while it waited for them.
async fn store(session: &mut Session<'_>, course: Uuid, learners: &[String]) -> Result<i64, Error> {
    if learners.is_empty() {
        return Ok(0);
    }
    let rows = session.query(SETTLE, &[(&course, Type::UUID), (&learners, Type::TEXT_ARRAY)]).await?;
    let row = rows.first().ok_or(Error::Internal { context: "settling standings", source: None })?;
    Ok(i64::from(column::<i32>(row, "count")?))
}
