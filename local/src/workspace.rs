//! The directory that the local run belongs to, and the private files that it keeps there in `.lectern/`.
//!
//! What the servers keep is in `services`: under root that may have to be somewhere else.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// The file that marks the workspace's root.
const TEMPLATE: &str = "template.yaml";

/// A checkout of Lectern.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The nearest directory with a `template.yaml`, from `start` upwards.
    ///
    /// # Errors
    /// When there is none, or the path cannot be made absolute.
    pub fn find(start: &Path) -> Result<Self> {
        let start = start.canonicalize().context(|| format!("{} is not there", start.display()))?;
        start
            .ancestors()
            .find(|directory| directory.join(TEMPLATE).is_file())
            .map(|root| Self { root: root.to_owned() })
            .ok_or_else(|| Error::new(format!("neither {} nor a directory above it has a {TEMPLATE}", start.display())))
    }

    /// The directory with `template.yaml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The template that the routes are read from.
    pub fn template(&self) -> PathBuf {
        self.root.join(TEMPLATE)
    }

    /// The directory that the local run keeps its state in, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn state(&self) -> Result<PathBuf> {
        let state = self.root.join(".lectern");
        make_private_directory(&state)?;
        Ok(state)
    }
}

/// Makes a directory that only its owner can look into; one that exists is left as it is.
pub(crate) fn make_private_directory(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("{} could not be made", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read. Whoever reads it sees the old content or the new, never a part.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().context(|| format!("{} could not be written", path.display()))
}

/// The content of a file, `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("{} could not be read", path.display())),
    }
}

/// A lock that ends with its process, however that ends. The file tells others who holds it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, or answers what its holder wrote into the file.
    pub(crate) fn take(path: &Path) -> Result<std::result::Result<Self, String>> {
        let mut file = open_lock(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Ok(Self { file })),
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).context(|| format!("{} could not be read", path.display()))?;
                Ok(Err(holder))
            }
            Err(fs::TryLockError::Error(error)) => {
                Err(error).context(|| format!("{} could not be locked", path.display()))
            }
        }
    }

    /// Takes the lock, waiting for its holder.
    pub(crate) fn wait_for(path: &Path) -> Result<Self> {
        let file = open_lock(path)?;
        file.lock().context(|| format!("{} could not be locked", path.display()))?;
        Ok(Self { file })
    }

    /// Leaves a word for whoever finds the lock taken.
    pub(crate) fn sign(&self, holder: &str) -> Result<()> {
        let signed = self.file.set_len(0).and_then(|()| self.file.write_all_at(holder.as_bytes(), 0));
        signed.context(|| "the lock could not be signed")
    }
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .context(|| format!("{} could not be opened", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn the_root_is_found_from_a_directory_below_it() {
        let scratch = Scratch::new("workspace");
        fs::write(scratch.path().join("template.yaml"), "").expect("a template");
        let below = scratch.path().join("a/b");
        fs::create_dir_all(&below).expect("directories");
        assert_eq!(Workspace::find(&below).expect("a root").root(), scratch.path().canonicalize().expect("a path"));
    }

    #[test]
    fn a_directory_outside_of_any_workspace_is_refused() {
        let scratch = Scratch::new("outside");
        let error = Workspace::find(scratch.path()).expect_err("no template");
        assert!(error.to_string().contains("template.yaml"), "{error}");
    }

    #[test]
    fn a_private_file_is_only_its_owners() {
        let scratch = Scratch::new("private");
        let path = scratch.path().join("key");
        write_private(&path, b"one").expect("written");
        write_private(&path, b"two").expect("written again");
        assert_eq!(read_if_there(&path).expect("read").as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(scratch.path()).expect("listed").count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_taken_lock_tells_its_holder_and_is_free_after_it() {
        let scratch = Scratch::new("lock");
        let path = scratch.path().join("lock");
        let held = Lock::take(&path).expect("opened").expect("free");
        held.sign("process 12345").expect("signed");
        held.sign("process 7").expect("signed again");
        assert_eq!(Lock::take(&path).expect("opened").expect_err("taken"), "process 7");
        drop(held);
        Lock::take(&path).expect("opened").expect("free again");
    }
}
