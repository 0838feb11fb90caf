//! What the machine says about itself.

use std::fs;

use crate::memory::HostMemory;

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Memory that this process may use, bytes.
pub(crate) fn memory_bytes() -> u64 {
    HostMemory::read().total_bytes
}
