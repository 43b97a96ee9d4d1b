//! Recording progress, exactly once, and resetting it.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `POST /progress` | learner; a service for others | 200 a result for each event; 202 parked while PostgreSQL is away; 400, 401, 403, 413, 415 |
//! | `DELETE /courses/{courseId}/progress` | learner | 204; 401, 404 |

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::{StatusCode, header::LOCATION};
use serde_json::json;
use shared::{
    app::App,
    auth::Caller,
    error::{Error, reason},
    http::{self, Request},
    progress,
    submissions::{self, Received},
};
use uuid::Uuid;

/// Answers both routes.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    match http::route(&request) {
        "POST /progress" => record(&app, &request).await,
        "DELETE /courses/{courseId}/progress" => reset(&app, &request).await,
        _ => Err(Error::NotFound(reason::ROUTE_NOT_FOUND)),
    }
}

async fn record(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let key = http::idempotency_key(request)?;
    let body = http::json_body(request, progress::MOST_VALUES)?;
    let events = progress::parse_events(&body, &caller, key)?;

    match submissions::receive(app, &caller, events, Utc::now()).await? {
        Received::Recorded(recorded) => Ok(http::done(StatusCode::OK, recorded.body)),
        Received::Parked(id) => Ok(parked(id)),
    }
}

/// The promise that the batch will count, and where to ask whether it has.
fn parked(id: Uuid) -> http::Response {
    let body = json!({"submissionId": id, "status": "parked"}).to_string();
    let location = format!("/progress/submissions/{id}");
    http::with_header(http::done(StatusCode::ACCEPTED, body), LOCATION, &location)
}

async fn reset(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;

    progress::reset(app, &caller, course, Utc::now()).await?;
    Ok(http::no_content())
}
