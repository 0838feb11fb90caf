//! Memory that kernels read and write.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::sync::Arc;

use crate::context::Core;
use crate::error::{Error, check};
use crate::table::Handle;

/// Where a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// On the device.
    Device,
    /// In the host's memory, pinned, so that copies need no copy of their own.
    Host,
}

const READ_WRITE: u64 = 1;
const ALLOCATE_HOST: u64 = 1 << 4;

/// A piece of memory, given back when this is dropped and all commands that use it are done.
pub struct Buffer {
    pub(crate) core: Arc<Core>,
    pub(crate) handle: Handle,
    bytes: usize,
}

// SAFETY: a memory object may be used by any thread, says the specification.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of at least one byte, so that empty ones need no case of their own.
    pub(crate) fn new(core: Arc<Core>, bytes: usize, memory: Memory) -> Result<Self, Error> {
        core.limits.check_buffer(bytes as u64)?;
        let flags = match memory {
            Memory::Device => READ_WRITE,
            Memory::Host => READ_WRITE | ALLOCATE_HOST,
        };
        let (create, none, mut code) = (core.table().clCreateBuffer, std::ptr::null_mut(), 0);
        // SAFETY: the context lives as long as the core.
        let handle = unsafe { create(core.context, flags, bytes.max(1), none, &raw mut code) };
        check("clCreateBuffer", code)?;
        Ok(Self { core, handle, bytes })
    }

    /// Bytes in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `bytes` from `offset` on are inside.
    ///
    /// # Panics
    /// When they are not: the caller's sums are wrong.
    pub(crate) fn assert_holds(&self, offset: usize, bytes: usize) {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.bytes), "a copy stays inside its buffer");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let release = self.core.table().clReleaseMemObject;
        // SAFETY: this is the only owner, and its last use.
        unsafe { release(self.handle) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
