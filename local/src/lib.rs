//! Lectern on one machine: the HTTP API as API Gateway and Lambda would run it, with servers of its own.
//!
//! * The gateway: [`template`] (routes), [`authorizer`] (tokens), [`api`] (from a request to a function's event and
//!   back), [`server`] (HTTP, and `/_local`), [`page`] (the page for people).
//! * The servers: [`services`] finds or fetches PostgreSQL and Redis and runs them for us alone.
//! * The commands: [`run`] is `make run`, [`with_services`] runs the tests, [`errors`] writes a chapter of docs/API.md.
//!   [`demo`] is what a new database begins with.
//!
//! Nothing here is part of the Lambda binaries.

pub mod api;
pub mod authorizer;
mod cors;
pub mod demo;
pub mod error;
pub mod errors;
mod event;
mod functions;
pub mod page;
mod query;
pub mod run;
mod say;
pub mod server;
pub mod services;
pub mod settings;
mod signals;
pub mod template;
#[cfg(test)]
mod testing;
pub mod with_services;
pub mod workspace;

pub use say::note;
