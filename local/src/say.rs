//! The only two places that write to the terminal.
//!
//! Not `println!`: it panics when nobody reads any more, and a closed pipe is no reason to leave servers behind.

use std::fmt::Display;
use std::io::Write;

/// A line that scripts may wait for, on standard output.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line for whoever watches, on standard error: it never mixes with a command's own output.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
