//! Creating a course: the whole tree in one statement, under an idempotency key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    app::App,
    auth::Caller,
    body::{self, Text},
    catalogue, courses,
    db::{Param, Repeat, Statement, column},
    error::Error,
    ids,
    tree::{self, Ids, Lesson, Rows, TITLE},
};

/// A course of 4 MB takes a second or two to write; API Gateway waits thirty.
const BUDGET: Duration = Duration::from_secs(15);

/// JSON values in a body at the most. A section takes six of them and 130 bytes of an answer of 4 MiB at least.
pub const MOST_VALUES: usize = 250_000;

/// A course's description.
pub const DESCRIPTION: Text = Text { most: 20_000, may_be_blank: true };
/// Hours that a course may claim to take.
pub const HOURS: std::ops::RangeInclusive<f64> = 0.0..=10_000.0;

/// Claims the key, and then, if it was free, writes the tree and keeps the answer.
///
/// A concurrent request with the same key waits for this one's end at the claim. The rows just written are rendered
/// through `courses`, `lessons` and `sections`, which in the last steps name the `returning` clauses above.
const CREATE: Statement = Statement {
    name: "generation.create",
    sql: concat!(
        "with claim as (
            insert into course_creations (owner_id, idempotency_key, request_hash, course_id)
            values ($2, $3, $4, $1)
            on conflict (owner_id, idempotency_key) do nothing
            returning course_id
        ), courses as (
            insert into courses (
                id, owner_id, title, description, difficulty, image_url, estimated_hours, status,
                lesson_count, section_count, created_at, updated_at, published_at, open_during
            )
            select
                claim.course_id, $2, $5, $6, $7, $8, $9, case when $10 then 'published' else 'draft' end,
                cardinality($12), cardinality($15), $11, $11, case when $10 then $11 end,
                case when $10 then opened_v1('{}', $11) else '{}' end
            from claim
            returning *
        ), lessons as (
            insert into lessons (id, course_id, title, position, created_at)
            select item.id, claim.course_id, item.title, item.position, $11
            from claim, unnest($12, $13, $14) as item (id, title, position)
            returning *
        ), sections as (
            insert into sections (id, lesson_id, course_id, title, content, type, position, duration, created_at)
            select
                item.id, item.lesson_id, claim.course_id, item.title, item.content, item.type, item.position,
                item.duration, $11
            from claim, unnest($15, $16, $17, $18, $19, $20, $21)
                as item (id, lesson_id, title, content, type, position, duration)
            returning id, lesson_id, course_id, title, type, position, duration
        ), answer as (
            select courses.id as course_id, ",
        courses::course_json!(),
        "::text as body from courses
        ), kept as (
            insert into course_creation_answers (course_id, body) select answer.course_id, answer.body from answer
        ), analysed as (
            insert into course_analytics (course_id) select answer.course_id from answer
        ), marked as (
            insert into course_changes (course_id) select answer.course_id from answer
        )
        select answer.body from answer"
    ),
};

/// By `course_creations_pkey` and `course_creation_answers_pkey`.
const CREATED: Statement = Statement {
    name: "generation.created",
    sql: "select course_creations.request_hash, course_creations.course_id, course_creation_answers.body
        from course_creations
        join course_creation_answers on course_creation_answers.course_id = course_creations.course_id
        where course_creations.owner_id = $1 and course_creations.idempotency_key = $2",
};

/// A course to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCourse {
    title: String,
    description: String,
    difficulty: &'static str,
    image_url: Option<String>,
    estimated_hours: Option<f64>,
    is_published: bool,
    lessons: Vec<Lesson>,
}

/// Reads the body of `POST /courses`.
pub fn parse(body: &Value) -> Result<NewCourse, Error> {
    let course = body::parse(body, |root| {
        let root = root.object()?;
        let data = root.field("courseData");
        let data = data.object();
        let lessons = tree::lessons(&root.field("lessons"), Ids::Made);
        let data = data?;
        let title = data.field("title").text(TITLE);
        let description = data.field("description").text(DESCRIPTION);
        let difficulty = data.field("difficulty").one_of(&courses::DIFFICULTIES);
        let image_url = data.field("imageUrl").optional_or(|node| node.https_url().map(str::to_owned));
        let estimated_hours = data.field("estimatedHours").optional_or(|node| node.number(HOURS));
        let is_published = data.field("isPublished").optional_or(|node| node.boolean());
        Some(NewCourse {
            title: title?.to_owned(),
            description: description?.to_owned(),
            difficulty: difficulty?,
            image_url: image_url?,
            estimated_hours: estimated_hours?,
            is_published: is_published?.unwrap_or(false),
            lessons: lessons?,
        })
    })?;
    tree::fit(&course.lessons)?;
    Ok(course)
}

/// A course that was made, now or the first time this key was used.
#[derive(Debug)]
pub struct Created {
    /// Its id.
    pub id: Uuid,
    /// The body of the answer.
    pub body: String,
    /// Whether this is the first answer again.
    pub replayed: bool,
}

