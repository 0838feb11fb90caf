//! What can be wrong with a model's files, one variant a reaction.

use std::path::PathBuf;

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
