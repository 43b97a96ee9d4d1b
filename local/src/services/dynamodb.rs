//! A stand-in for `DynamoDB`: dynoxide, in this process, on a free port of 127.0.0.1.

use std::path::Path;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TimeToLiveSpecification,
};
use dynoxide::{Database, server};
use shared::config::Parking;
use shared::parking::{self, EXPIRY, PARTITION_KEY, SORT_KEY};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::{Context, Result};

/// The table, where nobody names another one.
pub const PARKING_TABLE: &str = "lectern-parking";

/// A running stand-in. It ends when it is dropped.
#[derive(Debug)]
pub struct DynamoDb {
    address: String,
    serving: JoinHandle<()>,
}

impl DynamoDb {
    /// Starts one that keeps its tables in a file, or only in memory.
    ///
    /// # Errors
    /// When the file cannot be used or no port is free.
    pub async fn start(file: Option<&Path>) -> Result<Self> {
        let opened = match file {
            Some(file) => Database::new(&file.to_string_lossy()),
            None => Database::memory(),
        };
        let database = opened.context(|| "the stand-in for DynamoDB does not start")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context(|| "no port of 127.0.0.1 is free")?;
        let address = listener.local_addr().context(|| "the port is not known")?.to_string();
        Ok(Self { address, serving: tokio::spawn(server::serve_on(listener, database)) })
    }

    /// What `AWS_ENDPOINT_URL_DYNAMODB` takes.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens, fit to be shown.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for DynamoDb {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Creates the table as `template.yaml` does, where it is not there yet.
///
/// # Errors
/// When `DynamoDB` does not answer or refuses.
pub async fn ensure_table(settings: &Parking) -> Result<()> {
    let client = parking::connect(settings).await;
    let what = || format!("the table {} cannot be created", settings.table);
    let mut create = client.create_table().table_name(&settings.table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(PARTITION_KEY, KeyType::Hash), (SORT_KEY, KeyType::Range)] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind);
        create = create.attribute_definitions(attribute.build().context(what)?);
        create = create.key_schema(key.build().context(what)?);
    }
    match create.send().await.map_err(|error| error.into_service_error()) {
        Ok(_) => {}
        Err(error) if error.is_resource_in_use_exception() => return Ok(()),
        Err(error) => return Err(error).context(what),
    }
    let expiry = TimeToLiveSpecification::builder().attribute_name(EXPIRY).enabled(true).build().context(what)?;
    client
        .update_time_to_live()
        .table_name(&settings.table)
        .time_to_live_specification(expiry)
        .send()
        .await
        .context(what)?;
    Ok(())
}
