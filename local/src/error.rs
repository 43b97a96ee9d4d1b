//! What a person reads when the local run cannot go on: what failed, and why.
//!
//! The API's own errors are problem documents and live in `shared`; these never leave the terminal.

use std::error::Error as StdError;
use std::fmt;

/// A failure of the local run, told in one sentence, with the failure below it as its source.
#[derive(Debug)]
pub struct Error {
    what: String,
    why: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything in this package that can fail for a reason outside of it.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure that has no other failure below it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), why: None }
    }

    /// The whole chain in one line, as it is shown in the terminal.
    pub fn report(&self) -> String {
        let mut line = self.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.why.as_deref().map(|why| why as _)
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Wraps the failure in a sentence that is only built when it is needed.
    ///
    /// # Errors
    /// The wrapped failure.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|why| Error { what: what().into(), why: Some(why.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_the_whole_chain() {
        let inner: Result<()> = Err(std::io::Error::other("disk full")).context(|| "the file could not be written");
        let outer = inner.context(|| "the key was not kept").expect_err("it failed");
        assert_eq!(outer.report(), "the key was not kept: the file could not be written: disk full");
    }
}
