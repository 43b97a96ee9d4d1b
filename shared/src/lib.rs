//! What Lectern's functions share.
//!
//! Nouns, each in one file with its types, SQL and operations, and infrastructure, which knows no noun; the codemap in
//! docs/ARCHITECTURE.md says what lives where. [`error`] is the vocabulary both speak. Nouns use infrastructure, never
//! the other way round; functions use nouns and never each other.
//!
//! What reaches `DynamoDB` is behind the feature `parking`: its client is larger than all else together, and most of the
//! functions do without.

pub mod access;
pub mod analytics;
pub mod app;
pub mod auth;
pub mod body;
pub mod breaker;
pub mod cache;
pub mod catalogue;
pub mod cloudformation;
pub mod config;
pub mod content;
pub mod courses;
pub mod csv;
pub mod data_api;
pub mod db;
pub mod edits;
pub mod enrollments;
#[cfg(feature = "parking")]
pub mod erasure;
pub mod error;
#[cfg(feature = "parking")]
pub mod export;
pub mod generation;
pub mod gzip;
pub mod http;
mod https;
pub mod ids;
pub mod invocation;
pub mod learning;
pub mod ledger;
pub mod migrations;
pub mod page;
#[cfg(feature = "parking")]
pub mod parking;
pub mod progress;
pub mod publication;
pub mod recount;
pub mod roster;
mod sigv4;
#[cfg(feature = "parking")]
pub mod submissions;
pub mod telemetry;
pub mod throttle;
mod tls;
#[cfg(feature = "parking")]
pub mod traces;
pub mod tree;
