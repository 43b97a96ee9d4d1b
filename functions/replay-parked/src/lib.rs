//! Scheduled: applies the progress that was parked while PostgreSQL was away, oldest first; and repeats to the cache what
//! it may not have heard of.
//!
//! Answers `{applied, rejected, remaining}`, counted in submissions. A failure of the run as a whole is reported to Lambda.

use std::{sync::Arc, time::Instant};

use chrono::Utc;
use serde_json::Value;
use shared::{app::App, error::Error, publication, submissions, telemetry};

/// Replays until nothing waits or the deadline is near.
pub async fn handle(app: Arc<App>, _event: Value, deadline: Instant) -> Result<Value, Error> {
    let now = Utc::now();
    if let Err(error) = publication::remind_cache(&app, now).await {
        tracing::warn!(error = telemetry::chain(&error), "the cache was not reminded of what changed");
    }
    Ok(submissions::replay(&app, now, deadline).await?.to_json())
}
