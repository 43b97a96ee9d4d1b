//! All that is kept under one user id, as a document to hand out: page by page, each row once.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    app::App,
    cache::Document,
    catalogue,
    db::{Param, Repeat, Statement, column},
    error::Error,
    ids,
    page::{self, Cursor},
    traces,
};

/// Rows on a page at the most, and unless the client says otherwise.
const MOST_ROWS: u32 = 1_000;
/// Bytes of rows on a page at the most; one row is shown however long it is, and no row is a megabyte long.
const MOST_BYTES: usize = 3 * 1024 * 1024;
/// After this nothing more is begun: API Gateway waits for 30 s.
const BUDGET: Duration = Duration::from_secs(20);
/// For one statement: a page may be megabytes.
const STATEMENT_BUDGET: Duration = Duration::from_secs(10);
/// The lists of the document, in the order in which pages walk them.
const LISTS: [&str; 5] = ["enrollments", "progress", "events", "submissions", "authoredCourses"];
const PROGRESS: usize = 1;
/// The one that comes from `DynamoDB`.
const SUBMISSIONS: usize = 3;
const COURSES: usize = 4;

/// The next rows of the four lists that PostgreSQL has, in order: $6 of them and $7 bytes at the most. List $2 is entered
/// behind $3, $4, $5; those before it are over. `found` is more than the rows that are returned if there are more.
///
/// By the user's range of `enrollments_pkey`, `progress_pkey`, `progress_events_pkey` and `courses_owner_idx`, each from
/// the cursor on. Figures come from `standings_v1`.
const ROWS: Statement = Statement {
    name: "export.rows",
    sql: concat!(
        "with found as (
            (
                select 0 as list, standings.course_id as id, null::uuid as second, null::timestamptz as moment,
                    json_build_object(
                        'courseId', standings.course_id, 'courseTitle', courses.title, 'status', standings.status,
                        'enrolledAt', rfc3339_v1(standings.enrolled_at),
                        'completedAt', rfc3339_v1(standings.completed_at),
                        'lastActivityAt', rfc3339_v1(standings.last_activity_at),
                        'completedSections', standings.completed_sections, 'totalSections', courses.section_count,
                        'totalTimeSpent', standings.time_spent,
                        'completionPercentage',
                        completion_percentage_v1(standings.completed_sections, courses.section_count),
                        'resetAt', rfc3339_v1(enrollments.reset_at), 'attempt', enrollments.attempt,
                        'activeDuring', (
                            select json_agg(
                                json_build_object(
                                    'from', rfc3339_v1(lower(period.during)), 'until', rfc3339_v1(upper(period.during))
                                )
                                order by period.during
                            )
                            from unnest(enrollments.active_during) as period (during)
                        )
                    )::text as item
                from standings_v1 as standings
                join enrollments on enrollments.user_id = standings.user_id
                    and enrollments.course_id = standings.course_id
                join courses on courses.id = standings.course_id
                where standings.user_id = $1 and $2 = 0 and ($3 is null or standings.course_id > $3)
                order by standings.course_id
                limit $6 + 1
            )
            union all
            (
                select 1, progress.course_id, progress.section_id, null,
                    json_build_object(
                        'courseId', progress.course_id, 'sectionId', progress.section_id,
                        'timeSpent', progress.time_spent, 'completedAt', rfc3339_v1(progress.completed_at),
                        'firstAt', rfc3339_v1(progress.first_at), 'lastAt', rfc3339_v1(progress.last_at)
                    )::text
                from progress
                where progress.user_id = $1
                    and ($2 < 1 or $2 = 1 and ($3 is null or (progress.course_id, progress.section_id) > ($3, $4)))
                order by progress.course_id, progress.section_id
                limit $6 + 1
            )
            union all
            (
                select 2, progress_events.event_id, null, null,
                    json_build_object(
                        'eventId', progress_events.event_id, 'courseId', progress_events.course_id,
                        'sectionId', progress_events.section_id, 'timeSpent', progress_events.time_spent,
                        'completed', progress_events.completed,
                        'occurredAt', rfc3339_v1(progress_events.occurred_at),
                        'recordedAt', rfc3339_v1(progress_events.recorded_at), 'attempt', progress_events.attempt
                    )::text
                from progress_events
                where progress_events.user_id = $1
                    and ($2 < 2 or $2 = 2 and ($3 is null or progress_events.event_id > $3))
                order by progress_events.event_id
                limit $6 + 1
            )
            union all
            (
                select 4, courses.id, null, courses.created_at,
                    ",
        catalogue::listed_json!(
            ", 'status', courses.status, 'version', courses.version, 'updatedAt', rfc3339_v1(courses.updated_at),
            'sectionCount', courses.section_count"
        ),
        "::text
                from courses
                where courses.owner_id = $1
                    and ($2 < 4 or $5 is null or (courses.created_at, courses.id) < ($5, $3))
                order by courses.created_at desc, courses.id desc
                limit $6 + 1
            )
        ), placed as (
            select found.list, found.id, found.second, found.moment, found.item,
                row_number() over place as place,
                sum(octet_length(found.item)) over place as bytes,
                count(*) over () as found
            from found
            window place as (
                order by found.list, found.moment desc,
                    case when found.list = 4 then null else found.id end, found.second, found.id desc
                rows unbounded preceding
            )
        )
        select placed.list, placed.id, placed.second, placed.moment, placed.item, placed.found
        from placed
        where placed.place <= $6 and (placed.bytes <= $7 or placed.place = 1)
        order by placed.place"
    ),
};

