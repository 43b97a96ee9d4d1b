//! Courses as they are read: the outline, the outline with one's own progress, a section's content.
//!
//! PostgreSQL builds the JSON and nobody looks inside again. The pieces of SQL below speak of the relations `courses`,
//! `lessons`, `sections`, `enrollments` and `progress` by name: a statement that has just written rows puts its
//! `returning` clause under the same name, so a fresh course is rendered by the very text that renders a stored one.
//! Where a learner's figures are shown, `standings_v2` goes by the name of `enrollments`.
//!
//! A lesson or section without a place (`position`) has been retired and is not shown.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    cache::{Coding, Document, Generation, Slot, Source},
    db::{Prepared, Repeat, Statement, column},
    error::{Error, reason},
};

/// How long a course's outline counts as fresh.
const DETAIL_FRESH_FOR: Duration = Duration::from_secs(600);

/// Every status a course can have.
pub const STATUSES: [&str; 3] = ["draft", "published", "archived"];
/// Every difficulty a course can have.
pub const DIFFICULTIES: [&str; 3] = ["beginner", "intermediate", "advanced"];

/// The course of the row at hand as JSON: `course_json!(keys behind a section's own, its joins; keys behind the course's)`.
macro_rules! course_json {
    ($section_keys:expr, $section_joins:expr, $course_keys:expr) => {
        concat!(
            "json_build_object(
                'id', courses.id, 'title', courses.title, 'description', courses.description,
                'difficulty', courses.difficulty, 'imageUrl', courses.image_url,
                'estimatedHours', courses.estimated_hours, 'status', courses.status,
                'isPublished', courses.status = 'published', 'version', courses.version,
                'createdAt', rfc3339_v1(courses.created_at), 'updatedAt', rfc3339_v1(courses.updated_at),
                'publishedAt', rfc3339_v1(courses.published_at), 'lessonCount', courses.lesson_count,
                'sectionCount', courses.section_count, 'enrollmentCount', courses.enrollment_count,
                'lessons', coalesce((
                    select json_agg(json_build_object(
                        'id', lessons.id, 'title', lessons.title, 'order', lessons.position,
                        'sectionCount', coalesce(held.section_count, 0),
                        'sections', coalesce(held.sections, '[]'::json)
                    ) order by lessons.position)
                    from lessons
                    left join (
                        select sections.lesson_id, count(*) as section_count, json_agg(json_build_object(
                            'id', sections.id, 'title', sections.title, 'type', sections.type,
                            'order', sections.position, 'duration', sections.duration",
            $section_keys,
            ") order by sections.position) as sections
                        from sections ",
            $section_joins,
            " where sections.course_id = courses.id and sections.position is not null
                        group by sections.lesson_id
                    ) as held on held.lesson_id = lessons.id
                    where lessons.course_id = courses.id and lessons.position is not null
                ), '[]'::json)",
            $course_keys,
            ")"
        )
    };
    () => {
        $crate::courses::course_json!("", "", "")
    };
}

/// The progress of the row at hand, as JSON; null where the learner has not touched the section.
macro_rules! section_progress_json {
    () => {
        "case when progress.section_id is not null then json_build_object(
            'completed', progress.completed_at is not null, 'completedAt', rfc3339_v1(progress.completed_at),
            'timeSpent', progress.time_spent, 'updatedAt', rfc3339_v1(progress.last_at)
        ) end"
    };
}

/// The learner $2's progress on the section at hand, looked up by the whole key.
///
/// Written as a lateral row with a limit, because the planner, which expects one row of progress a learner and course,
/// would otherwise compare each section with all of them.
macro_rules! join_section_progress {
    () => {
        "left join lateral (
            select progress.*
            from progress
            where progress.user_id = $2 and progress.course_id = sections.course_id
                and progress.section_id = sections.id
            limit 1
        ) as progress on true"
    };
}

/// The first section, in course order, that the learner of the row at hand has not completed. Whoever recorded last has
/// noted it; where the note is void, it is looked for.
macro_rules! next_section {
    () => {
        "case
            when enrollments.completed_sections >= courses.section_count then null
            when enrollments.knows_resume then enrollments.next_section_id
            else next_section_v1(enrollments.user_id, courses.id, null)
        end"
    };
}

