//! Changing and archiving a course.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `PATCH /courses/{courseId}` with `If-Match` | owner, admin | 200 the course; 400, 401, 403, 404, 412, 413, 415, 428 |
//! | `DELETE /courses/{courseId}`, `If-Match` optional | owner, admin | 204 archived; 401, 403, 404, 412 |

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::StatusCode;
use shared::{
    app::App,
    auth::Caller,
    error::{Error, reason},
    http::{self, Request},
    publication,
};

/// Answers both routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "PATCH /courses/{courseId}" => update(&app, &request).await,
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

async fn archive(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let version = http::if_match(request)?;

    publication::archive(app, &caller, course, version, Utc::now()).await?;
    Ok(http::no_content())
}
