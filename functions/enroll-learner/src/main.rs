//! Lambda entry point of `PUT` and `DELETE /courses/{courseId}/enrollment` and `POST /courses/{courseId}/enrollments`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(enroll_learner::handle)
}