/// The course summary of the enrollment at hand as JSON.
macro_rules! summary_json {
    () => {
        concat!(
            "json_build_object(
                'courseId', courses.id, 'courseTitle', courses.title, 'totalSections', courses.section_count,
                'completedSections', enrollments.completed_sections, 'totalTimeSpent', enrollments.time_spent,
                'completionPercentage',
                completion_percentage_v1(enrollments.completed_sections, courses.section_count),
                'completedAt', rfc3339_v1(enrollments.completed_at),
                'lastActivityAt', rfc3339_v1(enrollments.last_activity_at),
                'newSectionsSinceCompletion', case
                    when enrollments.completed_at is null then null
                    when enrollments.completed_sections >= courses.section_count then 0
                    else new_sections_v1(enrollments.user_id, courses.id, enrollments.completed_at)
                end,
                'resume', json_build_object(
                    'lastSectionId', case
                        when enrollments.knows_resume then enrollments.last_section_id
                        else last_section_v1(enrollments.user_id, courses.id)
                    end,
                    'nextSectionId', ",
            $crate::courses::next_section!(),
            ")
            )"
        )
    };
}

pub(crate) use {course_json, join_section_progress, next_section, section_progress_json, summary_json};

/// By `courses_pkey`, `lessons_position_key` and `sections_position_key`.
const OUTLINE: Prepared = Prepared(Statement {
    name: "courses.outline",
    sql: concat!(
        "select ",
        course_json!(),
        "::text as body from courses where courses.id = $1 and courses.status = 'published'"
    ),
});

/// The same, and `enrollments_pkey`, and `progress_pkey` for each section.
const OUTLINE_FOR: Prepared = Prepared(Statement {
    name: "courses.outline_for",
    sql: concat!(
        "select ",
        access_column!(),
        ", ",
        course_json!(
            concat!(", 'progress', ", section_progress_json!()),
            join_section_progress!(),
            concat!(", 'progress', case when enrollments.user_id is not null then ", summary_json!(), " end")
        ),
        "::text as body
        from courses
        left join standings_v2 as enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        where courses.id = $1"
    ),
});

/// By `sections_pkey`, `courses_pkey` and `enrollments_pkey`.
const SECTION: Prepared = Prepared(Statement {
    name: "courses.section",
    sql: concat!(
        "select ",
        access_column!(),
        ",
            json_build_object(
                'id', sections.id, 'courseId', sections.course_id, 'lessonId', sections.lesson_id,
                'title', sections.title, 'type', sections.type, 'order', sections.position,
                'duration', sections.duration, 'content', sections.content
            )::text as body
        from sections
        join courses on courses.id = sections.course_id
        left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        where sections.id = $1 and sections.position is not null"
    ),
});

/// What everything cached about one course depends on. The braces are Redis's hash tag.
pub fn generation(course: Uuid) -> Generation {
    Generation(format!("v1:{{course:{course}}}:g"))
}

/// What moves when a course is published, unpublished or archived.
pub fn visibility(course: Uuid) -> Generation {
    Generation(format!("v1:{{course:{course}}}:visibility"))
}

/// A published course's outline, for anybody.
pub async fn outline(app: &App, course: Uuid, coding: Coding) -> Result<(Document, Source), Error> {
    let slot = Slot {
        // Version 1 was rendered by binaries that know nothing of retired sections.
        key: format!("v2:{{course:{course}}}:outline"),
        coding,
        generations: vec![generation(course)],
        visibility: visibility(course),
        fresh_for: DETAIL_FRESH_FOR,
        is_shared: true,
        own: None,
    };
    let load = async {
        let row = app.db.query_opt(OUTLINE, &[(&course, Type::UUID)], Repeat::Safe).await?;
        let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
        Ok(Document::from(column::<String>(&row, "body")?).coded(coding))
    };
    app.cache.read_through(&slot, load).await
}

/// A course's outline merged with the caller's progress; drafts for those who manage them.
pub async fn outline_for(app: &App, caller: &Caller, course: Uuid) -> Result<(Document, Source), Error> {
    let params = [(&course as _, Type::UUID), (&caller.user as _, Type::TEXT), (&caller.admin as _, Type::BOOL)];
    let row = app.db.query_opt(OUTLINE_FOR, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    if !Access::of(&row)?.sees_outline() {
        return Err(Error::NotFound(reason::COURSE_NOT_FOUND));
    }
    Ok((column::<String>(&row, "body")?.into(), Source::Bypass))
}

/// One section with its content.
pub async fn section(app: &App, caller: &Caller, section: Uuid) -> Result<(Document, Source), Error> {
    let params = [(&section as _, Type::UUID), (&caller.user as _, Type::TEXT), (&caller.admin as _, Type::BOOL)];
    let row = app.db.query_opt(SECTION, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::SECTION_NOT_FOUND))?;
    Access::of(&row)?.require_content()?;
    Ok((column::<String>(&row, "body")?.into(), Source::Bypass))
}
