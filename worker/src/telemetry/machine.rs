//! The files of a kernel, below a root: the machine's own, or a tree that somebody made.

use std::fmt;
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

/// Where a device sits, such as `0000:03:00.0`: domain, bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Which of the machine's trees of buses.
    pub domain: u16,
    /// Which bus of it.
    pub bus: u8,
    /// Which device of the bus, under 32.
    pub device: u8,
    /// Which part of the device, under 8.
    pub function: u8,
}

/// What is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI address such as 0000:03:00.0")]
pub struct PciAddressError(String);

impl FromStr for PciAddress {
    type Err = PciAddressError;

    /// The domain may be left out; it is 0 then.
    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        let parse = || {
            let (place, function) = text.split_once('.')?;
            let mut parts = place.rsplit(':');
            let (device, bus) = (parts.next()?, parts.next()?);
            let domain = parts.next().unwrap_or("0000");
            let hexadecimal = |text: &str, digits: usize| {
                let is_number = text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let number = u16::from_str_radix(text, 16).ok();
                number.filter(|_| is_number && text.len() == digits)
            };
            let byte = |text| u8::try_from(hexadecimal(text, 2)?).ok();
            let address = Self {
                domain: hexadecimal(domain, 4)?,
                bus: byte(bus)?,
                device: byte(device)?,
                function: u8::try_from(hexadecimal(function, 1)?).ok()?,
            };
            let is_one = parts.next().is_none() && address.device < 32 && address.function < 8;
            is_one.then_some(address)
        };
        parse().ok_or_else(|| PciAddressError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(formatter, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let address: PciAddress = "0001:a3:1f.7".parse().unwrap();
        assert_eq!(address, PciAddress { domain: 1, bus: 0xa3, device: 31, function: 7 });
        assert_eq!(address.to_string(), "0001:a3:1f.7");
        assert_eq!("03:00.0".parse::<PciAddress>().unwrap().to_string(), "0000:03:00.0");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let wrong = ["", "03", "03:00", "3:00.0", "0000:03:20.0", "0000:03:00.8", "x:03:00.0"];
        for text in wrong.into_iter().chain(["1:0000:03:00.0", "0000:+3:00.0", "0000:03:00.00"]) {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

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