/// A page of all that is kept under a user id; a user of whom nothing is known has empty lists.
pub async fn export(app: &App, user: &str, limit: Option<&str>, cursor: Option<&str>) -> Result<Document, Error> {
    let most = page::limit_within(limit, MOST_ROWS, MOST_ROWS)? as usize;
    let name = format!("learners/{}", ids::hashed(user));
    let start = Cursor::decode(&name, cursor)?.map(|cursor| Place::read(&cursor)).transpose()?;
    let deadline = Instant::now() + BUDGET;
    let (mut rows, goes_on) = rows(app, user, start.as_ref(), most).await?;
    // PostgreSQL's lists stand on both sides of the submissions.
    let courses = rows.split_off(rows.iter().take_while(|entry| entry.place.list < SUBMISSIONS).count());
    let mut page = Page { user, name, entries: rows, bytes: 0, most };
    page.bytes = page.entries.iter().map(|entry| entry.item.len()).sum();
    if goes_on && courses.is_empty() || page.is_full() {
        return Ok(page.finish(true));
    }
    if start.as_ref().is_none_or(|start| start.list <= SUBMISSIONS) {
        let behind = start.filter(|start| start.list == SUBMISSIONS).map(|start| start.id);
        let room = (most - page.entries.len(), MOST_BYTES.saturating_sub(page.bytes));
        let shares = traces::shares(app, user, behind, room, deadline).await?;
        page.extend(shares.shares.into_iter().map(|(id, item)| Entry { place: Place::of(SUBMISSIONS, id), item }));
        if shares.goes_on || page.is_full() {
            return Ok(page.finish(true));
        }
    }
    let fitted = page.extend(courses);
    Ok(page.finish(goes_on || !fitted))
}

/// The rows of PostgreSQL's lists from a place on, and whether there are more of them.
async fn rows(app: &App, user: &str, start: Option<&Place>, most: usize) -> Result<(Vec<Entry>, bool), Error> {
    let list = start.map_or(0, |start| start.list as i32);
    let (id, second, moment) = start.map_or((None, None, None), |start| (Some(start.id), start.second, start.moment));
    let (most, most_bytes) = (most as i64, MOST_BYTES as i64);
    let params: [Param<'_>; 7] = [
        (&user, Type::TEXT),
        (&list, Type::INT4),
        (&id, Type::UUID),
        (&second, Type::UUID),
        (&moment, Type::TIMESTAMPTZ),
        (&most, Type::INT8),
        (&most_bytes, Type::INT8),
    ];
    let rows = app.db.query_within(STATEMENT_BUDGET, ROWS, &params, Repeat::Safe).await?;
    let found: i64 = rows.first().map_or(Ok(0), |row| column(row, "found"))?;
    let entries = rows.iter().map(Entry::read).collect::<Result<Vec<_>, _>>()?;
    let goes_on = (entries.len() as i64) < found;
    Ok((entries, goes_on))
}

