//! What can be wrong with a model's files, one variant a reaction.

use std::path::{Path, PathBuf};

/// Why a model cannot be opened. Each message names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system would not let us read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is broken: truncated, inconsistent or hostile.
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not hold.
        what: String,
    },
    /// The file is sound, but of a kind that is not served.
    #[error("{path} cannot be served: {what}", path = path.display())]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// What is not known.
        what: String,
    },
}

impl CheckpointError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_path_buf(), what: what.into() }
    }
}

/// A name out of a file, fit for a message: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let mut short: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push('…');
    }
    short
}
