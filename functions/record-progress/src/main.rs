//! Lambda entry point of `POST /progress` and `DELETE /courses/{courseId}/progress`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(record_progress::handle)
}
