//! Lambda entry point of `PATCH` and `DELETE /courses/{courseId}`, `PUT` of its `/content` and `POST` of its `/lessons`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(update_course::handle)
}
