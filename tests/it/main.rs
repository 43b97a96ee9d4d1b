//! Features of Lectern, tested over HTTP against a real server, a real PostgreSQL and a real Redis.
//!
//! `make test` starts the two servers; without them every test fails.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

mod analytics;
mod authoring;
mod caching;
mod enrolling;
mod exactness;
mod hostile;
mod migrations;
mod real_input;
mod recording;
mod resilience;
mod round_trips;
mod support;
mod template;
