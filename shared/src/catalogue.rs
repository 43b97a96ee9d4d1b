//! Lists of courses: the public catalogue and an author's own.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::{
    app::App,
    auth::Caller,
    cache::{Coding, Document, Generation, Slot, Source},
    courses::{DIFFICULTIES, STATUSES},
    db::{Param, Prepared, Question, Repeat, Statement, column},
    error::Error,
    ids,
    page::{self, Cursor},
};

/// How long a page of the catalogue counts as fresh.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// Characters that may be searched for.
const MOST_TYPED: usize = 200;

/// The course at hand as lists show it, and more keys.
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
            ")"
        )
    };
}

#[cfg(feature = "parking")]
pub(crate) use listed_json;

/// A page of the published courses behind the keys $2 and $3. As many as the largest page has, and the one more that tells
/// whether the list goes on, are a limit that whoever plans for any page can see: by it, the order of the index is best.
macro_rules! published {
    ($filter:literal, $key:literal, $behind:literal, $direction:literal) => {
        concat!(
            "select ",
            listed_json!(""),
            "::text as item, courses.id, courses.key
            from (
                select courses.*, ",
            $key,
            " as key
                from courses
                where courses.status = 'published'",
            $filter,
            " and (",
            $key,
            ", courses.id) ",
            $behind,
            " ($2, $3)
                order by ",
            $key,
            $direction,
            ", courses.id",
            $direction,
            "
                limit 101
            ) as courses
            order by courses.key",
            $direction,
            ", courses.id",
            $direction,
            " limit $4"
        )
    };
}

const _: () = assert!(page::MOST + 1 == 101, "`published` reads as many as the largest page needs");

/// The best thousand of the courses that match $5: a word in the title weighs more than one in the description. By
/// `courses_words_idx`.
///
/// A single letter that somebody has begun to type behind other words is not looked for there, where it would put together
/// the lists of all words that begin with it: the function that is behind `@@`, which no index knows, holds it against
/// what the other words find.
///
/// `offset 0` keeps the words from the planner. It would plan anew for each request, because a plan for rare words looks
/// cheaper to it than one for any.
macro_rules! matching {
    () => {
        "(
            select courses.*, ts_rank(courses.words, typed.query)::float8 as rank
            from (select words_query_v1($5) as query offset 0) as typed
            join courses on courses.words @@ regexp_replace(typed.query::text, ' & ''[^'']'':[*]$', '')::tsquery
            where courses.status = 'published' and ($1 is null or courses.difficulty = $1)
                and ts_match_vq(courses.words, typed.query)
            order by rank desc, courses.published_at desc, courses.id
            limit 1000
        ) as courses"
    };
}

/// A list in one order.
struct Listing {
    /// All published courses.
    all: Prepared,
    /// Those of a difficulty, $1. How many there are of it decides on the index.
    of_difficulty: Statement,
    /// Those that match a search. Whatever its words are, the index of words serves it best, or hardly worse.
    matching: Prepared,
}

impl Listing {
    fn question(&self, difficulty: Option<&str>, search: Option<&str>) -> Question {
        match (search, difficulty) {
            (Some(_), _) => self.matching.into(),
            (None, Some(_)) => self.of_difficulty.into(),
            (None, None) => self.all.into(),
        }
    }
}

macro_rules! listing {
    ($name:literal, $key:literal, $behind:literal, $direction:literal) => {
        Listing {
            all: Prepared(Statement {
                name: concat!("catalogue.", $name),
                sql: published!("", $key, $behind, $direction),
            }),
            of_difficulty: Statement {
                name: concat!("catalogue.difficulty_", $name),
                sql: published!(" and courses.difficulty = $1", $key, $behind, $direction),
            },
            matching: matching_in_order!($name, $key, $behind, $direction),
        }
    };
}

/// A page of those that match.
macro_rules! matching_in_order {
    ($name:literal, $key:literal, $behind:literal, $direction:literal) => {
        Prepared(Statement {
            name: concat!("catalogue.search_", $name),
            sql: concat!(
                "select ",
                listed_json!(""),
                "::text as item, courses.id, ",
                $key,
                " as key from ",
                matching!(),
                " where (",
                $key,
                ", courses.id) ",
                $behind,
                " ($2, $3) order by ",
                $key,
                $direction,
                ", courses.id",
                $direction,
                " limit $4"
            ),
        })
    };
}

/// By `courses_newest_idx`, or `courses_difficulty_newest_idx`.
const NEWEST: Listing = listing!("newest", "courses.published_at", "<", " desc");

/// By `courses_title_idx`.
const BY_TITLE: Listing = listing!("title", r#"lower(courses.title) collate "C""#, ">", "");

/// By `courses_popular_idx`.
const POPULAR: Listing = listing!("popular", "courses.enrollment_count", "<", " desc");

/// Of a search only.
const BY_RELEVANCE: Prepared = matching_in_order!("relevance", "courses.rank", "<", " desc");

/// By `courses_owner_idx`.
const LIST_AUTHORED: Prepared = Prepared(Statement {
    name: "catalogue.authored",
    sql: concat!(
        "select ",
        listed_json!(
            ", 'status', courses.status, 'version', courses.version, 'updatedAt', rfc3339_v1(courses.updated_at)"
        ),
        "::text as item, courses.id, courses.created_at as key from courses
        where courses.owner_id = $5 and ($1 is null or courses.status = $1)
            and (courses.created_at, courses.id) < ($2, $3)
        order by courses.created_at desc, courses.id desc
        limit $4"
    ),
});

/// In what order the catalogue is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Newest,
    Title,
    Popular,
    /// How well a course matches what is searched for.
    Relevance,
}

