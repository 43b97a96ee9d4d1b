//! Lists of courses: the public catalogue and an author's own.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::{
    app::App,
    auth::Caller,
    cache::{Document, Generation, Slot, Source},
    courses::{DIFFICULTIES, STATUSES},
    db::{Param, Repeat, Statement, column},
    error::Error,
    ids,
    page::{self, Cursor},
};

/// How long a page of the catalogue counts as fresh.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// The columns of a listed course.
macro_rules! listed_json {
    ($more:literal) => {
        concat!(
            "json_build_object(
                'id', courses.id, 'title', courses.title, 'description', courses.description,
                'difficulty', courses.difficulty, 'imageUrl', courses.image_url,
                'estimatedHours', courses.estimated_hours, 'isPublished', courses.status = 'published',
                'createdAt', rfc3339_v1(courses.created_at), 'publishedAt', rfc3339_v1(courses.published_at),
                'lessonCount', courses.lesson_count, 'enrollmentCount', courses.enrollment_count",
            $more,
            ")::text as item, courses.id"
        )
    };
}

/// A page of the catalogue in one order; $1 difficulty, $2 and $3 the keys to go on behind, $4 the number of rows.
macro_rules! published {
    ($key:literal, $behind:literal, $order:literal) => {
        concat!(
            "select ",
            listed_json!(""),
            ", ",
            $key,
            " as key from courses
            where courses.status = 'published' and ($1 is null or courses.difficulty = $1)
                and ($2 is null or ",
            $behind,
            ") order by ",
            $order,
            " limit $4"
        )
    };
}

/// By `courses_newest_idx`, or `courses_difficulty_newest_idx`.
const LIST_NEWEST: Statement = Statement {
    name: "catalogue.newest",
    sql: published!(
        "courses.published_at",
        "(courses.published_at, courses.id) < ($2, $3)",
        "courses.published_at desc, courses.id desc"
    ),
};

/// By `courses_title_idx`.
const LIST_BY_TITLE: Statement = Statement {
    name: "catalogue.title",
    sql: published!(
        "lower(courses.title)",
        r#"(lower(courses.title) collate "C", courses.id) > ($2, $3)"#,
        r#"lower(courses.title) collate "C", courses.id"#
    ),
};

/// By `courses_popular_idx`.
const LIST_POPULAR: Statement = Statement {
    name: "catalogue.popular",
    sql: published!(
        "courses.enrollment_count",
        "(courses.enrollment_count, courses.id) < ($2, $3)",
        "courses.enrollment_count desc, courses.id desc"
    ),
};

/// By `courses_owner_idx`.
const LIST_AUTHORED: Statement = Statement {
    name: "catalogue.authored",
    sql: concat!(
        "select ",
        listed_json!(
            ", 'status', courses.status, 'version', courses.version, 'updatedAt', rfc3339_v1(courses.updated_at)"
        ),
        ", courses.created_at as key from courses
        where courses.owner_id = $5 and ($1 is null or courses.status = $1)
            and ($2 is null or (courses.created_at, courses.id) < ($2, $3))
        order by courses.created_at desc, courses.id desc
        limit $4"
    ),
};

/// In what order the catalogue is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Newest,
    Title,
    Popular,
}

