//! A position in a file that can't leave the file.

use std::ops::Range;
use std::path::Path;

use crate::error::CheckpointError;

/// Reads little-endian numbers and texts one after another.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(path: &'a Path, bytes: &'a [u8], position: usize) -> Self {
        Self { path, bytes, position }
    }

    pub(crate) const fn position(&self) -> usize {
        self.position
    }

    pub(crate) const fn path(&self) -> &'a Path {
        self.path
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(self.path, what)
    }

    /// Passes over `count` bytes and says where they were.
    pub(crate) fn skip(&mut self, count: u64, what: &str) -> Result<Range<usize>, CheckpointError> {
        let left = self.bytes.len() - self.position;
        let count =
            usize::try_from(count).ok().filter(|&count| count <= left).ok_or_else(|| {
                self.damaged(format!(
                    "{what} at byte {} claims {count} bytes and {left} are left; \
                 was it downloaded whole?",
                    self.position
                ))
            })?;
        let span = self.position..self.position + count;
        self.position = span.end;
        Ok(span)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], CheckpointError> {
        let span = self.skip(N as u64, what)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[span]);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Where the bytes of a length-prefixed text are.
    pub(crate) fn span(&mut self, what: &str) -> Result<Range<usize>, CheckpointError> {
        let count = self.u64(what)?;
        self.skip(count, what)
    }

    /// A length-prefixed text.
    pub(crate) fn text(&mut self, what: &str) -> Result<&'a str, CheckpointError> {
        let span = self.span(what)?;
        let start = span.start;
        std::str::from_utf8(&self.bytes[span])
            .map_err(|_| self.damaged(format!("{what} at byte {start} is not UTF-8")))
    }
}
