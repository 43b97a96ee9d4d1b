//! `POST /courses` by an instructor, with `Idempotency-Key`: creates a whole course in one transaction.
//!
//! 201 with `Location` and the course as `GET` gives it; a repetition gets the first answer again with
//! `Idempotent-Replayed: true`. 400, 401, 403, 413, 415; 422 where the key was used with another body.

use std::sync::Arc;

use chrono::Utc;
use lambda_http::http::{HeaderName, StatusCode, header};
use shared::{
    app::App,
    auth::Caller,
    error::Error,
    generation,
    http::{self, Request},
    ids,
};

/// Creates the course.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    let caller = Caller::of(&app, &request)?;
    caller.require_instructor()?;
    let bytes = http::json_bytes(&request)?;
    let key = http::idempotency_key(&request)?
        .ok_or_else(|| Error::invalid_header("Idempotency-Key", "is required: a new one for each new course"))?;
    let course = generation::parse(&http::parse_json(bytes, generation::MOST_VALUES)?)?;

    let created = generation::create(&app, &caller, key, &ids::fingerprint(bytes), &course, Utc::now()).await?;

    let location = format!("/courses/{}", created.id);
    let mut response = http::with_header(http::done(StatusCode::CREATED, created.body), header::LOCATION, &location);
    if created.replayed {
        response = http::with_header(response, HeaderName::from_static("idempotent-replayed"), "true");
    }
    Ok(response)
}
