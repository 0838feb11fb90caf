//! A device at work: one context, one in-order queue.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::{Buffer, Memory};
use crate::context::{Core, Limits};
use crate::device::Device;
use crate::error::{Error, check};
use crate::one_at_a_time::alone;

const MAP_INVALIDATE: u64 = 1 << 2;
const BLOCKING: u32 = 1;

/// An in-order queue: commands run one after another, in the order in which they were given.
#[derive(Clone)]
pub struct Queue {
    pub(crate) core: Arc<Core>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("device", self.device()).finish_non_exhaustive()
    }
}

impl Queue {
    /// Takes a device.
    ///
    /// # Errors
    /// The device is not available.
    pub fn open(device: &Device) -> Result<Self, Error> {
        let _alone = alone();
        let (table, mut code) = (&device.table, 0);
        // SAFETY: one device is given, and no properties.
        let context = unsafe {
            (table.clCreateContext)(
                null(),
                1,
                &raw const device.id,
                None,
                null_mut(),
                &raw mut code,
            )
        };
        check("clCreateContext", code)?;
        let limits = Limits::of(device);
        let launches = AtomicU64::new(0);
        let mut core =
            Core { device: device.clone(), context, queue: null_mut(), limits, launches };
        let create = core.table().clCreateCommandQueueWithProperties;
        // SAFETY: no properties are given: it is in order.
        let queue = unsafe { create(context, device.id, null(), &raw mut code) };
        check("clCreateCommandQueueWithProperties", code)?;
        core.queue = queue;
        Ok(Self { core: Arc::new(core) })
    }

    /// The device it is of.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.core.device
    }

    /// What it may do at most.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.core.limits
    }

    /// Kernels that it took so far.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.core.launches.load(Ordering::Relaxed)
    }

    /// New memory; what is in it is whatever was there.
    ///
    /// # Errors
    /// [`Error::Limit`], or too little memory.
    pub fn buffer(&self, bytes: usize, memory: Memory) -> Result<Buffer, Error> {
        Buffer::new(Arc::clone(&self.core), bytes, memory)
    }

    /// Puts `from` in a buffer from `offset` on, and waits for it.
    ///
    /// # Errors
    /// The device failed, at this or at an earlier command.
    ///
    /// # Panics
    /// When it does not fit: the caller's sums are wrong.
    pub fn write(&self, to: &Buffer, offset: usize, from: &[u8]) -> Result<(), Error> {
        to.assert_holds(offset, from.len());
        if from.is_empty() {
            return Ok(());
        }
        let (write, queue) = (self.core.table().clEnqueueWriteBuffer, self.core.queue);
        let (size, from) = (from.len(), from.as_ptr().cast::<c_void>());
        // SAFETY: the slice is read before the call returns, because it blocks.
        let code =
            unsafe { write(queue, to.handle, BLOCKING, offset, size, from, 0, null(), null_mut()) };
        check("clEnqueueWriteBuffer", code)
    }

    /// Fills `to` from a buffer's `offset` on, once all earlier commands are done.
    ///
    /// # Errors
    /// The device failed, at this or at an earlier command.
    ///
    /// # Panics
    /// When the buffer has less: the caller's sums are wrong.
    pub fn read(&self, from: &Buffer, offset: usize, to: &mut [u8]) -> Result<(), Error> {
        from.assert_holds(offset, to.len());
        if to.is_empty() {
            return self.finish();
        }
        let (read, queue) = (self.core.table().clEnqueueReadBuffer, self.core.queue);
        let (size, to) = (to.len(), to.as_mut_ptr().cast::<c_void>());
        // SAFETY: the slice is written before the call returns, because it blocks.
        let code =
            unsafe { read(queue, from.handle, BLOCKING, offset, size, to, 0, null(), null_mut()) };
        check("clEnqueueReadBuffer", code)
    }

    /// Copies `bytes` between buffers, or within one where the two places do not overlap.
    ///
    /// # Errors
    /// The device cannot take the command.
    ///
    /// # Panics
    /// When a buffer has less: the caller's sums are wrong.
    pub fn copy(
        &self,
        (from, from_offset): (&Buffer, usize),
        (to, to_offset): (&Buffer, usize),
        bytes: usize,
    ) -> Result<(), Error> {
        from.assert_holds(from_offset, bytes);
        to.assert_holds(to_offset, bytes);
        if bytes == 0 {
            return Ok(());
        }
        let (copy, queue) = (self.core.table().clEnqueueCopyBuffer, self.core.queue);
        let (from, to) = (from.handle, to.handle);
        // SAFETY: both buffers are alive; the command keeps them so.
        let code =
            unsafe { copy(queue, from, to, from_offset, to_offset, bytes, 0, null(), null_mut()) };
        check("clEnqueueCopyBuffer", code)
    }

    /// Lets `fill` write a whole buffer where the device can read it without another copy.
    ///
    /// # Errors
    /// The device cannot show its memory, or what `fill` says.
    pub fn fill<E: From<Error>>(
        &self,
        buffer: &mut Buffer,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (table, queue, mut code) = (self.core.table(), self.core.queue, 0);
        let bytes = buffer.bytes();
        if bytes == 0 {
            return fill(&mut []);
        }
        let (map, buffer) = (table.clEnqueueMapBuffer, buffer.handle);
        // SAFETY: the whole buffer is mapped, and the call waits until it is.
        let at = unsafe {
            let (none, code) = (null_mut(), &raw mut code);
            map(queue, buffer, BLOCKING, MAP_INVALIDATE, 0, bytes, 0, null(), none, code)
        };
        check("clEnqueueMapBuffer", code)?;
        // SAFETY: so many bytes are mapped; nobody else has the buffer, which is borrowed mutably, and
        // the queue is idle as far as it goes. Whatever bits were there are bytes.
        let filled = fill(unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), bytes) });
        // SAFETY: this is where it was mapped.
        let code =
            unsafe { (table.clEnqueueUnmapMemObject)(queue, buffer, at, 0, null(), null_mut()) };
        filled?;
        check("clEnqueueUnmapMemObject", code)?;
        Ok(())
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// The device failed.
    pub fn finish(&self) -> Result<(), Error> {
        // SAFETY: the queue lives as long as the core.
        check("clFinish", unsafe { (self.core.table().clFinish)(self.core.queue) })
    }
}
