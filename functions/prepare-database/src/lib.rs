//! Makes the roles in a cluster of Aurora, and gives that of `migrate` what it needs to come in and make the schema.
//!
//! Runs outside the VPC, before there is anybody who could connect: it speaks as the cluster's master, through the RDS Data
//! API. Harmless to run again.
//!
//! A custom resource of the properties `ClusterArn`, `SecretArn` (of the master) and `Database`, without attributes. By
//! hand, the event is the properties.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use shared::{app::App, cloudformation, data_api, error::Error, migrations};

/// Prepares a database.
pub async fn handle(app: Arc<App>, event: Value, deadline: Instant) -> Result<Value, Error> {
    cloudformation::answer(event, deadline, async move |properties, deadline| {
        let database = data_api::Database::read(&app.config, &properties)?;
        for statement in migrations::PREPARATION {
            database.execute(statement, deadline).await?;
        }
        Ok(json!({}))
    })
    .await
}
