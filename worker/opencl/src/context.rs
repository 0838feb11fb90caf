//! What everything made on a device keeps alive, and the limits that all of it heeds.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::device::Device;
use crate::error::Error;
use crate::table::{Handle, Table};

/// The tightest limits of the devices that we are for: those of an Arc A770, whatever a test device
/// would allow beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a buffer.
    pub buffer_bytes: u64,
    /// Work-items of a work-group.
    pub work_group: u64,
    /// Bytes that a work-group shares.
    pub local_bytes: u64,
}

impl Limits {
    /// An Arc A770's: more than 4 GiB in a buffer would cost every kernel 64-bit addresses.
    pub const ARC: Self =
        Self { buffer_bytes: (4 << 30) - 1, work_group: 1024, local_bytes: 64 << 10 };

    /// What a device allows of these.
    pub(crate) fn of(device: &Device) -> Self {
        Self {
            buffer_bytes: Self::ARC.buffer_bytes.min(device.buffer_bytes_max),
            work_group: Self::ARC.work_group.min(device.work_group_max as u64),
            local_bytes: Self::ARC.local_bytes.min(device.local_bytes),
        }
    }

    pub(crate) fn check_buffer(&self, bytes: u64) -> Result<(), Error> {
        within("a buffer's size in bytes", bytes, self.buffer_bytes)
    }

    pub(crate) fn check_launch(&self, work_group: u64, local_bytes: u64) -> Result<(), Error> {
        within("a work-group's size", work_group, self.work_group)?;
        within("a work-group's local memory in bytes", local_bytes, self.local_bytes)
    }
}

fn within(what: &'static str, wanted: u64, most: u64) -> Result<(), Error> {
    if wanted <= most { Ok(()) } else { Err(Error::Limit { what, wanted, most }) }
}

/// What everything made on a device keeps alive.
pub(crate) struct Core {
    pub(crate) device: Device,
    pub(crate) context: Handle,
    pub(crate) queue: Handle,
    pub(crate) limits: Limits,
    /// Kernels that the queue took.
    pub(crate) launches: AtomicU64,
}

// SAFETY: contexts and queues may be used by any thread, says the specification.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    pub(crate) fn table(&self) -> &Table {
        &self.device.table
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let table = Arc::clone(&self.device.table);
        // A core that could not be made has no queue.
        if !self.queue.is_null() {
            // SAFETY: this is the only owner, and its last use.
            unsafe { (table.clReleaseCommandQueue)(self.queue) };
        }
        // SAFETY: as above.
        unsafe { (table.clReleaseContext)(self.context) };
    }
}
