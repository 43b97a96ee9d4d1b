//! Lambda entry point of the first grants.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::invocation::serve_resource(prepare_database::handle)
}
