//! The servers that Lectern needs, started for it alone.
//!
//! They are found on this machine or fetched, run on free ports of 127.0.0.1 in directories of their own, and are stopped
//! with whoever started them. A server that is not theirs is never touched.

mod account;
pub mod dynamodb;
mod fetch;
mod home;
pub mod postgres;
pub(crate) mod process;
pub mod redis;

use std::path::PathBuf;

pub use home::Home;

/// The directories that programs are looked for in.
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}
