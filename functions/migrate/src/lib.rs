//! Applies the migrations that the database does not have yet; harmless to run again, and to run twice at once.
//!
//! By hand it answers `{applied: [names], version}`. As a custom resource it tells the stack the attributes `version` and
//! `applied`, which is their number, and minds the property `SchemaVersion`: the newest version that the template knows.
//! A failure leaves the schema at the last migration that succeeded.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::{
    app::App,
    cloudformation,
    error::Error,
    migrations::{self, Applied},
};

/// Migrates.
pub async fn handle(app: Arc<App>, event: Value, deadline: Instant) -> Result<Value, Error> {
    let by_stack = cloudformation::is_from_stack(&event);
    cloudformation::answer(event, deadline, async move |properties, deadline| {
        migrations::expect_version(&properties["SchemaVersion"])?;
        let Applied { applied, version } = migrations::apply(&app.config, migrations::ALL, deadline).await?;
        Ok(if by_stack {
            json!({ "applied": applied.len().to_string(), "version": version.to_string() })
        } else {
            json!({ "applied": applied, "version": version })
        })
    })
    .await
}
