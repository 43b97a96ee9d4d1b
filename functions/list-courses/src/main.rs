//! Lambda entry point of `GET /courses` and `GET /me/authored-courses`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(list_courses::handle)
}
