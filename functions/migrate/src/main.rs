//! Lambda entry point of the migrations.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::invocation::serve_resource(migrate::handle)
}
