//! What Linux says of a process: its memory and its handles.

use std::fs;
use std::path::PathBuf;

/// A process at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    /// Resident memory, bytes.
    pub(super) memory: f64,
    /// Open files and sockets.
    pub(super) handles: f64,
}

/// What a process holds now; none when it has ended.
pub(super) fn held(pid: u32) -> Option<Held> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let handles = fs::read_dir(folder.join("fd")).ok()?.count();
    let handles = f64::from(u32::try_from(handles).unwrap_or(u32::MAX));
    Some(Held { memory: kibibytes * 1024.0, handles })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let held = held(std::process::id()).unwrap();
        assert!(held.memory > 1e5 && held.handles >= 1.0, "{held:?}");
        assert_eq!(super::held(u32::MAX), None);
    }
}
