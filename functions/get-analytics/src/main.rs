//! Lambda entry point of `GET /courses/{courseId}/analytics`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(get_analytics::handle)
}
