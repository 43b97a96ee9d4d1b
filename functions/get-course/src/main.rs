//! Lambda entry point of `GET /courses/{courseId}`, `GET /me/courses/{courseId}` and `GET /sections/{sectionId}`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(get_course::handle)
}
