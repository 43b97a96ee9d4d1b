//! Lambda entry point of `POST /courses`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(generate_course::handle)
}
