//! What each version of a course changed: told to an editor who did not know of it.

use tokio_postgres::Row;

use crate::{db::column, error::Error};

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

/// Why somebody's version is not taken, from a row with `version` and `changes`.
pub(crate) fn stale(row: &Row) -> Result<Error, Error> {
    let changes: &str = column(row, "changes")?;
    let changes = serde_json::from_str(changes).map_err(|error| Error::internal("reading changes", error))?;
    Ok(Error::Stale { current: column(row, "version")?, changes })
}
