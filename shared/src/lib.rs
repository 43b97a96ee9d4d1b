//! What Lectern's functions share.
//!
//! * Nouns, each in one file with its types, SQL and operations: [`courses`] (read), [`catalogue`] (the lists),
//!   [`tree`] (as it is sent), [`generation`] (create), [`publication`] and [`content`] (change), [`edits`] (what was
//!   changed), [`enrollments`], [`progress`] (write), [`submissions`] (written while PostgreSQL is away), [`learning`]
//!   and [`roster`] (read), [`recount`] (after changes), [`analytics`], [`ledger`]; of all that is kept of one
//!   user: [`export`], [`erasure`], [`traces`] (what is parked).
//! * Infrastructure, which knows no noun: [`db`], [`cache`], [`parking`], [`breaker`], [`gzip`], [`http`], [`invocation`],
//!   [`auth`], [`body`], [`page`], [`csv`], [`telemetry`], [`config`], [`migrations`].
//! * [`error`] is the vocabulary both speak.
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
pub mod config;
pub mod content;
pub mod courses;
pub mod csv;
pub mod db;
pub mod edits;
pub mod enrollments;
pub mod erasure;
pub mod error;
pub mod export;
pub mod generation;
pub mod gzip;
pub mod http;
pub mod ids;
pub mod invocation;
pub mod learning;
pub mod ledger;
pub mod migrations;
pub mod page;
pub mod parking;
pub mod progress;
pub mod publication;
pub mod recount;
pub mod roster;
pub mod submissions;
pub mod telemetry;
pub mod traces;
pub mod tree;
