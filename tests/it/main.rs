//! Features of Lectern, tested over HTTP against a real server, PostgreSQL and Redis, and a stand-in for `DynamoDB`.
//!
//! `make test` starts the servers; without them every test fails.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]

mod analytics;
mod authoring;
mod balance;
mod cache_differential;
mod cache_load;
mod caching;
mod certificates;
mod chaos;
mod clients;
mod cloudformation;
mod conditional;
mod contract;
mod documented;
mod documents;
mod drop_off;
mod editing;
mod enrolling;
mod exactness;
mod failure;
mod faults;
mod folds;
mod hostile;
mod http_server;
mod interleaving;
mod ledger;
mod limits;
mod load;
mod log;
mod metrics;
mod migrations;
mod model;
mod own_servers;
mod parking;
mod personal_data;
mod postgres_tls;
mod prepared;
mod real_input;
mod recording;
mod redis_cluster;
mod redis_servers;
mod redis_tls;
mod requests;
mod resilience;
mod rig;
mod roles;
mod roster;
mod round_trips;
mod sam_local;
mod security;
mod signatures;
mod stack;
mod support;
mod template;
mod trouble;
