//! Changing a course's description and status: edit, publish, unpublish, archive.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    access::{Access, access_column},
    app::App,
    auth::Caller,
    body,
    cache::REPEATED_FOR,
    catalogue, courses,
    db::{Param, Repeat, Statement, column},
    edits,
    error::{Error, reason},
    generation::{DESCRIPTION, HOURS},
    tree::TITLE,
};

/// JSON values in a body at the most, with room for what a client adds of its own.
pub const MOST_VALUES: usize = 1_000;

/// When the course was open to learners, from now on with this status ($5 is now). Where nobody kept count, it was since its
/// first publication.
macro_rules! open_during {
    ($status:literal) => {
        concat!(
            "case
                when (courses.status = 'draft') = (",
            $status,
            " = 'draft') then trusted_v1(courses.open_during, courses.status <> 'draft')
                when courses.status <> 'draft' then closed_v1(
                    coalesce(trusted_v1(courses.open_during, true), opened_v1('{}', courses.published_at)), $5
                )
                when courses.published_at is null then opened_v1('{}', $5)
                else opened_v1(trusted_v1(courses.open_during, false), $5)
            end"
        )
    };
}

/// Changes what was sent if the version is the one that the sender knows. `courses` is the changed row in the end.
const UPDATE: Statement = Statement {
    name: "publication.update",
    sql: concat!(
        "with courses as (
            update courses set
                title = coalesce($6, courses.title),
                description = coalesce($7, courses.description),
                difficulty = coalesce($8, courses.difficulty),
                image_url = case when $9 then $10 else courses.image_url end,
                estimated_hours = case when $11 then $12 else courses.estimated_hours end,
                analytics_enabled = coalesce($13, courses.analytics_enabled),
                status = coalesce($14, courses.status),
                open_during = ",
        open_during!("coalesce($14, courses.status)"),
        ",
                published_at = case
                    when coalesce($14, courses.status) = 'published' then coalesce(courses.published_at, $5)
                    else courses.published_at
                end,
                version = courses.version + 1,
                updated_at = $5
            where courses.id = $1 and ($3 or courses.owner_id = $2) and courses.version = $4
            returning *
        ), marked as (
            insert into course_changes (course_id) select courses.id from courses
        ), ",
        edits::note!("$15"),
        " select ",
        courses::course_json!(),
        "::text as body from courses"
    ),
};

/// Archives a course that is not archived yet; $4 is the version that the sender knows, or null.
const ARCHIVE: Statement = Statement {
    name: "publication.archive",
    sql: concat!(
        "with courses as (
            update courses set
                status = 'archived',
                open_during = ",
        open_during!("'archived'"),
        ",
                version = courses.version + 1,
                updated_at = $5
            where courses.id = $1 and ($3 or courses.owner_id = $2)
                and courses.version = coalesce($4, courses.version) and courses.status <> 'archived'
            returning *
        ), ",
        edits::note!("'{\"fields\":[\"status\"]}'"),
        " select courses.id from courses"
    ),
};

/// Why a change found no row. By `courses_pkey` and `enrollments_pkey`.
const STATE: Statement = Statement {
    name: "publication.state",
    sql: concat!(
        "select ",
        access_column!(),
        ",
            courses.version, courses.status, ",
        edits::since!("$4"),
        " as changes
        from courses
        left join enrollments on enrollments.user_id = $2 and enrollments.course_id = courses.id
        where courses.id = $1"
    ),
};

/// What to change; what is `None` stays.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    title: Option<String>,
    description: Option<String>,
    difficulty: Option<&'static str>,
    /// `Some(None)` takes the image away.
    image_url: Option<Option<String>>,
    estimated_hours: Option<Option<f64>>,
    analytics_enabled: Option<bool>,
    status: Option<&'static str>,
}

impl Changes {
    /// What [`edits`] keeps of it: which fields were sent.
    fn to_json(&self) -> Value {
        let fields = [
            ("title", self.title.is_some()),
            ("description", self.description.is_some()),
            ("difficulty", self.difficulty.is_some()),
            ("imageUrl", self.image_url.is_some()),
            ("estimatedHours", self.estimated_hours.is_some()),
            ("analyticsEnabled", self.analytics_enabled.is_some()),
            ("status", self.status.is_some()),
        ];
        let sent: Vec<&str> = fields.into_iter().filter_map(|(name, is_sent)| is_sent.then_some(name)).collect();
        json!({ "fields": sent })
    }
}

/// Reads the body of `PATCH /courses/{courseId}`. Only an image and the hours can be taken away by a null.
pub fn parse(body: &Value) -> Result<Changes, Error> {
    body::parse(body, |root| {
        let root = root.object()?;
        let title = root.field("title").if_present(|node| node.text(TITLE).map(str::to_owned));
        let description = root.field("description").if_present(|node| node.text(DESCRIPTION).map(str::to_owned));
        let difficulty = root.field("difficulty").if_present(|node| node.one_of(&courses::DIFFICULTIES));
        let image_url =
            root.field("imageUrl").if_present(|node| node.optional_or(|node| node.https_url().map(str::to_owned)));
        let estimated_hours =
            root.field("estimatedHours").if_present(|node| node.optional_or(|node| node.number(HOURS)));
        let analytics_enabled = root.field("analyticsEnabled").if_present(|node| node.boolean());
        let status = root.field("status").if_present(|node| node.one_of(&courses::STATUSES));
        Some(Changes {
            title: title?,
            description: description?,
            difficulty: difficulty?,
            image_url: image_url?,
            estimated_hours: estimated_hours?,
            analytics_enabled: analytics_enabled?,
            status: status?,
        })
    })
}

