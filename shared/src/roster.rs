//! The roster of a course: every learner's enrollment and how far they are.

use std::time::Duration;

use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    cache::{Document, Source},
    db::{Param, Prepared, Question, Repeat, Statement, column},
    error::{Error, reason},
    http::Format,
    page::{self, Cursor},
};

/// A range in which nobody is takes seconds while all of a large class are behind their tree. The gateway waits for thirty.
const BUDGET: Duration = Duration::from_secs(8);

/// Every status that an enrollment can have.
const STATUSES: [&str; 2] = ["active", "cancelled"];

/// Ranges of the percentage that is shown, in hundredths, both ends included; whole and in order, so that everybody is in
/// exactly one.
pub(crate) const BUCKETS: [(&str, i64, i64); 6] = [
    ("0", 0, 0),
    ("1-25", 1, 2_500),
    ("26-50", 2_501, 5_000),
    ("51-75", 5_001, 7_500),
    ("76-99", 7_501, 9_999),
    ("100", 10_000, 10_000),
];

/// The keys of a learner, in their order; `learner_json!` makes them.
const COLUMNS: [&str; 9] = [
    "userId",
    "status",
    "enrolledAt",
    "completedAt",
    "lastActivityAt",
    "completedSections",
    "totalSections",
    "totalTimeSpent",
    "completionPercentage",
];

macro_rules! learner_json {
    () => {
        "json_build_object(
            'userId', learners.user_id, 'status', learners.status,
            'enrolledAt', rfc3339_v1(learners.enrolled_at), 'completedAt', rfc3339_v1(learners.completed_at),
            'lastActivityAt', rfc3339_v1(learners.last_activity_at),
            'completedSections', learners.completed_sections, 'totalSections', courses.section_count,
            'totalTimeSpent', learners.time_spent,
            'completionPercentage',
            completion_percentage_v1(learners.completed_sections, courses.section_count)
        )::text"
    };
}

/// Since when nothing has been heard of the enrollment at hand.
macro_rules! key {
    () => {
        "coalesce(enrollments.last_activity_at, enrollments.enrolled_at)"
    };
}

/// Whether the enrollment at hand comes behind the keys $5 and $6.
macro_rules! is_behind {
    () => {
        concat!("(", key!(), ", enrollments.user_id) < ($5, $6)")
    };
}

/// The order of the roster.
macro_rules! order {
    () => {
        concat!("order by ", key!(), " desc, enrollments.user_id desc")
    };
}

/// A page of the learners that a query picks, of whom $7 at the most. One row for the course, with nobody on it, tells an
/// empty page from a course that is not there; who does not manage the course has nobody picked for them.
macro_rules! roster {
    ($picked:expr) => {
        concat!(
            "select ",
            access_column!(),
            ", page.user_id, page.key, page.item
            from courses
            left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
            left join lateral (
                select learners.user_id, picked.key, ",
            learner_json!(),
            " as item
                from (",
            $picked,
            ") as picked
                join standings_v1 as learners
                    on learners.user_id = picked.user_id and learners.course_id = courses.id
                where $3 or courses.owner_id = $2
                -- Keeps the planner from picking first and asking afterwards whether it may.
                offset 0
            ) as page on true
            where courses.id = $1
            order by page.key desc, page.user_id desc"
        )
    };
}

/// Learners of the course at hand.
macro_rules! enrolled {
    ($filter:literal) => {
        concat!(
            "select enrollments.user_id, ",
            key!(),
            " as key
            from enrollments
            where enrollments.course_id = courses.id",
            $filter,
            " and ",
            is_behind!(),
            " ",
            order!(),
            " limit $7"
        )
    };
}

/// By `courses_pkey` and `enrollments_activity_idx`; standings by `enrollments_pkey`, for those on the page alone.
///
/// Among 200 000 learners, 20 take 0.3 ms and 100 of them 0.9 ms, the first as well as those behind 150 000 others.
const ROSTER: Prepared = Prepared(Statement { name: "roster.page", sql: roster!(enrolled!("")) });

/// Those of a status, $4: for those who cancelled by `enrollments_cancelled_idx`. Only where nearly everybody has,
/// `active` reads over all of them.
const ROSTER_BY_STATUS: Statement =
    Statement { name: "roster.by_status", sql: roster!(enrolled!(" and enrollments.status = $4")) };

/// Those whose percentage lies from $8 to $9, by `enrollments_standing_idx`. In a course a percentage is a number of
/// sections: the learners with each of them, who stand in the index in the order of the roster, are merged. However few
/// of 200 000 they are, and wherever they stand, 20 take 0.3 to 0.9 ms with 50 sections, and up to 11 ms with 1 000.
///
/// Those that are behind the tree are picked by their standing. It can differ from what is stored by no more than the
/// sections that have been retired or restored, so only those are looked at who come near. Until they have been
/// recounted, 20 of 200 000 take 20 to 160 ms; but a range that nobody is in, in a course of which much has been retired
/// or restored, takes 36 µs for each of them.
///
/// The range is unnested from an array, because the planner expects a thousand rows of `generate_series` itself and would
/// compile the statement (JIT), which takes 50 ms.
const ROSTER_BY_PROGRESS: Statement = Statement {
    name: "roster.by_progress",
    sql: roster!(concat!(
        "select candidates.user_id, candidates.key
        from (
            select
                (($8 * courses.section_count + 9999) / 10000)::integer as fewest,
                ((($9 + 1) * courses.section_count + 9999) / 10000 - 1)::integer as most,
                (
                    select count(*)::integer
                    from sections
                    where sections.course_id = courses.id
                        and (sections.position is null or sections.restored_at is not null)
                ) as moved
        ) as wanted
        cross join lateral (
            select counted.user_id, counted.key
            from unnest(array(select generate_series(wanted.fewest, wanted.most))) as completed (sections)
            cross join unnest(
                case when $4 is null then array['active', 'cancelled'] else array[$4] end
            ) as held (status)
            cross join lateral (
                select enrollments.user_id, ",
        key!(),
        " as key
                from enrollments
                where enrollments.course_id = courses.id and enrollments.tree_version = courses.tree_version
                    and enrollments.status = held.status and enrollments.completed_sections = completed.sections
                    and ",
        is_behind!(),
        " ",
        order!(),
        " limit $7
            ) as counted
            union all
            (
                select outdated.user_id, outdated.key
                from (
                    select enrollments as enrollment, enrollments.user_id, ",
        key!(),
        " as key
                    from enrollments
                    where enrollments.course_id = courses.id and enrollments.tree_version < courses.tree_version
                        and enrollments.completed_sections
                            between wanted.fewest - wanted.moved and wanted.most + wanted.moved
                        and ($4 is null or enrollments.status = $4) and ",
        is_behind!(),
        " ",
        order!(),
        " -- Sorted before anybody is counted: it goes on only until the page is full.
                    offset 0
                ) as outdated
                cross join lateral standing_v1(outdated.enrollment) as standing
                where standing.completed_sections between wanted.fewest and wanted.most
                order by outdated.key desc, outdated.user_id desc
                limit $7
            )
        ) as candidates
        order by candidates.key desc, candidates.user_id desc
        limit $7"
    )),
};

/// What a client asks of a roster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// `limit`.
    pub limit: Option<&'a str>,
    /// `cursor`.
    pub cursor: Option<&'a str>,
    /// `status`.
    pub status: Option<&'a str>,
    /// `progress`.
    pub progress: Option<&'a str>,
}

