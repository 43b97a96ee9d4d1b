//! Reading a course's figures, as the last refresh has left them.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    cache::{Document, Source},
    db::{Param, Prepared, Repeat, Statement, column},
    error::{Error, reason},
    page,
    roster::BUCKETS,
};

/// The figures of the course at hand, and more keys.
macro_rules! figures {
    ($more:literal) => {
        concat!(
            "select ",
            access_column!(),
            ",
                json_build_object(
                    'courseId', courses.id,
                    'totalEnrollments', course_analytics.total_enrollments,
                    'activeLearners', course_analytics.active_learners,
                    'completedEnrollments', course_analytics.completed_enrollments,
                    'completionRate', course_analytics.completion_rate,
                    'avgCompletionTime', course_analytics.avg_completion_time,
                    'medianCompletionTime', course_analytics.median_completion_time,
                    'p25CompletionTime', course_analytics.p25_completion_time,
                    'p75CompletionTime', course_analytics.p75_completion_time,
                    'avgTimeSpent', course_analytics.avg_time_spent,
                    'asOf', rfc3339_v1(course_analytics.as_of),
                    'windowDays', coalesce(course_analytics.window_days, 30)",
            $more,
            "
                )::text as body
            from courses
            left join course_analytics on course_analytics.course_id = courses.id
            left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
            where courses.id = $1"
        )
    };
}

/// By `courses_pkey`, `course_analytics_pkey` and `enrollments_pkey`.
const FIGURES: Prepared = Prepared(Statement { name: "analytics.figures", sql: figures!("") });

/// And for each section how many have completed it, in the order of the course as it is now, and for each of the ranges $4
/// how many learners are in it. By `sections_position_key`, `lessons_pkey` and `section_completions_pkey`; for who manages
/// the course alone.
const FIGURES_BY_SECTION: Prepared = Prepared(Statement {
    name: "analytics.figures_by_section",
    sql: figures!(
        ",
        'sections', case when course_analytics.learners_by_progress is not null and ($3 or courses.owner_id = $2) then (
            select coalesce(json_agg(
                json_build_object(
                    'sectionId', sections.id, 'title', sections.title, 'order', sections.position,
                    'lessonId', lessons.id, 'lessonTitle', lessons.title, 'lessonOrder', lessons.position,
                    'completed', coalesce(section_completions.completed, 0)
                )
                order by lessons.position, sections.position
            ), '[]')
            from sections
            join lessons on lessons.id = sections.lesson_id
            left join section_completions
                on section_completions.course_id = courses.id and section_completions.section_id = sections.id
            where sections.course_id = courses.id and sections.position is not null
        ) end,
        'progress', (
            select json_agg(
                json_build_object('range', ranges.name, 'learners', ranges.learners) order by ranges.position
            )
            from unnest($4, course_analytics.learners_by_progress) with ordinality as ranges (name, learners, position)
            where course_analytics.learners_by_progress is not null
        )"
    ),
});

/// How much of the figures is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The course's own.
    Course,
    /// Those of its sections, too, and how its learners are spread over the percentages.
    Sections,
}

impl Detail {
    /// Reads the `detail` parameter.
    pub fn parse(text: Option<&str>) -> Result<Self, Error> {
        Ok(match page::one_of("detail", text, &["sections"])? {
            None => Self::Course,
            Some(_) => Self::Sections,
        })
    }
}

/// A course's figures, for those who manage it.
pub async fn figures(app: &App, caller: &Caller, course: Uuid, detail: Detail) -> Result<(Document, Source), Error> {
    let ranges: Vec<&str> = BUCKETS.iter().map(|(name, ..)| *name).collect();
    let params: [Param<'_>; 4] =
        [(&course, Type::UUID), (&caller.user, Type::TEXT), (&caller.admin, Type::BOOL), (&ranges, Type::TEXT_ARRAY)];
    let row = match detail {
        Detail::Course => app.db.query_opt(FIGURES, &params[..3], Repeat::Safe).await?,
        Detail::Sections => app.db.query_opt(FIGURES_BY_SECTION, &params, Repeat::Safe).await?,
    };
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    Access::of(&row)?.require_manage()?;
    Ok((column::<String>(&row, "body")?.into(), Source::Bypass))
}