/// Changes a course that is still at `version`, and answers as `GET` would.
pub async fn update(
    app: &App,
    caller: &Caller,
    course: Uuid,
    version: i64,
    changes: &Changes,
    now: DateTime<Utc>,
) -> Result<String, Error> {
    let (set_image, image_url) = (changes.image_url.is_some(), changes.image_url.as_ref().and_then(Option::as_deref));
    let (set_hours, hours) = (changes.estimated_hours.is_some(), changes.estimated_hours.flatten());
    let change = changes.to_json().to_string();
    let params: [Param<'_>; 15] = [
        (&course, Type::UUID),
        (&caller.user, Type::TEXT),
        (&caller.admin, Type::BOOL),
        (&version, Type::INT8),
        (&now, Type::TIMESTAMPTZ),
        (&changes.title, Type::TEXT),
        (&changes.description, Type::TEXT),
        (&changes.difficulty, Type::TEXT),
        (&set_image, Type::BOOL),
        (&image_url, Type::TEXT),
        (&set_hours, Type::BOOL),
        (&hours, Type::FLOAT8),
        (&changes.analytics_enabled, Type::BOOL),
        (&changes.status, Type::TEXT),
        (&change, Type::TEXT),
    ];
    // Not repeatable: had the first run taken effect, the second would find its own version stale.
    let changed = app.db.query_opt(UPDATE, &params, Repeat::Unsafe).await;
    let answer = match changed {
        Ok(Some(row)) => column(&row, "body"),
        Ok(None) => match managed(app, caller, course, Some(version)).await {
            Ok(row) => Err(edits::stale(&row)?),
            Err(error) => Err(error),
        },
        Err(failure) => Err(failure.into()),
    };
    // After a failure too: it may have taken effect without our hearing of it. Who then reads again must see it.
    bump(app, course, changes.status.is_some()).await;
    answer
}

/// Tells the cache that a course has changed.
pub(crate) async fn bump(app: &App, course: Uuid, is_visibility_changed: bool) {
    let mut generations = vec![courses::generation(course), catalogue::generation()];
    if is_visibility_changed {
        generations.extend([courses::visibility(course), catalogue::visibility()]);
    }
    app.cache.bump(&generations).await;
}

const RECENT: Statement = Statement {
    name: "publication.recent",
    sql: "select courses.id, courses.status = 'published' as is_published from courses where courses.updated_at > $1",
};

/// Tells the cache once more what changed lately.
///
/// Whoever changed it may have died between its commit and its bump, or the cache may have been away. So nobody sees an
/// old copy for longer than it takes until the next run.
pub async fn remind_cache(app: &App, now: DateTime<Utc>) -> Result<(), Error> {
    if app.config.redis.is_none() {
        return Ok(());
    }
    // All courses are read for this: thousands, in a few milliseconds.
    let rows = app.db.query(RECENT, &[(&(now - REPEATED_FOR), Type::TIMESTAMPTZ)], Repeat::Safe).await?;
    let (mut generations, mut withdrawn) = (Vec::new(), Vec::new());
    for row in &rows {
        let course = column(row, "id")?;
        generations.push(courses::generation(course));
        if !column::<bool>(row, "is_published")? {
            withdrawn.push(courses::visibility(course));
        }
    }
    if !generations.is_empty() {
        generations.push(catalogue::generation());
    }
    if !withdrawn.is_empty() {
        withdrawn.push(catalogue::visibility());
    }
    generations.extend(withdrawn);
    app.cache.bump(&generations).await;
    Ok(())
}

/// Archives a course: it leaves the catalogue, and those who are enrolled go on.
pub async fn archive(
    app: &App,
    caller: &Caller,
    course: Uuid,
    version: Option<i64>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let params: [Param<'_>; 5] = [
        (&course, Type::UUID),
        (&caller.user, Type::TEXT),
        (&caller.admin, Type::BOOL),
        (&version, Type::INT8),
        (&now, Type::TIMESTAMPTZ),
    ];
    let answer = match app.db.query_opt(ARCHIVE, &params, Repeat::Safe).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => managed(app, caller, course, version).await.and_then(|row| match column::<&str>(&row, "status")? {
            // Archived already is what was asked for.
            "archived" => Ok(()),
            _ => Err(edits::stale(&row)?),
        }),
        Err(failure) => Err(failure.into()),
    };
    // As in `update`.
    bump(app, course, true).await;
    answer
}

/// A course that a change did not find as expected, if the caller manages it: otherwise it is not there, or not theirs.
async fn managed(app: &App, caller: &Caller, course: Uuid, known: Option<i64>) -> Result<Row, Error> {
    let params: [Param<'_>; 4] =
        [(&course, Type::UUID), (&caller.user, Type::TEXT), (&caller.admin, Type::BOOL), (&known, Type::INT8)];
    let row = app.db.query_opt(STATE, &params, Repeat::Safe).await?;
    let row = row.ok_or(Error::NotFound(reason::COURSE_NOT_FOUND))?;
    Access::of(&row)?.require_manage()?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_sent_changes() {
        let changes = parse(&json!({"imageUrl": null, "status": "published"})).unwrap();
        let expected = Changes { image_url: Some(None), status: Some("published"), ..Changes::default() };
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_null_takes_away_what_may_be_missing_and_nothing_else() {
        for name in ["title", "description", "difficulty", "analyticsEnabled", "status"] {
            assert!(parse(&json!({name: null})).is_err(), "{name}");
        }
        for body in [json!([]), json!({"status": "deleted"}), json!({"title": " "}), json!({"estimatedHours": "3"})] {
            assert!(parse(&body).is_err(), "{body}");
        }
    }
}
