//! What every invocation of a function shares: settings and the two connections. Building it connects to nothing.

use crate::{cache::Cache, config::Config, db::Database, error::Error};

/// The function's environment, made once at start-up and passed to each invocation.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// PostgreSQL.
    pub db: Database,
    /// Redis, or nothing.
    pub cache: Cache,
}

impl App {
    /// Prepares the connections without opening one: an environment that answers from the cache needs no database.
    pub fn new(config: Config) -> Result<Self, Error> {
        let db = Database::new(&config)?;
        let cache = Cache::new(config.redis_url.as_deref())?;
        Ok(Self { config, db, cache })
    }

    /// Closes what is open, so that the servers need not find out by themselves.
    pub fn close(&self) {
        self.db.close();
    }
}
