//! Compiled programs in files, so that a worker starts without compiling.
//!
//! An entry is named after everything it was made from and carries the sum of its own bytes: one that
//! is damaged, or that the driver refuses, is a miss. Failing to write one costs only time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::device::Device;

/// What an entry starts with: our name and the version of this layout.
const MAGIC: &[u8] = b"arcmesh program 1\n";
const SUM_BYTES: usize = 32;

/// Where the program made from these is kept.
pub(crate) fn path(folder: &Path, device: &Device, source: &str, options: &str) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [source, options, &device.name, &device.driver, &device.version] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(name + ".clbin")
}

/// The binary in an entry; none where it is missing or damaged.
pub(crate) fn load(path: &Path) -> Option<Vec<u8>> {
    let mut entry = fs::read(path).ok()?;
    let rest = entry.strip_prefix(MAGIC)?;
    let (sum, binary) = rest.split_at_checked(SUM_BYTES)?;
    if Sha256::digest(binary).as_slice() != sum {
        return None;
    }
    entry.drain(..MAGIC.len() + SUM_BYTES);
    Some(entry)
}

/// Keeps a binary. Others see all of it or nothing.
pub(crate) fn store(path: &Path, binary: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    let entry = [MAGIC, Sha256::digest(binary).as_slice(), binary].concat();
    fs::write(&unfinished, entry)?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_is_a_miss() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/entry.clbin");
        assert_eq!(load(&path), None);
        store(&path, b"a program").unwrap();
        assert_eq!(load(&path).as_deref(), Some(b"a program".as_slice()));
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(load(&path), None, "{length} bytes of it");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(load(&path), None, "byte {at} is another");
        }
    }
}
