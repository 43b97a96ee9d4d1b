//! Lambda entry point of `GET` of `/courses/{courseId}/progress`, `/lessons/{lessonId}/progress` and `/me/courses`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(get_progress::handle)
}
