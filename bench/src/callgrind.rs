//! A function under callgrind: how many instructions it executes, which comes out the same on a busy machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;
use uuid::Uuid;

use crate::{Fallible, failed, runtime::Function};

/// A function whose instructions are counted.
pub(crate) struct Counted {
    /// The function itself.
    pub(crate) function: Function,
    counts: PathBuf,
}

impl Counted {
    /// Starts a binary and waits until it asks for an event.
    pub(crate) async fn start(program: &Path, environment: &[(&str, &str)]) -> Fallible<Self> {
        let counts = std::env::temp_dir().join(format!("lectern-callgrind-{}", Uuid::now_v7()));
        let output = format!("--callgrind-out-file={}", counts.display());
        let function = Function::start(&["valgrind", "--tool=callgrind", &output], program, environment).await;
        let function =
            function.map_err(|error| failed(format!("{}: {error} (is valgrind installed?)", program.display())))?;
        Ok(Self { function, counts })
    }

    /// What was counted until now does not count.
    pub(crate) async fn begin_anew(&mut self) -> Fallible<()> {
        let id = self.function.id()?.to_string();
        let status = Command::new("callgrind_control").args(["--zero", &id]).stdout(Stdio::null()).status().await?;
        if status.success() { Ok(()) } else { Err(failed(format!("callgrind_control: {status}"))) }
    }

    /// Ends it; so many were they, from its first one on.
    pub(crate) async fn stop(self) -> Fallible<u64> {
        self.function.stop().await?;
        let counted = fs::read_to_string(&self.counts)?;
        fs::remove_file(&self.counts)?;
        let total =
            counted.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|count| count.trim().parse().ok());
        total.ok_or_else(|| failed("valgrind has not told how many instructions there were"))
    }
}
