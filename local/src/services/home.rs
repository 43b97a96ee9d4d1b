//! Where the servers of one workspace keep what is theirs: in its `.lectern/`, unless we are root and the account
//! that the servers run under cannot go there (a checkout under /root); then in a private directory under /var/tmp.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::account::Account;
use crate::error::{Context, Error, Result};
use crate::workspace::make_private_directory;

/// The directory of a workspace's servers, and the account that they run under.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
    /// Where fetched binaries are kept: the same for a home and every home within it.
    binaries: PathBuf,
    account: Option<Account>,
    notice: Option<String>,
}

impl Home {
    /// Finds or makes the home that belongs to a workspace's state directory.
    ///
    /// # Errors
    /// When no directory can be made that the servers' account could enter.
    pub async fn prepare(state: &Path) -> Result<Self> {
        let Some(account) = Account::for_servers()? else {
            return Ok(Self::at(state.to_owned(), None, None));
        };
        admit(&account, state)?;
        if account.can_enter(state).await {
            return Ok(Self::at(state.to_owned(), Some(account), None));
        }
        let path = elsewhere(state);
        make_private_directory(&path)?;
        refuse_foreign(&path)?;
        admit(&account, &path)?;
        if !account.can_enter(&path).await {
            return Err(Error::new(format!(
                "{} can enter neither {} nor {}",
                account.name,
                state.display(),
                path.display()
            )));
        }
        let notice = format!(
            "The servers keep their data in {}: {} cannot enter {}.",
            path.display(),
            account.name,
            state.display()
        );
        Ok(Self::at(path, Some(account), Some(notice)))
    }

    fn at(path: PathBuf, account: Option<Account>, notice: Option<String>) -> Self {
        Self { binaries: path.join("binaries"), path, account, notice }
    }

    /// What a person should know about where the home is.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The directory itself. It is ours; the servers' account can pass through it, not look around.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A home within this one, for servers that live shorter.
    pub(crate) fn within(&self, name: &str) -> Result<Self> {
        let path = self.directory(name)?;
        Ok(Self { path, binaries: self.binaries.clone(), account: self.account.clone(), notice: None })
    }

    /// Where fetched binaries are, if there are any.
    pub(crate) fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Makes the directory for fetched binaries.
    pub(crate) fn make_binaries(&self) -> Result<&Path> {
        make_private_directory(&self.binaries)?;
        if let Some(account) = &self.account {
            admit(account, &self.binaries)?;
        }
        Ok(&self.binaries)
    }

    /// A directory of ours within the home that the servers' account can pass through.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        make_private_directory(&path)?;
        if let Some(account) = &self.account {
            admit(account, &path)?;
        }
        Ok(path)
    }

    /// Gives a file or directory to the servers' account.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn give(&self, path: &Path) -> Result<()> {
        self.account.as_ref().map_or(Ok(()), |account| account.give(path))
    }

    /// Refuses a directory that a run under another user has left: no server would start in it.
    pub(crate) fn refuse_other_owner(&self, path: &Path) -> Result<()> {
        let owner = fs::metadata(path).context(|| format!("{} could not be read", path.display()))?.uid();
        let expected = self.account.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
        if owner == expected {
            return Ok(());
        }
        Err(Error::new(format!(
            "{} belongs to user {owner}, but its server would run as user {expected}: start Lectern as whoever started it \
             first, or remove the directory to begin afresh",
            path.display()
        )))
    }

    /// A command that runs under the servers' account, from a directory that it can enter, in a process group of its
    /// own: Ctrl-C in the terminal then reaches us alone, and we stop things in order.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path).process_group(0).env("LC_ALL", "C").env_remove("LANGUAGE");
        if let Some(account) = &self.account {
            account.lend_to(&mut command);
        }
        command
    }
}

/// Lets an account pass through a directory of ours.
fn admit(account: &Account, directory: &Path) -> Result<()> {
    chown(directory, None, Some(account.gid))
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o710)))
        .context(|| format!("{} could not be opened to {}", directory.display(), account.name))
}

/// The home of a state directory that the account cannot enter. The same directory always has the same one.
fn elsewhere(state: &Path) -> PathBuf {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Path::new("/var/tmp").join(format!("lectern-{name}"))
}

/// Everybody can write to /var/tmp: what stands there under our name may be a trap.
fn refuse_foreign(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).context(|| format!("{} could not be read", path.display()))?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::new(format!("{} is not a directory of ours: remove it", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn every_state_directory_has_its_own_home_elsewhere() {
        let (one, other) = (elsewhere(Path::new("/home/a/.lectern")), elsewhere(Path::new("/home/b/.lectern")));
        assert_ne!(one, other);
        assert_eq!(one, elsewhere(Path::new("/home/a/.lectern")));
        assert!(one.starts_with("/var/tmp"), "{}", one.display());
    }

    #[test]
    fn a_link_in_place_of_our_directory_is_refused() {
        let scratch = Scratch::new("foreign");
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(scratch.path(), &link).expect("linked");
        assert!(refuse_foreign(&link).is_err());
        assert!(refuse_foreign(scratch.path()).is_ok());
    }
}
