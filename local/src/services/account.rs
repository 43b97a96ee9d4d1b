//! As whom servers run: PostgreSQL refuses to run as root, so root lends it an account without rights.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::error::{Context, Error, Result};

/// The accounts that may be borrowed, the best first: PostgreSQL's own where a package made it, else the one that
/// every system has.
const CANDIDATES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// An account of this machine that is not root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// Whom servers have to run as: `None` is ourselves, unless we are root.
    pub(crate) fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").context(|| "/etc/passwd could not be read")?;
        CANDIDATES.iter().find_map(|name| find_account(&users, name)).map(Some).ok_or_else(|| {
            Error::new("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
        })
    }

    /// Makes a command run as this account, with no other group.
    pub(crate) fn lend_to(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or directory to this account.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .context(|| format!("{} could not be given to {}", path.display(), self.name))
    }

    /// Whether this account can go into a directory. It is tried, because permissions, access lists and mount options
    /// of every directory above have a say.
    pub(crate) async fn can_enter(&self, directory: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(directory).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.lend_to(&mut command);
        command.status().await.is_ok_and(|status| status.success())
    }
}

/// Finds an account in the text of `/etc/passwd`. Root under another name does not count.
fn find_account(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        (uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
    })
}

/// macOS writes `nobody` as -2.
fn parse_id(field: &str) -> Option<u32> {
    field.parse().ok().or_else(|| field.parse::<i32>().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
                         postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\nrootish:x:0:1::/:\n";

    #[test]
    fn an_account_is_read_from_the_list_of_users() {
        let account = find_account(USERS, "postgres").expect("it is there");
        assert_eq!((account.uid, account.gid), (101, 104));
    }

    #[test]
    fn an_account_that_is_root_or_missing_is_not_lent() {
        assert_eq!(find_account(USERS, "rootish"), None);
        assert_eq!(find_account(USERS, "_postgres"), None);
        assert_eq!(find_account("nobody:*:broken", "nobody"), None);
    }

    #[test]
    fn negative_ids_are_read_as_the_kernel_means_them() {
        let account = find_account("nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false", "nobody");
        assert_eq!(account.expect("it is there").uid, u32::MAX - 1);
    }
}
