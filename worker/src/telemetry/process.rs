//! What the machine says about this process.

use std::fs;

use crate::memory::line_of;

/// Bytes of memory that this process has in RAM; none where the machine does not say.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    status("self", "VmRSS:")
}

/// The most that it ever had.
#[must_use]
pub fn resident_peak_bytes() -> Option<u64> {
    status("self", "VmHWM:")
}

/// Bytes of memory that another process has in RAM; none where it has ended.
#[must_use]
pub fn resident_bytes_of(pid: u32) -> Option<u64> {
    status(&pid.to_string(), "VmRSS:")
}

/// Bytes of a line of what Linux says of a process, by its beginning.
fn status(process: &str, name: &str) -> Option<u64> {
    line_of(&fs::read_to_string(format!("/proc/{process}/status")).ok()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_counts_is_found() {
        let parse = |status| line_of(status, "VmRSS:");
        assert_eq!(parse("Name:\tx\nVmRSS:\t    2048 kB\nThreads: 1\n"), Some(2 << 20));
        assert_eq!(parse("VmRSS: many\n"), None);
        assert_eq!(parse(""), None);
    }
}
