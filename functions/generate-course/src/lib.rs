//! `POST /courses` by an instructor, with `Idempotency-Key`: creates a whole course in one transaction.
//!
//! 201 with `Location` and the course as `GET` gives it; a repetition gets the first answer again with
//! `Idempotent-Replayed: true`. 400, 401, 403, 413, 415; 422 where the key was used with another body.

use std::sync::Arc;

use chrono::Utc;
use shared::{
    app::App,
    auth::Caller,
    generation,
    http::{self, Request},
    ids,
};

/// Creates the course.
pub async fn handle(app: Arc<App>, request: Request) -> http::Result {
    let caller = Caller::of(&app, &request)?;
    caller.require_instructor()?;
    let bytes = http::json_bytes(&request)?;
    let key = http::required_idempotency_key(&request, "a new one for each new course")?;
    let course = generation::parse(&http::parse_json(bytes, generation::MOST_VALUES)?)?;

    let created = generation::create(&app, &caller, key, &ids::fingerprint(bytes), &course, Utc::now()).await?;

    Ok(http::created(&format!("/courses/{}", created.id), created.body, created.replayed))
}
