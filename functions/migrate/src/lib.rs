//! Applies the migrations that the database does not have yet; harmless to run again, and to run twice at once.
//!
//! Answers `{applied: [names], version}`. A failure leaves the schema at the last migration that succeeded.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::{app::App, error::Error, migrations};

/// Migrates.
pub async fn handle(app: Arc<App>, _event: Value, deadline: Instant) -> Result<Value, Error> {
    let done = migrations::apply(&app.config, migrations::ALL, deadline).await?;
    Ok(json!({ "applied": done.applied, "version": done.version }))
}
