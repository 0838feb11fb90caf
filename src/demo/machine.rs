//! What Linux says of a process: its memory and its handles.

use std::fs;

use worker::telemetry::resident_bytes_of;

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
    let memory = resident_bytes_of(pid)? as f64;
    let handles = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let handles = f64::from(u32::try_from(handles).unwrap_or(u32::MAX));
    Some(Held { memory, handles })
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
