//! What every invocation of a function shares: settings and connections. Building it connects to nothing.

use crate::{cache::Cache, config::Config, db::Database, error::Error, parking::Parking};

/// The function's environment, made once at start-up and passed to each invocation.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// PostgreSQL.
    pub db: Database,
    /// Redis, or nothing.
    pub cache: Cache,
    /// `DynamoDB`, or nothing.
    pub parking: Option<Parking>,
}

impl App {
    /// Prepares the connections without opening one: an environment that answers from the cache needs no database.
    pub fn new(config: Config) -> Result<Self, Error> {
        let db = Database::new(&config)?;
        let cache = Cache::new(config.redis.as_ref())?;
        let parking = config.parking.clone().map(Parking::new);
        Ok(Self { config, db, cache, parking })
    }

    /// Closes what is open, so that the servers need not find out by themselves.
    pub fn close(&self) {
        self.db.close();
    }
}
