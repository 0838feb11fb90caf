//! The way to the device: memory, copies, launches; and what went wrong on it.
//!
//! Operations of a step cannot fail by themselves. The first failure is kept, nothing is launched
//! after it, and whoever wants data back is told.

use std::path::PathBuf;

use opencl::{Argument, Buffer, Error, Memory, Pinned, Queue};

use crate::backend::BackendError;
use crate::backend::opencl::pool::{Lease, Pool};
use crate::backend::opencl::programs::{Part, Programs};

/// Bytes of pinned memory to begin with.
const STAGED: usize = 1 << 20;

/// What a kernel is called with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Lease(&'a Lease),
    Buffer(&'a Buffer),
    U32(u32),
    F32(f32),
    Local(usize),
}

/// A device at work.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) queue: Queue,
    pub(crate) programs: Programs,
    pub(crate) pool: Pool,
    staged: Pinned,
    fault: Option<Error>,
    /// Bytes of memory that is kept: weights, tables, cache.
    kept: u64,
}

impl Driver {
    pub(crate) fn new(queue: Queue, cache: Option<PathBuf>) -> Result<Self, Error> {
        let mut programs = Programs::new(&queue, cache);
        programs.build(Part::Rows)?;
        Ok(Self {
            programs,
            pool: Pool::new(&queue),
            staged: Pinned::new(&queue, STAGED)?,
            fault: None,
            kept: 0,
            queue,
        })
    }

    /// Bytes of the device that are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.kept + self.pool.bytes()
    }

    /// Memory that is kept.
    pub(crate) fn keep(
        &mut self,
        what: &'static str,
        bytes: usize,
        memory: Memory,
    ) -> Result<Buffer, BackendError> {
        let buffer = self.queue.buffer(bytes, memory).map_err(|error| match error {
            Error::Limit { wanted, most, .. } => {
                BackendError::Memory { what, wanted, available: most }
            }
            _ if error.is_memory() => {
                let all = self.queue.device().memory_bytes;
                let available = all.saturating_sub(self.taken());
                BackendError::Memory { what, wanted: bytes as u64, available }
            }
            _ => failed(&error),
        })?;
        if memory == Memory::Device {
            self.kept += bytes as u64;
        }
        Ok(buffer)
    }

    /// Memory that is kept, with these bytes.
    pub(crate) fn keep_bytes(
        &mut self,
        what: &'static str,
        bytes: &[u8],
    ) -> Result<Buffer, BackendError> {
        let buffer = self.keep(what, bytes.len(), Memory::Device)?;
        self.queue.write(&buffer, 0, bytes).map_err(|error| failed(&error))?;
        Ok(buffer)
    }

    /// Memory for a step.
    pub(crate) fn lease(&mut self, bytes: usize) -> Lease {
        let lease = match self.fault {
            None => self.pool.lease(bytes),
            Some(_) => return self.pool.nothing(),
        };
        self.note(lease).unwrap_or_else(|| self.pool.nothing())
    }

    /// Memory for a step, with these bytes: on their way when this returns.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Lease {
        self.send_filled(bytes.len(), |to| to.copy_from_slice(bytes))
    }

    /// The same, with so many bytes that are written where they are sent from.
    pub(crate) fn send_filled(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Lease {
        let lease = self.lease(bytes);
        let Some(buffer) = lease.buffer() else { return lease };
        let sent = self.staged(bytes).and_then(|staged| {
            fill(&mut staged.bytes_mut()?[..bytes]);
            staged.send(buffer, bytes)
        });
        self.note(sent);
        lease
    }

    /// The first bytes of a lease, once all commands before are done.
    pub(crate) fn receive(&mut self, from: &Lease, bytes: usize) -> Result<&[u8], BackendError> {
        if let Some(fault) = &self.fault {
            return Err(failed(fault));
        }
        let Some(buffer) = from.buffer() else {
            return Err(BackendError::Device("it failed before".to_owned()));
        };
        self.staged(bytes).map_err(|error| failed(&error))?;
        match self.staged.receive(buffer, bytes) {
            Ok(received) => Ok(received),
            Err(error) => {
                self.fault = Some(error.clone());
                Err(failed(&error))
            }
        }
    }

    /// Waits until all commands are done, and says how that went.
    pub(crate) fn settle(&mut self) -> Result<(), BackendError> {
        let finished = self.queue.finish();
        self.note(finished);
        self.fault.as_ref().map_or(Ok(()), |fault| Err(failed(fault)))
    }

    /// Launches a kernel over whole work-groups.
    pub(crate) fn launch(
        &mut self,
        (part, name): (Part, &str),
        args: &[Arg<'_>],
        global: [usize; 3],
        local: [usize; 3],
    ) {
        if self.fault.is_some() || global.contains(&0) {
            return;
        }
        let mut arguments = [Argument::U32(0); ARGS_MAX];
        for (to, arg) in arguments.iter_mut().zip(args) {
            *to = match arg {
                Arg::Buffer(buffer) => Argument::Buffer(buffer),
                Arg::U32(number) => Argument::U32(*number),
                Arg::F32(number) => Argument::F32(*number),
                Arg::Local(bytes) => Argument::Local(*bytes),
                Arg::Lease(lease) => match lease.buffer() {
                    Some(buffer) => Argument::Buffer(buffer),
                    // Memory that is not there means that a fault is noted.
                    None => return,
                },
            };
        }
        let kernel = self.programs.kernel(part, name);
        let launched =
            kernel.and_then(|kernel| kernel.launch(&arguments[..args.len()], global, local));
        self.note(launched);
    }

    /// Copies within the device or to pinned memory.
    pub(crate) fn copy(&mut self, from: (&Buffer, usize), to: (&Buffer, usize), bytes: usize) {
        if self.fault.is_none() {
            let copied = self.queue.copy(from, to, bytes);
            self.note(copied);
        }
    }

    /// The result, or none: then the failure is kept.
    fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.fault.get_or_insert(error)).ok()
    }

    /// At least so much pinned memory.
    fn staged(&mut self, bytes: usize) -> Result<&mut Pinned, Error> {
        if self.staged.bytes() < bytes {
            self.staged = Pinned::new(&self.queue, bytes.next_power_of_two())?;
        }
        Ok(&mut self.staged)
    }
}

/// Arguments of the longest list.
const ARGS_MAX: usize = 16;

/// A failure as the worker tells it.
pub(crate) fn failed(error: &Error) -> BackendError {
    BackendError::Device(error.to_string())
}

/// A size as kernels take it.
///
/// # Panics
/// Beyond 32 bits; limits of buffers keep sizes below.
pub(crate) fn u32_of(size: usize) -> u32 {
    u32::try_from(size).expect("buffers are smaller than 4 GiB, and so is all that counts in them")
}
