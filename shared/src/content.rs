//! Changing a course's tree while people learn from it: replacing it by id, and appending lessons.
//!
//! What a tree no longer names is retired: it loses its place, its row and all progress on it stay. Both writes hold the
//! course's row until they commit, so that editors come one after the other. Learners are not kept waiting: recording
//! locks enrollments only, and counts by the tree that it sees (see [`crate::recount`]).

mod change;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    body, courses,
    db::{Param, Session, Statement, column},
    edits,
    error::{Error, reason},
    http::MOST_BYTES,
    publication, recount,
    tree::{self, Ids, Lesson, MOST_DESCRIBED, Rows},
};
use change::{Change, Held, HeldLesson, HeldSection, noted};

/// A tree of 4 MB takes a second or two to write; API Gateway waits thirty.
const BUDGET: Duration = Duration::from_secs(15);

/// By `courses_pkey` and `enrollments_pkey`. The row is locked, and then read as whoever held it before has left it. The
/// moment is that of the lock: the order of versions is the order of times.
const LOCK: Statement = Statement {
    name: "content.lock",
    sql: concat!(
        "select ",
        access_column!(),
        ",
            courses.version, clock_timestamp() as now
        from courses
        left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        where courses.id = $1
        for no key update of courses"
    ),
};

/// By `lessons_position_key`, and `lessons_pkey` for retired ones that are named.
const HELD_LESSONS: Statement = Statement {
    name: "content.held_lessons",
    sql: "select lessons.id, lessons.title, lessons.position from lessons
        where lessons.course_id = $1 and (lessons.position is not null or lessons.id = any ($2))",
};

/// By `sections_position_key`. A course may have retired more than it has.
const HELD_SECTIONS: Statement = Statement {
    name: "content.held_sections",
    sql: "select sections.id, sections.lesson_id, sections.title, sections.type, sections.position, sections.duration
        from sections
        where sections.course_id = $1 and (sections.position is not null or sections.id = any ($2))",
};

/// Takes places away because siblings are about to change theirs, and no two may share one meanwhile; or, of lessons, for
/// good.
const LIFT: Statement = Statement {
    name: "content.lift",
    sql: "with lifted as (update lessons set position = null where lessons.id = any ($1))
        update sections set position = null where sections.id = any ($2)",
};

/// $2 is the first version without them.
const RETIRE: Statement = Statement {
    name: "content.retire",
    sql: "update sections set
            position = null,
            placed_during = coalesce(sections.placed_during, '{(,)}') - int8multirange(int8range($2, null))
        where sections.id = any ($1)",
};

const PUT_LESSONS: Statement = Statement {
    name: "content.put_lessons",
    sql: "update lessons set title = sent.title, position = sent.position
        from unnest($1, $2, $3) as sent (id, title, position)
        where lessons.id = sent.id",
};

/// $7 says of each whether it had been retired; $9 is the first version with these again.
const PUT_SECTIONS: Statement = Statement {
    name: "content.put_sections",
    sql: "update sections set
            lesson_id = sent.lesson_id, title = sent.title, type = sent.type, position = sent.position,
            duration = sent.duration,
            restored_at = case when sent.is_restored then $8 else sections.restored_at end,
            placed_during = case
                when sent.is_restored then coalesce(sections.placed_during, '{}') + int8multirange(int8range($9, null))
                else sections.placed_during
            end
        from unnest($1, $2, $3, $4, $5, $6, $7)
            as sent (id, lesson_id, title, type, position, duration, is_restored)
        where sections.id = sent.id",
};

/// Contents are compared where they are: most of those that an editor sends have not changed.
const PUT_CONTENTS: Statement = Statement {
    name: "content.put_contents",
    sql: "update sections set content = sent.content
        from unnest($1, $2) as sent (id, content)
        where sections.id = sent.id and sections.content <> sent.content
        returning sections.id",
};

const INSERT: Statement = Statement {
    name: "content.insert",
    sql: "with lessons as (
            insert into lessons (id, course_id, title, position, created_at)
            select item.id, $1, item.title, item.position, $2
            from unnest($3, $4, $5) as item (id, title, position)
        )
        insert into sections (
            id, lesson_id, course_id, title, content, type, position, duration, created_at, placed_during
        )
        select
            item.id, item.lesson_id, $1, item.title, item.content, item.type, item.position, item.duration, $2,
            int8multirange(int8range($13, null))
        from unnest($6, $7, $8, $9, $10, $11, $12)
            as item (id, lesson_id, title, content, type, position, duration)",
};

