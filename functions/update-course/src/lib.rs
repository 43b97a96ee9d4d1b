//! Changing, editing and archiving a course.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `PATCH /courses/{courseId}` with `If-Match` | owner, admin | 200 the course; 400, 401, 403, 404, 412, 413, 415, 428 |
//! | `PUT /courses/{courseId}/content` with `If-Match` | owner, admin | 200 the course; as above |
//! | `POST /courses/{courseId}/lessons` with `Idempotency-Key` | owner, admin | 201 the course; 400, 401, 403, 404, 409, 413, 415, 422 |
//! | `DELETE /courses/{courseId}`, `If-Match` optional | owner, admin | 204 archived; 401, 403, 404, 412 |

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::StatusCode;
use shared::{
    app::App,
    auth::Caller,
    content,
    error::{Error, reason},
    generation,
    http::{self, Request},
    ids, publication,
};

/// Answers the four routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "PATCH /courses/{courseId}" => update(&app, &request).await,
        "PUT /courses/{courseId}/content" => replace(&app, &request).await,
        "POST /courses/{courseId}/lessons" => append(&app, &request).await,
        "DELETE /courses/{courseId}" => archive(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn update(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let version = http::if_match(request)?.ok_or(Error::IfMatchRequired)?;
    let changes = publication::parse(&http::json_body(request, publication::MOST_VALUES)?)?;

    let body = publication::update(app, &caller, course, version, &changes, Utc::now()).await?;
    Ok(http::done(StatusCode::OK, body))
}

async fn replace(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let version = http::if_match(request)?.ok_or(Error::IfMatchRequired)?;
    let lessons = content::parse_tree(&http::json_body(request, generation::MOST_VALUES)?)?;

    let body = content::replace(app, &caller, course, version, &lessons).await?;
    Ok(http::done(StatusCode::OK, body))
}

async fn append(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let bytes = http::json_bytes(request)?;
    let key = http::required_idempotency_key(request, "a new one for each request")?;
    let lessons = content::parse_lessons(&http::parse_json(bytes, generation::MOST_VALUES)?)?;

    let hash = ids::fingerprint(&[course.as_bytes(), bytes].concat());
    let appended = content::append(app, &caller, course, key, &hash, &lessons).await?;
    Ok(http::created(&format!("/courses/{course}"), appended.body, appended.replayed))
}

async fn archive(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let version = http::if_match(request)?;

    publication::archive(app, &caller, course, version, Utc::now()).await?;
    Ok(http::no_content())
}
