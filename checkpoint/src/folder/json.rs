//! Small files, read whole.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::error::CheckpointError;

/// The largest `tokenizer.json` there are have some 40 MB.
const BYTES_MAX: u64 = 256 << 20;

/// A file's bytes; none where there is no such file.
pub(crate) fn read_bytes_optional(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    match read_bytes(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(CheckpointError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let io = |source| CheckpointError::io(path, source);
    // Asked first, because opening a named pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        let what = format!("it is not a file of at most {BYTES_MAX} bytes");
        return Err(CheckpointError::damaged(path, what));
    }
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(io)?.take(BYTES_MAX);
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// A JSON object; none where there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Value>, CheckpointError> {
    let Some(bytes) = read_bytes_optional(path)? else { return Ok(None) };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| CheckpointError::damaged(path, format!("it is not JSON: {error}")))?;
    if value.is_object() {
        Ok(Some(value))
    } else {
        Err(CheckpointError::damaged(path, "it is not a JSON object"))
    }
}

/// A JSON object.
pub(crate) fn read(path: &Path) -> Result<Value, CheckpointError> {
    read_optional(path)?.ok_or_else(|| CheckpointError::io(path, ErrorKind::NotFound.into()))
}
