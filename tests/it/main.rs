//! Features of Lectern, tested over HTTP against a real server, PostgreSQL and Redis, and a stand-in for `DynamoDB`.
//!
//! `make test` starts the servers; without them every test fails.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

mod analytics;
mod authoring;
mod caching;
mod conditional;
mod enrolling;
mod exactness;
mod hostile;
mod interleaving;
mod ledger;
mod migrations;
mod parking;
mod real_input;
mod recording;
mod resilience;
mod round_trips;
mod support;
mod template;