impl Sort {
    fn parse(text: Option<&str>, is_search: bool) -> Result<(&'static str, Self), Error> {
        match text {
            None | Some("relevance") if is_search => Ok(("relevance", Self::Relevance)),
            None | Some("newest") => Ok(("newest", Self::Newest)),
            Some("title") => Ok(("title", Self::Title)),
            Some("popular") => Ok(("popular", Self::Popular)),
            Some(_) => Err(Error::invalid_parameter(
                "sort",
                "must be one of: newest, title, popular, and with `q` relevance, too",
            )),
        }
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
    /// `q`, in the catalogue.
    pub search: Option<&'a str>,
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

/// A page of the published courses, for anybody. What is searched for is as manifold as people are, and not cached.
pub async fn published(app: &App, query: Query<'_>, coding: Coding) -> Result<(Document, Source), Error> {
    let limit = page::limit(query.limit)?;
    let difficulty = page::one_of("difficulty", query.difficulty, &DIFFICULTIES)?;
    let search = query.search.map(typed).transpose()?;
    let (name, sort) = Sort::parse(query.sort, search.is_some())?;
    let list = match search {
        None => format!("{name}/{}", difficulty.unwrap_or("*")),
        Some(search) => format!("{name}/{}/{}", difficulty.unwrap_or("*"), ids::hashed(search)),
    };
    let cursor = Cursor::decode(&list, query.cursor)?;
    let load = async {
        let page = load_published(app, sort, &list, difficulty, search, cursor, limit).await?;
        Ok::<_, Error>(page.coded(coding))
    };
    if search.is_some() {
        return Ok((load.await?, Source::Bypass));
    }
    let slot = Slot {
        key: format!("v1:{{courses}}:{list}/{limit}/{}", query.cursor.map(ids::hashed).unwrap_or_default()),
        coding,
        generations: vec![generation()],
        visibility: visibility(),
        fresh_for: FRESH_FOR,
        is_shared: true,
        own: None,
    };
    app.cache.read_through(&slot, load).await
}

/// The `q` parameter.
fn typed(text: &str) -> Result<&str, Error> {
    let fits = (1..=MOST_TYPED).contains(&text.chars().count()) && !text.contains('\0');
    let refusal = || Error::invalid_parameter("q", format!("must have 1 to {MOST_TYPED} characters"));
    if fits { Ok(text) } else { Err(refusal()) }
}

async fn load_published(
    app: &App,
    sort: Sort,
    list: &str,
    difficulty: Option<&str>,
    search: Option<&str>,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Document, Error> {
    let cursor = cursor.as_ref();
    let id = cursor.map(|cursor| cursor.id(1)).transpose()?.unwrap_or_default();
    let rows = i64::from(limit) + 1;
    let mut params: Vec<Param<'_>> =
        vec![(&difficulty, Type::TEXT), (&None::<&str>, Type::TEXT), (&id, Type::UUID), (&rows, Type::INT8)];
    if search.is_some() {
        params.push((&search, Type::TEXT));
    }
    // The first page is behind what no course comes before: no title is empty, no number so large.
    match sort {
        Sort::Newest => {
            let time = page::before(cursor)?;
            params[1] = (&time, Type::TIMESTAMPTZ);
            let rows = app.db.query(NEWEST.question(difficulty, search), &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind_time(list, row))
        }
        Sort::Title => {
            let title = cursor.map(|cursor| cursor.text(0)).transpose()?.unwrap_or_default();
            params[1] = (&title, Type::TEXT);
            let rows = app.db.query(BY_TITLE.question(difficulty, search), &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind(list, row, column::<String>(row, "key")?.into()))
        }
        Sort::Popular => {
            let count = cursor.map(|cursor| cursor.number(0)).transpose()?.unwrap_or(i32::MAX);
            params[1] = (&count, Type::INT4);
            let rows = app.db.query(POPULAR.question(difficulty, search), &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| page::behind(list, row, column::<i32>(row, "key")?.into()))
        }
        Sort::Relevance => {
            let rank = cursor.map(|cursor| cursor.real(0)).transpose()?.unwrap_or(f64::INFINITY);
            params[1] = (&rank, Type::FLOAT8);
            let rows = app.db.query(BY_RELEVANCE, &params, Repeat::Safe).await?;
            page::assemble("courses", &rows, limit, |row| {
                page::behind(list, row, column::<f64>(row, "key")?.to_bits().into())
            })
        }
    }
}

/// A page of the caller's own courses, drafts and archived ones included.
pub async fn authored(app: &App, caller: &Caller, query: Query<'_>) -> Result<(Document, Source), Error> {
    let limit = page::limit(query.limit)?;
    let status = page::one_of("status", query.status, &STATUSES)?;
    let list = format!("authored/{}", status.unwrap_or("*"));
    let cursor = Cursor::decode(&list, query.cursor)?;
    let time = page::before(cursor.as_ref())?;
    let id = cursor.as_ref().map(|cursor| cursor.id(1)).transpose()?.unwrap_or_default();
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
