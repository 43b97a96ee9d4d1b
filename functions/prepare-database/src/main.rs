//! Lambda entry point of what makes the roles of a new database.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::invocation::serve_resource(prepare_database::handle)
}
