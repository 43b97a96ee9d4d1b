//! Lambda entry point of `GET` and `DELETE /learners/{userId}/data`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::http::serve(manage_learner::handle)
}
