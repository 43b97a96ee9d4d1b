//! What only this package's own tests need.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::authorizer::SigningKey;

/// A key of the tests: making one is the slow part, and none of them changes it.
pub(crate) fn signing_key() -> SigningKey {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().expect("a key"));
    KEY.clone()
}

/// A directory that goes away with its test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lectern-{name}-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