/// Counts the tree anew and makes a version of it; $3 is whether sections were retired or restored.
const FINISH: Statement = Statement {
    name: "content.finish",
    sql: concat!(
        "with courses as (
            update courses set
                version = courses.version + 1,
                tree_version = courses.tree_version + case when $3 then 1 else 0 end,
                lesson_count = (
                    select count(*) from lessons where lessons.course_id = $1 and lessons.position is not null
                ),
                section_count = (
                    select count(*) from sections where sections.course_id = $1 and sections.position is not null
                ),
                updated_at = $2
            where courses.id = $1
            returning *
        ), marked as (
            insert into course_changes (course_id) select courses.id from courses
        ), ",
        edits::note!("$4"),
        " select ",
        courses::course_json!(),
        "::text as body,
            octet_length(concat(courses.title, courses.description, courses.image_url))::bigint as described
        from courses"
    ),
};

/// The course as it stands, for a tree that changes nothing.
const RENDER: Statement = Statement {
    name: "content.render",
    sql: concat!("select ", courses::course_json!(), "::text as body from courses where courses.id = $1"),
};

/// By `lesson_additions_pkey`.
const ADDED: Statement = Statement {
    name: "content.added",
    sql: "select lesson_additions.request_hash, lesson_additions.body
        from lesson_additions
        where lesson_additions.user_id = $1 and lesson_additions.idempotency_key = $2",
};

/// Writes nothing where the key has been used for another course at the same time.
const KEEP_ADDED: Statement = Statement {
    name: "content.keep_added",
    sql: "insert into lesson_additions (user_id, idempotency_key, request_hash, body)
        values ($1, $2, $3, $4)
        on conflict (user_id, idempotency_key) do nothing
        returning 1",
};

/// By `lessons_position_key`.
const TAKEN: Statement = Statement {
    name: "content.taken",
    sql: "select 1 from lessons where lessons.course_id = $1 and lessons.position = any ($2) limit 1",
};

/// Reads the body of `PUT /courses/{courseId}/content`.
pub fn parse_tree(body: &Value) -> Result<Vec<Lesson>, Error> {
    let lessons = body::parse(body, |root| tree::lessons(&root.object()?.field("lessons"), Ids::Kept))?;
    tree::fit(&lessons)?;
    Ok(lessons)
}

/// Reads the body of `POST /courses/{courseId}/lessons`.
pub fn parse_lessons(body: &Value) -> Result<Vec<Lesson>, Error> {
    let lessons = body::parse(body, |root| {
        let node = root.object()?.field("lessons");
        let lessons = tree::lessons(&node, Ids::Made)?;
        if lessons.is_empty() { node.refuse("must not be empty") } else { Some(lessons) }
    })?;
    tree::fit(&lessons)?;
    Ok(lessons)
}

/// Gives a course that is still at `version` this tree, and answers as `GET` would.
pub async fn replace(
    app: &App,
    caller: &Caller,
    course: Uuid,
    version: i64,
    lessons: &[Lesson],
) -> Result<String, Error> {
    let mut session = app.db.begin_soon("content.replace", Instant::now() + BUDGET).await?;
    let replaced = replace_in(&mut session, caller, course, version, lessons).await;
    end(app, session, course, replaced).await
}

/// The lessons that were appended, now or the first time this key was used.
#[derive(Debug)]
pub struct Appended {
    /// The course as `GET` gives it.
    pub body: String,
    /// Whether this is the first answer again.
    pub replayed: bool,
}

/// Appends lessons to a course, or tells what was answered under the key before.
pub async fn append(
    app: &App,
    caller: &Caller,
    course: Uuid,
    key: &str,
    request_hash: &[u8],
    lessons: &[Lesson],
) -> Result<Appended, Error> {
    let mut session = app.db.begin_soon("content.append", Instant::now() + BUDGET).await?;
    let key = Key { text: key, request_hash };
    let appended = append_in(&mut session, caller, course, &key, lessons).await;
    end(app, session, course, appended).await
}

/// Commits what succeeded, takes back what did not, and tells the cache.
async fn end<T>(app: &App, session: Session<'_>, course: Uuid, done: Result<T, Error>) -> Result<T, Error> {
    let done = match done {
        Ok(done) => session.commit().await.map(|()| done).map_err(Error::from),
        Err(error @ (Error::Unavailable { .. } | Error::Internal { .. })) => return Err(error),
        Err(refusal) => {
            // Without it the connection would be thrown away, which costs more than it is worth a message.
            let _ = session.rollback().await;
            return Err(refusal);
        }
    };
    // After a failed commit too: it may have taken effect without our hearing of it.
    publication::bump(app, course, false).await;
    done
}

