//! Scheduled: applies the progress that was parked while PostgreSQL was away, oldest first.
//!
//! Answers `{applied, rejected, remaining}`, counted in submissions. A failure of the run as a whole is reported to Lambda.

use std::{sync::Arc, time::Instant};

use chrono::Utc;
use serde_json::Value;
use shared::{app::App, error::Error, submissions};

/// Replays until nothing waits or the deadline is near.
pub async fn handle(app: Arc<App>, _event: Value, deadline: Instant) -> Result<Value, Error> {
    Ok(submissions::replay(&app, Utc::now(), deadline).await?.to_json())
}
