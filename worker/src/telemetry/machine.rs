//! The files of a kernel, below a root: the machine's own, or a tree that somebody made.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No file that is read here is longer: sysfs gives a page, fdinfo less than that.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Entries of a folder that are looked at; a machine has far fewer devices.
const ENTRIES_MAX: usize = 4096;

/// Where `sys`, `proc` and `dev` are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    root: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Machine {
    /// The machine whose `sys`, `proc` and `dev` lie in `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this is the machine we run on rather than files that describe one.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path from the root, such as `sys/bus/pci`.
    #[must_use]
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// Version of the kernel, as `uname -r` gives it.
    #[must_use]
    pub fn kernel(&self) -> Option<String> {
        text(&self.path("proc/sys/kernel/osrelease"))
    }
}

/// What a file says, without blanks around it; none where it cannot be read or says nothing.
pub(crate) fn text(path: &Path) -> Option<String> {
    let mut read = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut read).ok()?;
    let text = String::from_utf8_lossy(&read).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The number that a file holds.
pub(crate) fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// A number such as `0x8086`.
pub(crate) fn hexadecimal(path: &Path) -> Option<u32> {
    u32::from_str_radix(text(path)?.trim_start_matches("0x"), 16).ok()
}

/// Names in a folder, sorted; none where it cannot be read.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(ENTRIES_MAX);
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(text(&path).unwrap().len() as u64, FILE_BYTES_MAX);
        assert_eq!(text(&folder.path().join("absent")), None);
        assert_eq!(text(folder.path()), None);
    }
}
