//! Programs: from source, or from a file that an earlier run left.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

use crate::cache;
use crate::context::Core;
use crate::error::{Error, check};
use crate::one_at_a_time::alone;
use crate::queue::Queue;
use crate::table::Handle;

const BUILD_LOG: u32 = 0x1183;
const BINARY_SIZES: u32 = 0x1165;
const BINARIES: u32 = 0x1166;
/// Bytes of a compiler's log that are worth repeating.
const LOG_MAX: usize = 4096;
/// The code of [`Error::Call`] for arguments that OpenCL would not take.
const INVALID_VALUE: i32 = -30;

/// A compiled program.
pub struct Program {
    pub(crate) core: Arc<Core>,
    pub(crate) handle: Handle,
    cached: bool,
}

// SAFETY: programs may be used by any thread, says the specification.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("cached", &self.cached).finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles `source`, unless `cache` has what an earlier run made of the same source and options
    /// for the same device and driver; keeps the result there.
    ///
    /// # Errors
    /// [`Error::Build`] with what the compiler says.
    pub fn build(
        queue: &Queue,
        source: &str,
        options: &str,
        cache: Option<&Path>,
    ) -> Result<Self, Error> {
        let path = cache.map(|folder| cache::path(folder, queue.device(), source, options));
        if let Some(binary) = path.as_deref().and_then(cache::load)
            && let Ok(program) = Self::from_binary(queue, &binary, options)
        {
            return Ok(program);
        }
        let program = Self::from_source(queue, source, options)?;
        if let Some(path) = path
            && let Ok(binary) = program.binary()
        {
            // An entry that cannot be written is made again in the next run.
            let _stored = cache::store(&path, &binary);
        }
        Ok(program)
    }

    /// Whether it came from the cache.
    #[must_use]
    pub fn cached(&self) -> bool {
        self.cached
    }

    fn from_source(queue: &Queue, source: &str, options: &str) -> Result<Self, Error> {
        let (create, mut code) = (queue.core.table().clCreateProgramWithSource, 0);
        let (text, length) = (source.as_ptr().cast::<c_char>(), source.len());
        // SAFETY: one text of so many bytes; it is copied.
        let handle = unsafe {
            create(queue.core.context, 1, &raw const text, &raw const length, &raw mut code)
        };
        check("clCreateProgramWithSource", code)?;
        let program = Self { core: Arc::clone(&queue.core), handle, cached: false };
        program.compile(options)?;
        Ok(program)
    }

    fn from_binary(queue: &Queue, binary: &[u8], options: &str) -> Result<Self, Error> {
        let (create, mut code) = (queue.core.table().clCreateProgramWithBinary, 0);
        let (core, bytes, length) = (&queue.core, binary.as_ptr(), binary.len());
        let device = &raw const core.device.id;
        // SAFETY: one binary of so many bytes for one device; it is copied.
        let handle = unsafe {
            let (length, bytes) = (&raw const length, &raw const bytes);
            create(core.context, 1, device, length, bytes, null_mut(), &raw mut code)
        };
        check("clCreateProgramWithBinary", code)?;
        let program = Self { core: Arc::clone(&queue.core), handle, cached: true };
        program.compile(options)?;
        Ok(program)
    }

    fn compile(&self, options: &str) -> Result<(), Error> {
        let options = CString::new(options)
            .map_err(|_| Error::Call { call: "clBuildProgram", code: INVALID_VALUE })?;
        let _alone = alone();
        let (build, device) = (self.core.table().clBuildProgram, &raw const self.core.device.id);
        // SAFETY: one device, and options that end with a 0.
        let code = unsafe { build(self.handle, 1, device, options.as_ptr(), None, null_mut()) };
        match check("clBuildProgram", code) {
            Err(_) if code == -11 => Err(Error::Build { log: self.log() }),
            done => done,
        }
    }

    fn log(&self) -> String {
        let mut bytes = vec![0_u8; LOG_MAX];
        let (ask, device) = (self.core.table().clGetProgramBuildInfo, self.core.device.id);
        let mut size = 0;
        // SAFETY: only the size is asked for.
        unsafe { ask(self.handle, device, BUILD_LOG, 0, null_mut(), &raw mut size) };
        bytes.resize(size, 0);
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: there is room for as many bytes as we say.
        let code = unsafe { ask(self.handle, device, BUILD_LOG, size, to, null_mut()) };
        if code != 0 {
            return "it does not say why".to_owned();
        }
        bytes.truncate(LOG_MAX);
        String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned()
    }

    fn binary(&self) -> Result<Vec<u8>, Error> {
        let (ask, mut size) = (self.core.table().clGetProgramInfo, 0_usize);
        let to = (&raw mut size).cast::<c_void>();
        // SAFETY: one device, hence one size.
        let code = unsafe { ask(self.handle, BINARY_SIZES, size_of::<usize>(), to, null_mut()) };
        check("clGetProgramInfo", code)?;
        let mut binary = vec![0_u8; size];
        let mut start = binary.as_mut_ptr();
        let to = (&raw mut start).cast::<c_void>();
        // SAFETY: one device, hence one address, where there is room for the size it gave.
        let code = unsafe { ask(self.handle, BINARIES, size_of::<*mut u8>(), to, null_mut()) };
        check("clGetProgramInfo", code)?;
        Ok(binary)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let release = self.core.table().clReleaseProgram;
        // SAFETY: this is the only owner, and its last use.
        unsafe { release(self.handle) };
    }
}
