//! Lambda entry point of the scheduled refresh of the figures.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::invocation::serve(refresh_analytics::handle)
}
