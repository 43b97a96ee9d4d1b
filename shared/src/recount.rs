//! Putting learners' counts right after sections were retired or restored.
//!
//! An enrollment says by which tree of its course it was counted (`tree_version`). One that is behind is never wrong for
//! a reader, who counts it afresh (`standings_v1`), nor for who records, which settles it first. So the rows themselves
//! can wait: where few are enrolled they are settled in the edit's own transaction, else in batches by the scheduled
//! refresh. The refresh looks after the few, too: somebody may enrol and record while an edit is being written.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    app::App,
    db::{Param, Repeat, Session, Statement, column},
    error::Error,
    telemetry,
};

/// Enrollments that are settled in one transaction, the edit's own or one of the refresh.
const MOST: i64 = 250;
/// Sections that these may have completed together. Learners among them wait for so long: a tenth of a second or two.
const MOST_COMPLETED: i64 = 100_000;
/// A batch of the refresh. Whoever holds one of its rows is soon done, or will be in the next run.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

/// Locks enrollments of course $1 that are behind its tree, in the order of locks, no more than `bound`. By
/// `enrollments_tree_idx`, then `enrollments_pkey`.
const LOCK: Statement = Statement {
    name: "recount.lock",
    sql: "with behind as materialized (
            select enrollments.user_id, courses.bound
            from (
                select courses.id, courses.tree_version,
                    least($2, greatest($3 / greatest(courses.section_count, 1), 1)) as bound
                from courses
                where courses.id = $1
            ) as courses
            cross join lateral (
                select enrollments.user_id
                from enrollments
                where enrollments.course_id = courses.id and enrollments.tree_version < courses.tree_version
                order by enrollments.tree_version
                limit courses.bound
            ) as enrollments
        )
        select enrollments.user_id, (select max(behind.bound) from behind) as bound
        from enrollments
        where enrollments.course_id = $1 and enrollments.user_id = any (array(select behind.user_id from behind))
        order by enrollments.user_id
        for no key update",
};

/// Marks the course as `settle_standings_v1` does since V32, for schemas that do not have it yet.
const SETTLE: Statement = Statement {
    name: "recount.settle",
    sql: "with settled as (
            select settle_standings_v1($1, $2) as count
        ), marked as (
            insert into course_changes (course_id) select $1 from settled where settled.count > 0
        )
        select settled.count from settled",
};

/// Leaves the course to the refresh.
const LEAVE: Statement = Statement {
    name: "recount.leave",
    sql: "insert into course_recounts (course_id, tree_version, version, section_count)
        select courses.id, courses.tree_version, courses.version, courses.section_count
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
    session.query(LEAVE, &[(&course, Type::UUID)]).await?;
    let behind = Behind::lock(session, course).await?;
    if behind.are_all {
        behind.settle(session, course).await?;
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

/// Settles in batches what edits have left, until all is done or the deadline is near. `None` where nobody was behind.
///
/// It may be stopped anywhere and run beside itself: each batch is a transaction that takes whoever is still behind. A
/// course that cannot be done stops no other.
pub async fn settle(app: &App, deadline: Instant) -> Result<Option<Settled>, Error> {
    let waiting = app.db.query(WAITING, &[], Repeat::Safe).await?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let mut done = Settled::default();
    for row in waiting {
        let course = column(&row, "course_id")?;
        if let Err(error) = settle_course(app, course, column(&row, "tree_version")?, deadline, &mut done).await {
            tracing::warn!(%course, error = telemetry::chain(&error), "learners were not counted by their new tree");
        }
    }
    let row = app.db.query_one(REMAINING, &[], Repeat::Safe).await?;
    done.remaining = column(&row, "remaining")?;
    Ok((done != Settled::default()).then_some(done))
}

async fn settle_course(
    app: &App,
    course: Uuid,
    tree_version: i32,
    deadline: Instant,
    done: &mut Settled,
) -> Result<(), Error> {
    while Instant::now() < deadline {
        let mut session = app.db.begin("recount.settle", deadline.min(Instant::now() + BATCH_LIMIT)).await?;
        let behind = Behind::lock(&mut session, course).await?;
        let settled = behind.settle(&mut session, course).await?;
        session.commit().await?;
        done.settled += settled;
        if behind.are_all {
            let params: [Param<'_>; 2] = [(&course, Type::UUID), (&tree_version, Type::INT4)];
            app.db.query(FORGET, &params, Repeat::Safe).await?;
            break;
        }
    }
    Ok(())
}

/// Learners who are behind the tree of a course, and whose enrollments are locked.
struct Behind {
    learners: Vec<String>,
    /// Whether there are no others.
    are_all: bool,
}

impl Behind {
    async fn lock(session: &mut Session<'_>, course: Uuid) -> Result<Self, Error> {
        let params: [Param<'_>; 3] = [(&course, Type::UUID), (&MOST, Type::INT8), (&MOST_COMPLETED, Type::INT8)];
        let rows = session.query(LOCK, &params).await?;
        let bound: i64 = rows.first().map(|row| column(row, "bound")).transpose()?.unwrap_or(MOST);
        let learners = rows.iter().map(|row| column(row, "user_id")).collect::<Result<Vec<String>, _>>()?;
        let are_all = i64::try_from(learners.len()).is_ok_and(|count| count < bound);
        Ok(Self { learners, are_all })
    }

    /// A statement of its own: only one that follows the locks sees what was committed while it waited for them.
    async fn settle(&self, session: &mut Session<'_>, course: Uuid) -> Result<i64, Error> {
        if self.learners.is_empty() {
            return Ok(0);
        }
        let rows = session.query(SETTLE, &[(&course, Type::UUID), (&self.learners, Type::TEXT_ARRAY)]).await?;
        let row = rows.first().ok_or(Error::Internal { context: "settling standings", source: None })?;
        Ok(i64::from(column::<i32>(row, "count")?))
    }
}
