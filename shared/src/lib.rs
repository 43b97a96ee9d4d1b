//! What Lectern's functions share.
//!
//! * Nouns, each in one file with its types, SQL and operations: [`courses`] (read), [`catalogue`] (the lists),
//!   [`tree`] (as it is sent), [`generation`] (create), [`publication`] and [`content`] (change), [`edits`] (what was
//!   changed), [`enrollments`], [`progress`] (write), [`submissions`] (written while PostgreSQL is away), [`learning`]
//!   and [`roster`] (read), [`recount`] (after changes), [`analytics`], [`ledger`]; of all that is kept of one
//!   user: [`export`], [`erasure`], [`traces`] (what is parked).
//! * Infrastructure, which knows no noun: [`db`], [`cache`], [`parking`], [`breaker`], [`gzip`], [`http`], [`invocation`],
//!   [`auth`], [`throttle`], [`body`], [`page`], [`csv`], [`telemetry`], [`config`], [`migrations`], [`cloudformation`],
//!   [`data_api`].
//! * [`error`] is the vocabulary both speak.
//!
//! What reaches `DynamoDB` is behind the feature `parking`: its client is larger than all else together, and half of the
//! functions do without.
//!
//! Nouns use infrastructure, never the other way round; functions use nouns and never each other.

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
