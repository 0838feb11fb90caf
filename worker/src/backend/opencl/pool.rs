//! Device memory that tensors of a step lend each other.
//!
//! Commands run in the order in which they were given, so memory may go to the next tensor as soon as
//! the last command that uses it is given, long before it has run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use opencl::{Buffer, Error, Memory, Queue};

/// Bytes of the smallest piece.
const LEAST: usize = 256;

/// Pieces that nobody uses, by size.
#[derive(Debug, Default)]
struct Free {
    by_size: BTreeMap<usize, Vec<Buffer>>,
    /// Bytes that were ever taken.
    bytes: u64,
}

/// Device memory for what a step computes.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    queue: Queue,
    free: Arc<Mutex<Free>>,
}

/// A piece of memory that goes back when it is dropped; none once the device failed.
#[derive(Debug)]
pub(crate) struct Lease {
    buffer: Option<Buffer>,
    free: Arc<Mutex<Free>>,
}

impl Pool {
    pub(crate) fn new(queue: &Queue) -> Self {
        Self { queue: queue.clone(), free: Arc::default() }
    }

    /// At least so many bytes, whatever is in them.
    pub(crate) fn lease(&self, bytes: usize) -> Result<Lease, Error> {
        let size = size_of_piece(bytes);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let known = free.by_size.get_mut(&size).and_then(Vec::pop);
        let buffer = match known {
            Some(buffer) => buffer,
            None => {
                let buffer = self.queue.buffer(size, Memory::Device)?;
                free.bytes += size as u64;
                buffer
            }
        };
        Ok(Lease { buffer: Some(buffer), free: Arc::clone(&self.free) })
    }

    /// No memory, for tensors after the device failed.
    pub(crate) fn nothing(&self) -> Lease {
        Lease { buffer: None, free: Arc::clone(&self.free) }
    }

    /// Bytes taken from the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

/// Quarters between powers of two, so that little is wasted and sizes are few.
fn size_of_piece(bytes: usize) -> usize {
    let bytes = bytes.max(LEAST);
    bytes.next_multiple_of(bytes.next_power_of_two() / 8)
}

impl Lease {
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.by_size.entry(buffer.bytes()).or_default().push(buffer);
        }
    }
}
