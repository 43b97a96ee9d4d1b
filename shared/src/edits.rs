//! What each version of a course changed: told to an editor who did not know of it.

use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    db::{Session, Statement, column},
    error::{Error, reason},
};

/// Steps of a `with` that note the change at hand, whose JSON is `$change`, and forget all but the latest hundred.
/// `courses` is the changed row.
macro_rules! note {
    ($change:literal) => {
        concat!(
            "noted as (
                insert into course_edits (course_id, version, edited_at, change)
                select courses.id, courses.version, courses.updated_at, ",
            $change,
            " from courses
            ), forgotten as (
                delete from course_edits using courses
                where course_edits.course_id = courses.id and course_edits.version <= courses.version - 100
            )"
        )
    };
}

/// The changes of the course at hand since a version, latest first, twenty at the most. By `course_edits_pkey`.
macro_rules! since {
    ($version:literal) => {
        concat!(
            "(
                select coalesce(json_agg(latest.edit), '[]'::json)
                from (
                    select json_build_object(
                        'version', course_edits.version, 'editedAt', rfc3339_v1(course_edits.edited_at),
                        'change', course_edits.change::json
                    ) as edit
                    from course_edits
                    where course_edits.course_id = courses.id and course_edits.version > ",
            $version,
            "
                    order by course_edits.version desc
                    limit 20
                ) as latest
            )::text"
        )
    };
}

pub(crate) use {note, since};

/// By `courses_pkey` and `course_edits_pkey`.
const SINCE: Statement = Statement {
    name: "edits.since",
    sql: concat!("select courses.version, ", since!("$2"), " as changes from courses where courses.id = $1"),
};

/// Why a version is not taken, of a course that the session has locked. Asked by itself: who waited for the lock has the
/// row as it is now, and everything else as it was before.
pub(crate) async fn stale_in(session: &mut Session<'_>, course: Uuid, known: i64) -> Result<Error, Error> {
    let rows = session.query(SINCE, &[(&course, Type::UUID), (&known, Type::INT8)]).await?;
    stale(rows.first().ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?)
}

/// Why somebody's version is not taken, from a row with `version` and `changes`.
pub(crate) fn stale(row: &Row) -> Result<Error, Error> {
    let changes: &str = column(row, "changes")?;
    let changes = serde_json::from_str(changes).map_err(|error| Error::internal("reading changes", error))?;
    Ok(Error::Stale { current: column(row, "version")?, changes })
}