/// A row's place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    list: usize,
    id: Uuid,
    /// The section of a row of progress.
    second: Option<Uuid>,
    /// When a course was made.
    moment: Option<DateTime<Utc>>,
}

impl Place {
    fn of(list: usize, id: Uuid) -> Self {
        Self { list, id, second: None, moment: None }
    }

    fn read(cursor: &Cursor) -> Result<Self, Error> {
        let list = usize::try_from(cursor.number(0)?).unwrap_or(usize::MAX);
        let place = Self::of(list, cursor.id(1)?);
        Ok(match list {
            PROGRESS => Self { second: Some(cursor.id(2)?), ..place },
            COURSES => Self { moment: Some(cursor.time(2)?), ..place },
            _ => place,
        })
    }

    fn write(&self, name: &str) -> String {
        let second = self.second.map(|id| id.to_string().into());
        let moment = self.moment.map(|moment| moment.timestamp_micros().into());
        let keys = [Some(self.list.into()), Some(self.id.to_string().into()), second, moment];
        Cursor::encode(name, keys.into_iter().flatten())
    }
}

/// One row of a list.
struct Entry {
    place: Place,
    item: String,
}

impl Entry {
    fn read(row: &Row) -> Result<Self, Error> {
        let list: i32 = column(row, "list")?;
        let place = Place {
            list: usize::try_from(list).unwrap_or_default(),
            id: column(row, "id")?,
            second: column(row, "second")?,
            moment: column(row, "moment")?,
        };
        Ok(Self { place, item: column(row, "item")? })
    }
}

/// A page that is being filled.
struct Page<'a> {
    user: &'a str,
    name: String,
    entries: Vec<Entry>,
    bytes: usize,
    most: usize,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.entries.len() >= self.most || self.bytes >= MOST_BYTES
    }

    /// Takes rows as long as there is room; whether there was for all.
    fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) -> bool {
        for entry in entries {
            let is_too_long = self.bytes + entry.item.len() > MOST_BYTES && !self.entries.is_empty();
            if self.entries.len() >= self.most || is_too_long && entry.place.list != SUBMISSIONS {
                return false;
            }
            self.bytes += entry.item.len();
            self.entries.push(entry);
        }
        true
    }

    fn finish(self, goes_on: bool) -> Document {
        let last = self.entries.last().filter(|_| goes_on);
        let next = last.map(|last| last.place.write(&self.name));
        let mut body = format!("{{\"userId\":{}", Value::from(self.user));
        for (list, name) in LISTS.iter().enumerate() {
            let items = self.entries.iter().filter(|entry| entry.place.list == list).map(|entry| entry.item.as_str());
            body += &format!(",\"{name}\":[{}]", items.collect::<Vec<_>>().join(","));
        }
        body += &format!(",\"nextCursor\":{}}}", Value::from(next.as_deref()));
        Document::new(body, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_cursor() {
        let [id, second] = [Uuid::now_v7(), Uuid::now_v7()];
        let moment = DateTime::from_timestamp_micros(1_700_000_000_123_456);
        for place in [
            Place::of(0, id),
            Place { second: Some(second), ..Place::of(PROGRESS, id) },
            Place::of(SUBMISSIONS, id),
            Place { moment, ..Place::of(COURSES, id) },
        ] {
            let cursor = Cursor::decode("list", Some(&place.write("list"))).unwrap().unwrap();
            assert_eq!(Place::read(&cursor).unwrap(), place);
        }
    }
}
