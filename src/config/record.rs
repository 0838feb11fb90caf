//! Recordings of what the scheduler was told: where they go, and which is replayed.

use std::path::PathBuf;

use coordinator::RecordTo;

use crate::config::given::{Given, UsageError};
use crate::config::{load, values};

/// An hour of a busy coordinator.
const BYTES_MAX: u64 = 1 << 30;

/// `arcmesh replay`.
#[derive(Debug, Clone)]
pub(crate) struct ReplayConfig {
    /// The recording.
    pub(crate) file: PathBuf,
}

/// What `arcmesh replay` is to do.
pub(crate) fn replay(given: &Given) -> Result<ReplayConfig, UsageError> {
    let file = given.one("file", |text| Ok(PathBuf::from(text)))?;
    let file = file.ok_or_else(|| UsageError::new("FILE: which recording?"))?;
    Ok(ReplayConfig { file })
}

pub(super) fn record(given: &Given) -> Result<Option<RecordTo>, UsageError> {
    let bytes_max = given.one("record-max", values::bytes)?.unwrap_or(BYTES_MAX);
    let file = given.one("record", load::file)?;
    Ok(file.map(|file| RecordTo { file, bytes_max }))
}
