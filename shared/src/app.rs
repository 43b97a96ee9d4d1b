//! What every invocation of a function shares: settings and connections. Building it connects to nothing.

use std::sync::Arc;

#[cfg(feature = "parking")]
use crate::parking::Parking;
use crate::{cache::Cache, config::Config, db::Database, error::Error};

/// The function's environment, made once at start-up and passed to each invocation.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// PostgreSQL.
    pub db: Database,
    /// Redis, or nothing.
    pub cache: Arc<Cache>,
    /// `DynamoDB`, or nothing.
    #[cfg(feature = "parking")]
    pub parking: Option<Parking>,
}

impl App {
    /// Prepares the connections without opening one: an environment that answers from the cache needs no database.
    pub fn new(config: Config) -> Result<Self, Error> {
        let db = Database::new(&config)?;
        let cache = Arc::new(Cache::new(config.redis.as_ref())?);
        Ok(Self {
            #[cfg(feature = "parking")]
            parking: config.parking.clone().map(Parking::new),
            config,
            db,
            cache,
        })
    }
}