async fn replace_in(
    session: &mut Session<'_>,
    caller: &Caller,
    course: Uuid,
    version: i64,
    lessons: &[Lesson],
) -> Result<String, Error> {
    let edit = Edit::begin(session, caller, course).await?;
    if edit.version - 1 != version {
        return Err(edits::stale_in(session, course, version).await?);
    }
    let held = Held::read(session, course, lessons).await?;
    let mut change = Change::between(&held, lessons)?;
    change.put(session, &edit).await?;
    if change.is_nothing() {
        let rows = session.query(RENDER, &[(&course, Type::UUID)]).await?;
        return body_of(&rows);
    }
    edit.finish(session, change.moves_counts(), &change.to_json()).await
}

/// An idempotency key, and what it was used for.
struct Key<'a> {
    text: &'a str,
    request_hash: &'a [u8],
}

async fn append_in(
    session: &mut Session<'_>,
    caller: &Caller,
    course: Uuid,
    key: &Key<'_>,
    lessons: &[Lesson],
) -> Result<Appended, Error> {
    // Whoever sends the same key waits here until the first is done.
    let edit = Edit::begin(session, caller, course).await?;
    let params: [Param<'_>; 2] = [(&caller.user, Type::TEXT), (&key.text, Type::TEXT)];
    if let Some(row) = session.query(ADDED, &params).await?.first() {
        if column::<&[u8]>(row, "request_hash")? != key.request_hash {
            return Err(Error::KeyReused);
        }
        return Ok(Appended { body: column(row, "body")?, replayed: true });
    }
    let rows = Rows::of(lessons);
    let params: [Param<'_>; 2] = [(&course, Type::UUID), (&rows.lesson_orders, Type::INT4_ARRAY)];
    if !session.query(TAKEN, &params).await?.is_empty() {
        return Err(Error::Conflict(reason::ORDER_TAKEN));
    }
    edit.insert(session, &rows).await?;
    let change = json!({
        "lessons": { "added": noted(&rows.lesson_ids) },
        "sections": { "added": noted(&rows.section_ids) },
    });
    let body = edit.finish(session, false, &change).await?;
    let params: [Param<'_>; 4] =
        [(&caller.user, Type::TEXT), (&key.text, Type::TEXT), (&key.request_hash, Type::BYTEA), (&body, Type::TEXT)];
    if session.query(KEEP_ADDED, &params).await?.is_empty() {
        return Err(Error::KeyReused);
    }
    Ok(Appended { body, replayed: false })
}

/// An edit of a course whose row is locked.
struct Edit {
    course: Uuid,
    /// The version that it leads to.
    version: i64,
    now: DateTime<Utc>,
}

impl Edit {
    /// Locks a course that the caller manages.
    async fn begin(session: &mut Session<'_>, caller: &Caller, course: Uuid) -> Result<Self, Error> {
        let params: [Param<'_>; 3] = [(&course, Type::UUID), (&caller.user, Type::TEXT), (&caller.admin, Type::BOOL)];
        let row = session.query(LOCK, &params).await?.pop().ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
        Access::of(&row)?.require_manage()?;
        Ok(Self { course, version: column::<i64>(&row, "version")? + 1, now: column(&row, "now")? })
    }

    async fn insert(&self, session: &mut Session<'_>, rows: &Rows<'_>) -> Result<(), Error> {
        let params: [Param<'_>; 13] = [
            (&self.course, Type::UUID),
            (&self.now, Type::TIMESTAMPTZ),
            (&rows.lesson_ids, Type::UUID_ARRAY),
            (&rows.lesson_titles, Type::TEXT_ARRAY),
            (&rows.lesson_orders, Type::INT4_ARRAY),
            (&rows.section_ids, Type::UUID_ARRAY),
            (&rows.section_lessons, Type::UUID_ARRAY),
            (&rows.section_titles, Type::TEXT_ARRAY),
            (&rows.section_contents, Type::TEXT_ARRAY),
            (&rows.section_kinds, Type::TEXT_ARRAY),
            (&rows.section_orders, Type::INT4_ARRAY),
            (&rows.section_durations, Type::INT4_ARRAY),
            (&self.version, Type::INT8),
        ];
        session.query(INSERT, &params).await?;
        Ok(())
    }

    /// Makes a version of the tree as it was written, and puts the learners' counts right where that moved them.
    async fn finish(&self, session: &mut Session<'_>, moves_counts: bool, change: &Value) -> Result<String, Error> {
        let change = change.to_string();
        let params: [Param<'_>; 4] = [
            (&self.course, Type::UUID),
            (&self.now, Type::TIMESTAMPTZ),
            (&moves_counts, Type::BOOL),
            (&change, Type::TEXT),
        ];
        let rows = session.query(FINISH, &params).await?;
        let body = body_of(&rows)?;
        let described: i64 = column(&rows[0], "described")?;
        // As in `tree::fit`.
        if body.len() + MOST_DESCRIBED > MOST_BYTES + usize::try_from(described).unwrap_or_default() {
            return Err(Error::TooLarge(reason::ANSWER_TOO_LARGE));
        }
        if moves_counts {
            recount::begin(session, self.course).await?;
        }
        Ok(body)
    }
}

fn body_of(rows: &[Row]) -> Result<String, Error> {
    column(rows.first().ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?, "body")
}

impl Held {
    /// All that has a place, and whatever of the retired is named.
    async fn read(session: &mut Session<'_>, course: Uuid, sent: &[Lesson]) -> Result<Self, Error> {
        let mut held = Self::default();
        let lessons: Vec<Uuid> = sent.iter().filter_map(|lesson| lesson.id).collect();
        let params: [Param<'_>; 2] = [(&course, Type::UUID), (&lessons, Type::UUID_ARRAY)];
        for row in session.query(HELD_LESSONS, &params).await? {
            let lesson = HeldLesson { title: column(&row, "title")?, order: column(&row, "position")? };
            held.lessons.insert(column(&row, "id")?, lesson);
        }
        let sections: Vec<Uuid> =
            sent.iter().flat_map(|lesson| &lesson.sections).filter_map(|section| section.id).collect();
        let params: [Param<'_>; 2] = [(&course, Type::UUID), (&sections, Type::UUID_ARRAY)];
        for row in session.query(HELD_SECTIONS, &params).await? {
            let section = HeldSection {
                lesson: column(&row, "lesson_id")?,
                title: column(&row, "title")?,
                kind: column(&row, "type")?,
                order: column(&row, "position")?,
                duration: column(&row, "duration")?,
            };
            held.sections.insert(column(&row, "id")?, section);
        }
        Ok(held)
    }
}

impl Change<'_> {
    /// Writes it.
    async fn put(&mut self, session: &mut Session<'_>, edit: &Edit) -> Result<(), Error> {
        if !self.sections.retired.is_empty() {
            let params: [Param<'_>; 2] = [(&self.sections.retired, Type::UUID_ARRAY), (&edit.version, Type::INT8)];
            session.query(RETIRE, &params).await?;
        }
        let lessons = [self.lessons.moved.as_slice(), &self.lessons.retired].concat();
        if !lessons.is_empty() || !self.sections.moved.is_empty() {
            let params: [Param<'_>; 2] = [(&lessons, Type::UUID_ARRAY), (&self.sections.moved, Type::UUID_ARRAY)];
            session.query(LIFT, &params).await?;
        }
        let stored = &self.stored;
        if !stored.lesson_ids.is_empty() {
            let params: [Param<'_>; 3] = [
                (&stored.lesson_ids, Type::UUID_ARRAY),
                (&stored.lesson_titles, Type::TEXT_ARRAY),
                (&stored.lesson_orders, Type::INT4_ARRAY),
            ];
            session.query(PUT_LESSONS, &params).await?;
        }
        if !self.lessons.added.is_empty() || !self.sections.added.is_empty() {
            edit.insert(session, &self.new).await?;
        }
        if !stored.section_ids.is_empty() {
            let params: [Param<'_>; 9] = [
                (&stored.section_ids, Type::UUID_ARRAY),
                (&stored.section_lessons, Type::UUID_ARRAY),
                (&stored.section_titles, Type::TEXT_ARRAY),
                (&stored.section_kinds, Type::TEXT_ARRAY),
                (&stored.section_orders, Type::INT4_ARRAY),
                (&stored.section_durations, Type::INT4_ARRAY),
                (&self.are_restored, Type::BOOL_ARRAY),
                (&edit.now, Type::TIMESTAMPTZ),
                (&edit.version, Type::INT8),
            ];
            session.query(PUT_SECTIONS, &params).await?;
        }
        if !self.content_ids.is_empty() {
            let params: [Param<'_>; 2] = [(&self.content_ids, Type::UUID_ARRAY), (&self.contents, Type::TEXT_ARRAY)];
            let rows = session.query(PUT_CONTENTS, &params).await?;
            let seen: HashSet<Uuid> = self.sections.changed.iter().chain(&self.sections.restored).copied().collect();
            for row in &rows {
                let id = column(row, "id")?;
                if !seen.contains(&id) {
                    self.sections.changed.push(id);
                }
            }
        }
        Ok(())
    }
}
