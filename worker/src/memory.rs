//! What memory this machine has, as Linux tells it.

use std::fs;

/// Assumed where the machine does not say: enough for a small model, too little to hurt.
const ASSUMED_BYTES: u64 = 4 << 30;

/// Memory of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostMemory {
    /// All there is, bytes.
    pub(crate) total_bytes: u64,
    /// What can be had without swapping, bytes.
    pub(crate) available_bytes: u64,
}

impl HostMemory {
    /// Asks now.
    #[must_use]
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let total_bytes = meminfo(text, "MemTotal:").unwrap_or(ASSUMED_BYTES);
        let available_bytes = meminfo(text, "MemAvailable:").unwrap_or(total_bytes);
        Self { total_bytes, available_bytes: available_bytes.min(total_bytes) }
    }
}

/// Bytes of a line of `/proc/meminfo`, by its name with the colon.
pub(crate) fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lines_that_count_are_found() {
        let text = "MemTotal:       2000 kB\nMemFree:   7 kB\nMemAvailable:   1000 kB\n";
        let memory = HostMemory::parse(text);
        assert_eq!(memory, HostMemory { total_bytes: 2_048_000, available_bytes: 1_024_000 });
    }

    #[test]
    fn a_machine_that_does_not_say_gets_a_modest_guess() {
        let memory = HostMemory::parse("MemTotal: lots\n");
        assert_eq!(memory.available_bytes, ASSUMED_BYTES);
    }
}
