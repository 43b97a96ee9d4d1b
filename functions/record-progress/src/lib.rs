//! Recording progress, exactly once, and resetting it.
//!
//! | route | caller | answers |
//! |---|---|---|
//! | `POST /progress` | learner; a service for others | 200 a result for each event; 400, 401, 403, 413, 415 |
//! | `DELETE /courses/{courseId}/progress` | learner | 204; 401, 404 |

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::StatusCode;
use shared::{
    app::App,
    auth::Caller,
    error::{Error, reason},
    http::{self, Request},
    progress,
};

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

    let recorded = progress::record(app, &caller, &events, Utc::now()).await?;
    Ok(http::done(StatusCode::OK, recorded.body))
}

async fn reset(app: &App, request: &Request) -> http::Result {
    let caller = Caller::of(app, request)?;
    let course = http::path_id(request, "courseId", reason::COURSE_NOT_FOUND)?;

    progress::reset(app, &caller, course, Utc::now()).await?;
    Ok(http::no_content())
}
