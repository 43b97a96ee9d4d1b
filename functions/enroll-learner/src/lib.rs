//! Enrolling and cancelling.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `PUT /courses/{courseId}/enrollment` | learner | 201 the first time, then 200; 401, 404, 409 |
//! | `DELETE /courses/{courseId}/enrollment` | learner | 204; 401, 404 where there is no such course |
//! | `POST /courses/{courseId}/enrollments` | service, admin | 200 a result for each row; 400, 401, 403, 404, 413, 415 |

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::StatusCode;
use shared::{
    app::App,
    auth::Caller,
    enrollments,
    error::{Error, reason},
    http::{self, Request},
};

/// Answers the three routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "PUT /courses/{courseId}/enrollment" => enrol(&app, &request).await,
        "DELETE /courses/{courseId}/enrollment" => cancel(&app, &request).await,
        "POST /courses/{courseId}/enrollments" => load(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn enrol(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;

    let enrolled = enrollments::enrol(app, &caller, course, Utc::now()).await?;

    let status = if enrolled.first { StatusCode::CREATED } else { StatusCode::OK };
    Ok(http::done(status, enrolled.body))
}

async fn cancel(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;

    enrollments::cancel(app, &caller, course, Utc::now()).await?;
    Ok(http::no_content())
}

async fn load(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    caller.require_service_or_admin()?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;
    let entries = enrollments::parse_entries(&http::json_body(request, enrollments::MOST_VALUES)?)?;

    let body = enrollments::load(app, course, &entries, Utc::now()).await?;
    Ok(http::done(StatusCode::OK, body))
}
