//! Lambda entry point of `PATCH` and `DELETE /courses/{courseId}`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(update_course::handle)
}
