//! Why a model cannot be had: one variant for each thing a person can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The server cannot be reached, or went silent, more often than we try. Try again later.
    #[error("cannot fetch {what}: {reason}")]
    Network {
        /// Address or file.
        what: String,
        /// The last failure.
        reason: String,
    },
    /// The server answered, and said no.
    #[error("cannot fetch {what}: {reason}")]
    Refused {
        /// Address or file.
        what: String,
        /// What the server said, and what may help.
        reason: String,
    },
    /// What came is not what was asked for. It was deleted.
    #[error("{what} is not what was expected: {reason}")]
    Damaged {
        /// File.
        what: String,
        /// What differs.
        reason: String,
    },
    /// The repository has no model that we read, or several.
    #[error("{repository}: {reason}")]
    Choice {
        /// `ORG/REPO`.
        repository: String,
        /// What there is.
        reason: String,
    },
    /// The network is switched off, and the model is not in the cache.
    #[error("{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it")]
    Offline {
        /// What was asked for.
        what: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {}: {reason}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Another process has been fetching the same for too long.
    #[error("another process has held {} for {minutes} minutes: is it stuck?", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long we waited.
        minutes: u64,
    },
}

impl CatalogueError {
    pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |reason| Self::Disk { path: path.to_path_buf(), reason }
    }

    pub(crate) fn damaged(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), reason: reason.into() }
    }
}
