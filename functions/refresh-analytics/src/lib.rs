//! Scheduled: refreshes the figures of the courses that changed. `{"mode":"reconcile"}` computes all of them again from
//! the ground and reports what did not agree as `drift`.
//!
//! Answers `{refreshed, failed, remaining, asOf}`. A failure of the run as a whole is reported to Lambda.

use std::{sync::Arc, time::Instant};

use chrono::Utc;
use serde_json::Value;
use shared::{analytics, app::App, error::Error};

/// Refreshes until all is done or the deadline is near.
pub async fn handle(app: Arc<App>, event: Value, deadline: Instant) -> Result<Value, Error> {
    let refreshed = match event.get("mode").and_then(Value::as_str) {
        Some("reconcile") => analytics::reconcile(&app, Utc::now(), deadline).await?,
        _ => analytics::refresh(&app, Utc::now(), deadline).await?,
    };
    Ok(refreshed.to_json())
}