impl Sort {
    const NAMES: [(&'static str, Self); 3] =
        [("newest", Self::Newest), ("title", Self::Title), ("popular", Self::Popular)];

    fn parse(text: Option<&str>) -> Result<(&'static str, Self), Error> {
        let text = text.unwrap_or("newest");
        let known = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        known.ok_or_else(|| Error::invalid_parameter("sort", "must be one of: newest, title, popular"))
    }
}

/// What a client asks of a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// `limit`.
    pub limit: Option<&'a str>,
    /// `cursor`.
    pub cursor: Option<&'a str>,
    /// `difficulty`, in the catalogue.
    pub difficulty: Option<&'a str>,
    /// `sort`, in the catalogue.
    pub sort: Option<&'a str>,
    /// `status`, in an author's own list.
    pub status: Option<&'a str>,
}

/// What every page of the catalogue depends on.
pub fn generation() -> Generation {
    Generation("v1:{courses}:g".to_owned())
}

/// What moves when any course is published, unpublished or archived.
pub fn visibility() -> Generation {
    Generation("v1:{courses}:visibility".to_owned())
}

/// A page of the published courses, for anybody.
pub async fn published(app: &App, query: Query<'_>) -> Result<(Document, Source), Error> {
    let limit = page::limit(query.limit)?;
    let difficulty = one_of("difficulty", query.difficulty, &DIFFICULTIES)?;
    let (name, sort) = Sort::parse(query.sort)?;
    let list = format!("{name}/{}", difficulty.unwrap_or("*"));
    let cursor = Cursor::decode(&list, query.cursor)?;
    let slot = Slot {
        key: format!("v1:{{courses}}:{list}/{limit}/{}", query.cursor.map(ids::hashed).unwrap_or_default()),
        generations: vec![generation()],
        visibility: visibility(),
        fresh_for: FRESH_FOR,
        is_shared: true,
    };
    app.cache.read_through(&slot, load_published(app, sort, &list, difficulty, cursor, limit)).await
}

async fn load_published(
    app: &App,
    sort: Sort,
    list: &str,
    difficulty: Option<&str>,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Document, Error> {
    let id = cursor.as_ref().map(|cursor| cursor.id(1)).transpose()?;
    let rows = i64::from(limit) + 1;
    let mut params: [Param<'_>; 4] =
        [(&difficulty, Type::TEXT), (&None::<&str>, Type::TEXT), (&id, Type::UUID), (&rows, Type::INT8)];
    match sort {
        Sort::Newest => {
            let time = cursor.as_ref().map(|cursor| cursor.time(0)).transpose()?;
            params[1] = (&time, Type::TIMESTAMPTZ);
            let rows = app.db.query(LIST_NEWEST, &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind_time(list, row))
        }
        Sort::Title => {
            let title = cursor.as_ref().map(|cursor| cursor.text(0)).transpose()?;
            params[1] = (&title, Type::TEXT);
            let rows = app.db.query(LIST_BY_TITLE, &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind(list, row, column::<String>(row, "key")?.into()))
        }
        Sort::Popular => {
            let count = cursor.as_ref().map(|cursor| cursor.number(0)).transpose()?;
            params[1] = (&count, Type::INT4);
            let rows = app.db.query(LIST_POPULAR, &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind(list, row, column::<i32>(row, "key")?.into()))
        }
    }
}

/// A page of the caller's own courses, drafts and archived ones included.
pub async fn authored(app: &App, caller: &Caller, query: Query<'_>) -> Result<(Document, Source), Error> {
    let limit = page::limit(query.limit)?;
    let status = one_of("status", query.status, &STATUSES)?;
    let list = format!("authored/{}", status.unwrap_or("*"));
    let cursor = Cursor::decode(&list, query.cursor)?;
    let time = cursor.as_ref().map(|cursor| cursor.time(0)).transpose()?;
    let id = cursor.as_ref().map(|cursor| cursor.id(1)).transpose()?;
    let rows = i64::from(limit) + 1;
    let params: [Param<'_>; 5] = [
        (&status, Type::TEXT),
        (&time, Type::TIMESTAMPTZ),
        (&id, Type::UUID),
        (&rows, Type::INT8),
        (&caller.user, Type::TEXT),
    ];
    let rows = app.db.query(LIST_AUTHORED, &params, Repeat::Safe).await?;
    Ok((page::assemble("courses", &rows, limit, |row| page::behind_time(&list, row))?, Source::Bypass))
}

fn one_of(name: &str, value: Option<&str>, words: &[&'static str]) -> Result<Option<&'static str>, Error> {
    let Some(value) = value else { return Ok(None) };
    let word = words.iter().copied().find(|word| *word == value);
    word.map(Some).ok_or_else(|| Error::invalid_parameter(name, format!("must be one of: {}", words.join(", "))))
}
