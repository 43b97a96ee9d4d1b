//! Lambda entry point of `GET` of `/courses/{courseId}/progress`, `/lessons/{lessonId}/progress`, `/me/courses`,
//! `/progress/submissions/{submissionId}` and `/courses/{courseId}/enrollments`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(get_progress::handle)
}
