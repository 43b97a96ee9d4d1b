//! The viewer of the API reference: Swagger UI from its npm package, fetched once, in the version and with the checksum
//! that `web/package-lock.json` names. It is for show: whatever becomes of it, the API runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::error::{Context, Error, Result};
use crate::say::note;
use crate::services::process::run_to_end;

/// What npm reads.
const NPM_FILES: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];
/// Where the package is, in a directory that npm has installed.
const PACKAGE: &str = "node_modules/swagger-ui-dist";
/// What the page uses of it.
const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

/// The viewer, which may still be on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Viewer {
    /// Set when it is clear how the fetching ended: the package's directory, or why there is none.
    outcome: Arc<OnceLock<std::result::Result<PathBuf, String>>>,
}

/// How a file of the viewer is to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Here it is.
    At(PathBuf),
    /// Ask again.
    NotYet,
    /// It will not come, for this reason.
    Never(String),
}

/// The fetching, which ends with whoever holds this.
#[derive(Debug)]
pub(crate) struct Fetching(JoinHandle<()>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Viewer {
    /// Where nobody fetches it.
    pub(crate) fn absent() -> Self {
        let viewer = Self::default();
        let _ = viewer.outcome.set(Err("Nobody has fetched it: `make run` does.".to_owned()));
        viewer
    }

    /// Starts to fetch it into `state`, unless an earlier run has.
    pub(crate) fn fetch(&self, web: PathBuf, state: PathBuf) -> Fetching {
        let outcome = self.outcome.clone();
        Fetching(tokio::spawn(async move {
            let fetched = fetch_once(&web, &state).await.map_err(|error| {
                note(format!("There is no viewer for the API reference: {}", error.report()));
                error.report()
            });
            let _ = outcome.set(fetched);
        }))
    }

    /// A file by its name. There is none but those that the page uses.
    pub(crate) fn find(&self, name: &str) -> Option<Found> {
        let name = FILES.into_iter().find(|file| *file == name)?;
        Some(match self.outcome.get() {
            None => Found::NotYet,
            Some(Ok(package)) => Found::At(package.join(name)),
            Some(Err(reason)) => Found::Never(reason.clone()),
        })
    }
}

/// The package's directory, filled now unless it was before.
async fn fetch_once(web: &Path, state: &Path) -> Result<PathBuf> {
    let edition = edition(web)?;
    let directory = state.join(format!("viewer-{edition}"));
    let package = directory.join(PACKAGE);
    if has_files(&package) {
        return Ok(package);
    }
    forget_others(state);
    note("Fetching the viewer of the API reference from npm, once.");
    let unfinished = state.join(format!("viewer-{edition}.{}", std::process::id()));
    install(web, &unfinished).await?;
    fs::rename(&unfinished, &directory).context(|| format!("{} could not be put in place", unfinished.display()))?;
    if has_files(&package) { Ok(package) } else { Err(Error::new("the package has not the files that were expected")) }
}

/// Takes away other versions, and what a run has left that was stopped while it fetched. One run uses a directory.
fn forget_others(state: &Path) {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    for old in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("viewer-")) {
        let _ = fs::remove_dir_all(old.path());
    }
}

/// Another version is kept in another directory.
fn edition(web: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    for file in NPM_FILES.map(|name| web.join(name)) {
        digest.update(fs::read(&file).context(|| format!("{} cannot be read", file.display()))?);
    }
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

async fn install(web: &Path, target: &Path) -> Result<()> {
    fs::create_dir(target).context(|| format!("{} could not be made", target.display()))?;
    for file in NPM_FILES {
        fs::copy(web.join(file), target.join(file)).context(|| format!("{file} could not be copied"))?;
    }
    let mut version = Command::new("npm");
    version.arg("--version");
    let npm = run_to_end(version, "npm").await;
    npm.map_err(|_| Error::new("npm is not installed here (Debian: apt-get install npm)"))?;
    let mut npm = Command::new("npm");
    // Not its scripts: one of them would tell a stranger of this machine.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(target);
    run_to_end(npm, "fetching it from npm").await.map(drop)
}

fn has_files(package: &Path) -> bool {
    FILES.iter().all(|file| package.join(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn only_the_files_that_the_page_uses_can_be_had() {
        let viewer = Viewer::default();
        assert_eq!(viewer.find("swagger-ui.css"), Some(Found::NotYet));
        for name in ["package.json", "../package.json", "swagger-ui.css/", ""] {
            assert_eq!(viewer.find(name), None, "{name}");
        }
        assert!(matches!(Viewer::absent().find("swagger-ui.css"), Some(Found::Never(_))));
    }

    #[tokio::test]
    async fn what_was_fetched_is_not_fetched_again() {
        let scratch = Scratch::new("viewer");
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web");
        let unreadable = fetch_once(scratch.path(), scratch.path()).await.expect_err("no package.json");
        assert!(unreadable.report().contains("package.json"), "{}", unreadable.report());

        let directory = format!("viewer-{}", edition(&web).expect("the files"));
        let package = scratch.path().join(directory).join(PACKAGE);
        fs::create_dir_all(&package).expect("a directory");
        for file in FILES {
            fs::write(package.join(file), "").expect("a file");
        }
        assert_eq!(fetch_once(&web, scratch.path()).await.expect("it is there"), package);
    }
}
