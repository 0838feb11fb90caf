//! A model's files that another machine hands over: piece by piece, and whole in the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::download::hex;
use crate::error::CatalogueError;
use crate::progress::Progress;
use crate::store;

/// Where the files of one model arrive. While it lives no other process of this machine takes them in.
#[derive(Debug)]
pub struct Incoming {
    folder: PathBuf,
    _lock: File,
}

impl Incoming {
    /// A place in `cache` for the model whose files have this `digest`.
    ///
    /// Blocks while another process takes the same model in.
    ///
    /// # Errors
    /// The cache cannot be written, or another process has been at it for an hour.
    pub fn begin(
        cache: &Path,
        digest: &[u8; 32],
        progress: &dyn Fn(Progress<'_>),
    ) -> Result<Self, CatalogueError> {
        let name = hex(digest);
        let lock = store::lock(cache, &name, progress)?;
        Ok(Self { folder: cache.join("handed-over").join(name), _lock: lock })
    }

    /// The folder of the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first byte that is missing of a file of `bytes` bytes; none: it is whole.
    ///
    /// # Errors
    /// A name that is none within the folder; the disk.
    pub fn missing_from(&self, name: &str, bytes: u64) -> Result<Option<u64>, CatalogueError> {
        let target = self.target(name)?;
        if store::is_whole(&target, bytes) {
            return Ok(None);
        }
        let part = store::part(&target);
        let have = fs::metadata(&part).map_or(0, |metadata| metadata.len());
        if have > bytes {
            store::remove(&part)?;
            return Ok(Some(0));
        }
        Ok(Some(have))
    }

    /// The file to write to, from byte `start` on.
    ///
    /// # Errors
    /// As [`Incoming::missing_from`].
    pub fn open(&self, name: &str, start: u64) -> Result<File, CatalogueError> {
        store::open(&store::part(&self.target(name)?), start)
    }

    /// A file has all its bytes.
    ///
    /// # Errors
    /// As [`Incoming::missing_from`].
    pub fn publish(&self, name: &str) -> Result<(), CatalogueError> {
        let target = self.target(name)?;
        store::publish(&store::part(&target), &target)
    }

    /// What arrived is not what was meant: all of it goes.
    ///
    /// # Errors
    /// The disk.
    pub fn discard(self) -> Result<(), CatalogueError> {
        fs::remove_dir_all(&self.folder).map_err(CatalogueError::disk(&self.folder))
    }

    fn target(&self, name: &str) -> Result<PathBuf, CatalogueError> {
        if name.contains('/') || !store::is_inner_path(name) {
            return Err(CatalogueError::damaged(name, "it is no name of a file"));
        }
        Ok(self.folder.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_goes_on_where_it_was_and_is_whole_at_last() {
        let cache = tempfile::tempdir().unwrap();
        let begin = || Incoming::begin(cache.path(), &[7; 32], &|_| {}).unwrap();
        let incoming = begin();
        assert_eq!(incoming.missing_from("model.gguf", 5).unwrap(), Some(0));
        incoming.open("model.gguf", 0).unwrap().write_all(b"abc").unwrap();
        drop(incoming);
        let incoming = begin();
        assert_eq!(incoming.missing_from("model.gguf", 5).unwrap(), Some(3));
        incoming.open("model.gguf", 3).unwrap().write_all(b"de").unwrap();
        incoming.publish("model.gguf").unwrap();
        assert_eq!(incoming.missing_from("model.gguf", 5).unwrap(), None);
        assert_eq!(fs::read(incoming.folder().join("model.gguf")).unwrap(), b"abcde");
        // Another length: from the beginning.
        assert_eq!(incoming.missing_from("model.gguf", 4).unwrap(), Some(0));
        incoming.discard().unwrap();
        assert_eq!(begin().missing_from("model.gguf", 5).unwrap(), Some(0));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let cache = tempfile::tempdir().unwrap();
        let incoming = Incoming::begin(cache.path(), &[7; 32], &|_| {}).unwrap();
        for hostile in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\n"] {
            assert!(incoming.missing_from(hostile, 1).is_err(), "{hostile:?}");
            assert!(incoming.open(hostile, 0).is_err(), "{hostile:?}");
        }
    }
}
