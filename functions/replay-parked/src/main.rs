//! Lambda entry point of the scheduled replay of parked progress.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::invocation::serve(replay_parked::handle)
}
