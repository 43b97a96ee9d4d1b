//! A learner's own view: the summary of a course, a lesson with its sections' states, the home page.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    cache::{self, Coding, Document, Generation, Slot, Source},
    courses,
    db::{Param, Prepared, Repeat, Statement, column},
    error::{Error, reason},
    ids,
    page::{self, Cursor},
};

/// How long a summary counts as fresh: also the longest that a lost bump can be felt.
const SUMMARY_FRESH_FOR: Duration = Duration::from_secs(60);
/// Names the list of one's enrollments in its cursors.
const MY_COURSES_LIST: &str = "me/courses";

/// By `courses_pkey` and `enrollments_pkey`, whatever the learner has done; progress is read by functions alone, where
/// something is not stored.
const SUMMARY: Prepared = Prepared(Statement {
    name: "learning.summary",
    sql: concat!(
        "select ",
        access_column!(),
        ",
            enrollments.user_id is not null as enrolled, ",
        courses::summary_json!(),
        "::text as body
        from courses
        left join standings_v2 as enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        where courses.id = $1"
    ),
});

/// By `lessons_pkey`, `sections_position_key`, `enrollments_pkey` and `progress_pkey`.
const LESSON: Prepared = Prepared(Statement {
    name: "learning.lesson",
    sql: concat!(
        "select ",
        access_column!(),
        ",
            enrollments.user_id is not null as enrolled,
            json_build_object(
                'id', lessons.id, 'courseId', lessons.course_id, 'title', lessons.title, 'order', lessons.position,
                'sectionCount', coalesce(held.section_count, 0),
                'completedSections', coalesce(held.completed_sections, 0),
                'sections', coalesce(held.sections, '[]'::json)
            )::text as body
        from lessons
        join courses on courses.id = lessons.course_id
        left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        cross join lateral (
            select count(*) as section_count, count(progress.completed_at) as completed_sections,
                json_agg(json_build_object(
                    'id', sections.id, 'title', sections.title, 'type', sections.type, 'order', sections.position,
                    'duration', sections.duration, 'progress', ",
        courses::section_progress_json!(),
        ") order by sections.position) as sections
            from sections ",
        courses::join_section_progress!(),
        " where sections.course_id = lessons.course_id and sections.lesson_id = lessons.id
                and sections.position is not null
        ) as held
        where lessons.id = $1 and lessons.position is not null"
    ),
});

/// One learner's range of `enrollments_pkey`, sorted: a learner has dozens of enrollments, not thousands.
const MY_COURSES: Prepared = Prepared(Statement {
    name: "learning.my_courses",
    sql: concat!(
        "select enrollments.course_id as id, enrollments.key,
            json_build_object(
                'courseId', courses.id, 'courseTitle', courses.title, 'imageUrl', courses.image_url,
                'status', enrollments.status, 'enrolledAt', rfc3339_v1(enrollments.enrolled_at),
                'completedAt', rfc3339_v1(enrollments.completed_at),
                'lastActivityAt', rfc3339_v1(enrollments.last_activity_at),
                'completedSections', enrollments.completed_sections, 'totalSections', courses.section_count,
                'totalTimeSpent', enrollments.time_spent,
                'completionPercentage',
                completion_percentage_v1(enrollments.completed_sections, courses.section_count),
                'nextSectionId', ",
        courses::next_section!(),
        ")::text as item
        from (
            select enrollments.*, coalesce(enrollments.last_activity_at, enrollments.enrolled_at) as key
            from standings_v2 as enrollments
            where enrollments.user_id = $1 and enrollments.status = 'active'
        ) as enrollments
        join courses on courses.id = enrollments.course_id
        where course_access_v1(courses.status, $5 or courses.owner_id = $1, enrollments.status) <> 'none'
            and (enrollments.key, enrollments.course_id) < ($2, $3)
        order by enrollments.key desc, enrollments.course_id desc
        limit $4"
    ),
});

/// What is cached about one learner in one course depends on this, beside the course's own generation.
pub fn generation(user: &str, course: Uuid) -> Generation {
    Generation(format!("v1:{{course:{course}}}:u:{}:g", ids::hashed(user)))
}

/// Version 1 was rendered by binaries that know nothing of retired sections.
fn summary_key(version: u8, user: &str, course: Uuid, admin: bool) -> String {
    format!("v{version}:{{course:{course}}}:u:{}:summary{}", ids::hashed(user), if admin { ":admin" } else { "" })
}

/// Every key under which something of a learner in a course is cached, by binaries of before too.
pub fn keys(user: &str, course: Uuid) -> Vec<String> {
    let mut keys = vec![generation(user, course).0];
    for (version, admin) in [(1, false), (1, true), (2, false), (2, true)] {
        let key = summary_key(version, user, course, admin);
        keys.extend([cache::probe(&key), key]);
    }
    keys
}

/// The caller's summary of a course, with the point to resume at.
pub async fn summary(app: &App, caller: &Caller, course: Uuid) -> Result<(Document, Source), Error> {
    let own = generation(&caller.user, course);
    let slot = Slot {
        // An admin sees more than others of the same name would; nothing per viewer stands under a shared key.
        key: summary_key(2, &caller.user, course, caller.admin),
        coding: Coding::Identity,
        generations: vec![courses::generation(course), own.clone()],
        visibility: courses::visibility(course),
        fresh_for: SUMMARY_FRESH_FOR,
        is_shared: false,
        own: Some(own),
    };
    let load = async {
        let params = [(&course as _, Type::UUID), (&caller.user as _, Type::TEXT), (&caller.admin as _, Type::BOOL)];
        let row = app.db.query_opt(SUMMARY, &params, Repeat::Safe).await?;
        let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
        Access::of(&row)?.require_own_progress(column(&row, "enrolled")?, reason::COURSE_NOT_FOUND)?;
        Ok(column::<String>(&row, "body")?.into())
    };
    app.cache.read_through(&slot, load).await
}

/// Each section of a lesson with the caller's state.
pub async fn lesson(app: &App, caller: &Caller, lesson: Uuid) -> Result<(Document, Source), Error> {
    let params = [(&lesson as _, Type::UUID), (&caller.user as _, Type::TEXT), (&caller.admin as _, Type::BOOL)];
    let row = app.db.query_opt(LESSON, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::LESSON_NOT_FOUND))?;
    Access::of(&row)?.require_own_progress(column(&row, "enrolled")?, reason::LESSON_NOT_FOUND)?;
    Ok((column::<String>(&row, "body")?.into(), Source::Bypass))
}

/// A page of the caller's active enrollments, last active first.
pub async fn my_courses(
    app: &App,
    caller: &Caller,
    limit: Option<&str>,
    cursor: Option<&str>,
) -> Result<(Document, Source), Error> {
    let limit = page::limit(limit)?;
    let cursor = Cursor::decode(MY_COURSES_LIST, cursor)?;
    let time = page::before(cursor.as_ref())?;
    let id = cursor.as_ref().map(|cursor| cursor.id(1)).transpose()?.unwrap_or_default();
    let rows = i64::from(limit) + 1;
    let params: [Param<'_>; 5] = [
        (&caller.user, Type::TEXT),
        (&time, Type::TIMESTAMPTZ),
        (&id, Type::UUID),
        (&rows, Type::INT8),
        (&caller.admin, Type::BOOL),
    ];
    let rows = app.db.query(MY_COURSES, &params, Repeat::Safe).await?;
    Ok((page::assemble("enrollments", &rows, limit, |row| page::behind_time(MY_COURSES_LIST, row))?, Source::Bypass))
}