/// Creates the course, or tells what was created under the key before.
pub async fn create(
    app: &App,
    caller: &Caller,
    key: &str,
    request_hash: &[u8],
    course: &NewCourse,
    now: DateTime<Utc>,
) -> Result<Created, Error> {
    let id = ids::new_id();
    let tree = Rows::of(&course.lessons);
    let params: [Param<'_>; 21] = [
        (&id, Type::UUID),
        (&caller.user, Type::TEXT),
        (&key, Type::TEXT),
        (&request_hash, Type::BYTEA),
        (&course.title, Type::TEXT),
        (&course.description, Type::TEXT),
        (&course.difficulty, Type::TEXT),
        (&course.image_url, Type::TEXT),
        (&course.estimated_hours, Type::FLOAT8),
        (&course.is_published, Type::BOOL),
        (&now, Type::TIMESTAMPTZ),
        (&tree.lesson_ids, Type::UUID_ARRAY),
        (&tree.lesson_titles, Type::TEXT_ARRAY),
        (&tree.lesson_orders, Type::INT4_ARRAY),
        (&tree.section_ids, Type::UUID_ARRAY),
        (&tree.section_lessons, Type::UUID_ARRAY),
        (&tree.section_titles, Type::TEXT_ARRAY),
        (&tree.section_contents, Type::TEXT_ARRAY),
        (&tree.section_kinds, Type::TEXT_ARRAY),
        (&tree.section_orders, Type::INT4_ARRAY),
        (&tree.section_durations, Type::INT4_ARRAY),
    ];
    // The key makes a second run harmless.
    let rows = app.db.query_within(BUDGET, CREATE, &params, Repeat::Safe).await?;
    let Some(row) = rows.first() else { return replay(app, caller, key, request_hash).await };
    if course.is_published {
        app.cache.bump(&[catalogue::generation()]).await;
    }
    Ok(Created { id, body: column(row, "body")?, replayed: false })
}

/// The answer that was given under this key.
async fn replay(app: &App, caller: &Caller, key: &str, request_hash: &[u8]) -> Result<Created, Error> {
    let row = app.db.query_one(CREATED, &[(&caller.user, Type::TEXT), (&key, Type::TEXT)], Repeat::Safe).await?;
    if column::<&[u8]>(&row, "request_hash")? != request_hash {
        return Err(Error::KeyReused);
    }
    // Bumped again: whoever made the course may have died between its commit and its bump.
    app.cache.bump(&[catalogue::generation()]).await;
    Ok(Created { id: column(&row, "course_id")?, body: column(&row, "body")?, replayed: true })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn course() -> Value {
        json!({
            "courseData": {"title": "T", "description": "", "difficulty": "beginner"},
            "lessons": [{"title": "L", "order": 1, "sections": [
                {"title": " S ", "content": "", "type": "text", "order": 2, "duration": null},
                {"title": "S", "content": "🦀", "type": "quiz", "order": 1, "duration": 0},
            ]}],
        })
    }

    fn pointers(body: &Value) -> Vec<String> {
        match parse(body) {
            Err(Error::Invalid { faults, .. }) => faults.into_iter().map(|fault| fault.pointer).collect(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_course_is_a_draft_and_its_texts_are_kept_to_the_byte() {
        let parsed = parse(&course()).unwrap();
        assert!(!parsed.is_published);
        assert_eq!(parsed.lessons[0].sections[0].title, " S ");
    }

    #[test]
    fn a_course_or_a_lesson_may_be_empty() {
        let mut body = course();
        body["lessons"][0]["sections"] = json!([]);
        assert!(parse(&body).is_ok());
        body["lessons"] = json!([]);
        assert!(parse(&body).is_ok());
    }

    #[test]
    fn every_fault_of_a_tree_is_told_at_once() {
        let body = json!({
            "courseData": {"title": "", "difficulty": "hard", "imageUrl": "http://x", "estimatedHours": -1, "isPublished": "yes"},
            "lessons": [
                {"title": "L", "order": 0, "sections": [{"title": "S", "content": "\u{0}", "type": "", "order": 1.5, "duration": -1}]},
                {"title": "L", "sections": {}},
            ],
        });
        assert_eq!(
            pointers(&body),
            [
                "/lessons/0/order",
                "/lessons/0/sections/0/content",
                "/lessons/0/sections/0/type",
                "/lessons/0/sections/0/order",
                "/lessons/0/sections/0/duration",
                "/lessons/1/order",
                "/lessons/1/sections",
                "/courseData/title",
                "/courseData/description",
                "/courseData/difficulty",
                "/courseData/imageUrl",
                "/courseData/estimatedHours",
                "/courseData/isPublished",
            ]
        );
    }

    #[test]
    fn siblings_cannot_share_an_order() {
        let mut body = course();
        body["lessons"][0]["sections"][1]["order"] = json!(2);
        assert_eq!(pointers(&body), ["/lessons/0/sections/1/order"]);
    }

    #[test]
    fn a_tree_whose_outline_no_answer_could_hold_is_refused_before_anything_is_written() {
        let sections: Vec<Value> =
            (1..=40_000).map(|order| json!({"title": "s", "content": "", "type": "t", "order": order})).collect();
        let mut body = course();
        body["lessons"][0]["sections"] = sections.into();
        assert!(matches!(parse(&body), Err(Error::TooLarge(_))));
    }
}
