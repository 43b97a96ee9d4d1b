//! Features of Lectern, tested over HTTP against a real server, a real PostgreSQL and a real Redis.
//!
//! `make test` starts the two servers; without them every test fails.

mod analytics;
mod caching;
mod exactness;
mod recording;
mod resilience;
mod round_trips;
mod support;
