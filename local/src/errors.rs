//! The catalogue of errors in docs/API.md, which is written by the code that makes them.

use std::{fs, path::Path};

use shared::http;

use crate::error::{Context, Error, Result};

/// The lines between which it stands.
const MARKS: [&str; 2] = ["<!-- make errors -->\n", "<!-- as the code has it -->\n"];

/// Puts it into docs/API.md.
///
/// # Errors
/// When the file cannot be read or written, or has no place for it.
pub fn write(root: &Path) -> Result<()> {
    let path = root.join("docs/API.md");
    let document = fs::read_to_string(&path).context(|| format!("{} cannot be read", path.display()))?;
    let document = renewed(&document).ok_or_else(|| Error::new(format!("{} has no place for it", path.display())))?;
    fs::write(&path, document).context(|| format!("{} cannot be written", path.display()))
}

/// The document with the catalogue of today.
pub fn renewed(document: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", http::catalogue()))
}