/// A page of a course's learners, last active first, in the wanted format.
pub async fn page(
    app: &App,
    caller: &Caller,
    course: Uuid,
    query: Query<'_>,
    format: Format,
) -> Result<(Document, Source), Error> {
    let limit = page::limit(query.limit)?;
    let status = page::one_of("status", query.status, &STATUSES)?;
    let bucket = page::one_of("progress", query.progress, &BUCKETS.map(|(name, ..)| name))?;
    let list = format!("roster/{course}/{}/{}", status.unwrap_or("*"), bucket.unwrap_or("*"));
    let cursor = Cursor::decode(&list, query.cursor)?;
    let rows = rows(app, caller, course, (status, bucket), cursor, limit).await?;
    let first = rows.first().ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    Access::of(first)?.require_manage()?;
    let is_empty = column::<Option<&str>>(first, "item")?.is_none();
    let learners = if is_empty { &[] } else { rows.as_slice() };
    let document = match format {
        Format::Json => page::assemble("enrollments", learners, limit, |row| behind(&list, row)),
        Format::Csv => page::assemble_csv(&COLUMNS, learners, limit, |row| behind(&list, row)),
    };
    Ok((document?, Source::Bypass))
}

async fn rows(
    app: &App,
    caller: &Caller,
    course: Uuid,
    (status, bucket): (Option<&str>, Option<&str>),
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let time = page::before(cursor.as_ref())?;
    let user = cursor.as_ref().map(|cursor| cursor.text(1)).transpose()?.unwrap_or_default();
    let rows = i64::from(limit) + 1;
    let mut params: Vec<Param<'_>> = vec![
        (&course, Type::UUID),
        (&caller.user, Type::TEXT),
        (&caller.admin, Type::BOOL),
        (&status, Type::TEXT),
        (&time, Type::TIMESTAMPTZ),
        (&user, Type::TEXT),
        (&rows, Type::INT8),
    ];
    let range = BUCKETS.iter().find(|(name, ..)| bucket == Some(*name));
    let question: Question = match (range, status) {
        (None, None) => ROSTER.into(),
        (None, Some(_)) => ROSTER_BY_STATUS.into(),
        (Some((_, least, most)), _) => {
            params.extend([(least as _, Type::INT8), (most as _, Type::INT8)]);
            ROSTER_BY_PROGRESS.into()
        }
    };
    Ok(app.db.query_within(BUDGET, question, &params, Repeat::Safe).await?)
}

/// The cursor behind a learner.
fn behind(list: &str, row: &Row) -> Result<String, Error> {
    let time: chrono::DateTime<chrono::Utc> = column(row, "key")?;
    Ok(Cursor::encode(list, [time.timestamp_micros().into(), column::<&str>(row, "user_id")?.into()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_percentage_is_in_one_bucket() {
        for hundredths in 0..=10_000 {
            let holding = BUCKETS.iter().filter(|(_, least, most)| (*least..=*most).contains(&hundredths));
            assert_eq!(holding.count(), 1, "{hundredths}");
        }
    }
}
