//! A file as memory: the only place where the operating system lends us bytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::CheckpointError;

/// A file mapped read-only.
#[derive(Debug)]
pub(crate) struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    /// Maps a regular file. Nothing is read yet.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        // Asked first, because opening a named pipe would wait for its other end.
        let metadata = fs::metadata(path).map_err(|source| CheckpointError::io(path, source))?;
        if !metadata.is_file() {
            return Err(CheckpointError::unsupported(path, "it is not a regular file"));
        }
        let file = File::open(path).map_err(|source| CheckpointError::io(path, source))?;
        let map = map(&file).map_err(|source| CheckpointError::io(path, source))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the pages that were read back to the system; they come again when they are read again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        release(&self.map);
    }
}

#[expect(unsafe_code, reason = "a mapping is memory that the operating system fills")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is private to reading, and a model's files are not written while they are
    // served. Bytes that change all the same are only ever read as plain numbers, after every offset
    // was checked against the length at this moment; a file cut short ends the process with SIGBUS.
    unsafe { Mmap::map(file) }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "the operating system is told that pages may go")]
fn release(map: &Mmap) {
    // SAFETY: the mapping is of a file and nobody writes to it, so a page that went is read from the
    // file again, with the bytes it had.
    let told = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    // A system that keeps the pages costs memory, and nothing else.
    drop(told);
}
