//! Host memory that a device copies from and to without a detour.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use crate::buffer::{Buffer, Memory};
use crate::error::{Error, check};
use crate::queue::Queue;
use crate::table::Handle;

const MAP_READ_WRITE: u64 = 3;
const BLOCKING: u32 = 1;

/// Pinned host memory, mapped once for as long as it lives.
///
/// A copy to the device is only begun by [`Pinned::send`]; whoever looks at the memory next waits
/// until it is done.
pub struct Pinned {
    queue: Queue,
    buffer: Buffer,
    at: *mut c_void,
    /// The copy that still reads from here.
    sending: Option<Handle>,
}

// SAFETY: the mapped memory is this object's alone, and events may be used by any thread.
unsafe impl Send for Pinned {}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pinned").field("bytes", &self.buffer.bytes()).finish_non_exhaustive()
    }
}

impl Pinned {
    /// So many bytes of 0, at least one.
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(queue: &Queue, bytes: usize) -> Result<Self, Error> {
        let buffer = queue.buffer(bytes.max(1), Memory::Host)?;
        let (map, mut code) = (queue.core.table().clEnqueueMapBuffer, 0);
        let (core, size) = (&queue.core, buffer.bytes());
        // SAFETY: the whole buffer is mapped, and the call waits until it is.
        let at = unsafe {
            let (none, code) = (null_mut(), &raw mut code);
            map(core.queue, buffer.handle, BLOCKING, MAP_READ_WRITE, 0, size, 0, null(), none, code)
        };
        check("clEnqueueMapBuffer", code)?;
        // SAFETY: so many bytes were just mapped for writing.
        unsafe { at.cast::<u8>().write_bytes(0, size) };
        Ok(Self { queue: queue.clone(), buffer, at, sending: None })
    }

    /// Bytes in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.bytes()
    }

    /// The memory, once no copy reads from it any more.
    ///
    /// # Errors
    /// The device failed.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], Error> {
        self.settle()?;
        // SAFETY: so many bytes are mapped for as long as this lives; no command uses them now.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.at.cast::<u8>(), self.buffer.bytes()) })
    }

    /// Begins to copy the first `bytes` to the start of a buffer.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// When either has less: the caller's sums are wrong.
    pub fn send(&mut self, to: &Buffer, bytes: usize) -> Result<(), Error> {
        self.settle()?;
        self.buffer.assert_holds(0, bytes);
        to.assert_holds(0, bytes);
        if bytes == 0 {
            return Ok(());
        }
        let (core, mut event) = (&self.queue.core, null_mut());
        let write = core.table().clEnqueueWriteBuffer;
        // SAFETY: the memory stays as it is until the event has come: everybody settles first.
        let code = unsafe {
            write(core.queue, to.handle, 0, 0, bytes, self.at, 0, null(), &raw mut event)
        };
        check("clEnqueueWriteBuffer", code)?;
        self.sending = Some(event);
        Ok(())
    }

    /// Copies `bytes` of a buffer's start here, once all earlier commands are done.
    ///
    /// # Errors
    /// The device failed.
    ///
    /// # Panics
    /// When either has less: the caller's sums are wrong.
    pub fn receive(&mut self, from: &Buffer, bytes: usize) -> Result<&[u8], Error> {
        self.buffer.assert_holds(0, bytes);
        let queue = self.queue.clone();
        let to = &mut self.bytes_mut()?[..bytes];
        queue.read(from, 0, to)?;
        Ok(to)
    }

    /// Waits for the copy that reads from here.
    fn settle(&mut self) -> Result<(), Error> {
        let Some(event) = self.sending.take() else { return Ok(()) };
        let table = self.queue.core.table();
        // SAFETY: the event is ours.
        let code = unsafe { (table.clWaitForEvents)(1, &raw const event) };
        // SAFETY: and this is its last use.
        unsafe { (table.clReleaseEvent)(event) };
        check("clWaitForEvents", code)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A device that failed reads no more.
        let _settled = self.settle();
        let core = &self.queue.core;
        let unmap = core.table().clEnqueueUnmapMemObject;
        // SAFETY: this is where it was mapped, and nobody has the memory any more.
        unsafe { unmap(core.queue, self.buffer.handle, self.at, 0, null(), null_mut()) };
    }
}
