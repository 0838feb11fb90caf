//! Kernels: arguments set, limits checked, launched.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::buffer::Buffer;
use crate::context::Core;
use crate::error::{Error, check};
use crate::program::Program;
use crate::table::Handle;

const NUM_ARGS: u32 = 0x1191;
const WORK_GROUP_SIZE: u32 = 0x11B0;
const LOCAL_MEM_SIZE: u32 = 0x11B2;

/// What a kernel is called with.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// `global T *`
    Buffer(&'a Buffer),
    /// `uint`
    U32(u32),
    /// `float`
    F32(f32),
    /// `local T *`: so many bytes.
    Local(usize),
}

/// A kernel of a program.
pub struct Kernel {
    core: Arc<Core>,
    handle: Handle,
    name: String,
    arguments: usize,
    work_group_max: usize,
    /// Bytes of local memory that it declares itself.
    local_bytes: u64,
}

// SAFETY: a kernel may be used by any thread, one at a time: launching borrows it mutably.
unsafe impl Send for Kernel {}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kernel {
    /// The kernel of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn new(program: &Program, name: &str) -> Result<Self, Error> {
        let invalid = Error::Call { call: "clCreateKernel", code: -46 };
        let (symbol, mut code) = (CString::new(name).map_err(|_| invalid)?, 0);
        let core = Arc::clone(&program.core);
        let create = core.table().clCreateKernel;
        // SAFETY: the program is built, and the name ends with a 0.
        let handle = unsafe { create(program.handle, symbol.as_ptr(), &raw mut code) };
        check("clCreateKernel", code)?;
        let name = name.to_owned();
        let mut kernel =
            Self { core, handle, name, arguments: 0, work_group_max: 0, local_bytes: 0 };
        kernel.arguments = kernel.argument_count()? as usize;
        kernel.work_group_max = kernel.of_device(WORK_GROUP_SIZE)?;
        kernel.local_bytes = kernel.of_device(LOCAL_MEM_SIZE)?;
        Ok(kernel)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it once for each item of `global`, which is whole work-groups of `local`.
    ///
    /// # Errors
    /// [`Error::Limit`]; or the device cannot take it.
    ///
    /// # Panics
    /// On another number of arguments than the kernel has, or a `global` that is not whole
    /// work-groups: the caller's sums are wrong.
    pub fn launch(
        &mut self,
        arguments: &[Argument<'_>],
        global: [usize; 3],
        local: [usize; 3],
    ) -> Result<(), Error> {
        assert_eq!(arguments.len(), self.arguments, "arguments of {}", self.name);
        for (global, local) in global.iter().zip(local) {
            assert!(global.is_multiple_of(local), "{} runs in whole work-groups", self.name);
        }
        let group: usize = local.iter().product();
        let dynamic: usize = arguments.iter().map(Argument::local_bytes).sum();
        self.core.limits.check_launch(group as u64, self.local_bytes + dynamic as u64)?;
        if group > self.work_group_max {
            let (wanted, most) = (group as u64, self.work_group_max as u64);
            return Err(Error::Limit { what: "this kernel's work-group", wanted, most });
        }
        if global.contains(&0) {
            return Ok(());
        }
        for (index, argument) in arguments.iter().enumerate() {
            self.set(u32::try_from(index).unwrap_or(u32::MAX), argument)?;
        }
        let (enqueue, queue) = (self.core.table().clEnqueueNDRangeKernel, self.core.queue);
        let (global, local) = (global.as_ptr(), local.as_ptr());
        // SAFETY: three dimensions, and all arguments are set.
        let code =
            unsafe { enqueue(queue, self.handle, 3, null(), global, local, 0, null(), null_mut()) };
        check("clEnqueueNDRangeKernel", code)?;
        self.core.launches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn set(&self, index: u32, argument: &Argument<'_>) -> Result<(), Error> {
        let (size, value) = match argument {
            Argument::Buffer(buffer) => {
                assert!(Arc::ptr_eq(&buffer.core, &self.core), "a buffer of the kernel's queue");
                (size_of::<Handle>(), (&raw const buffer.handle).cast::<c_void>())
            }
            Argument::U32(number) => (size_of::<u32>(), std::ptr::from_ref(number).cast()),
            Argument::F32(number) => (size_of::<f32>(), std::ptr::from_ref(number).cast()),
            Argument::Local(bytes) => (*bytes, null()),
        };
        // SAFETY: so many bytes are at that place, and are copied; local memory has none.
        let code = unsafe { (self.core.table().clSetKernelArg)(self.handle, index, size, value) };
        check("clSetKernelArg", code)
    }

    fn argument_count(&self) -> Result<u32, Error> {
        let mut count = 0_u32;
        let to = (&raw mut count).cast::<c_void>();
        let ask = self.core.table().clGetKernelInfo;
        // SAFETY: there is room for as many bytes as we say.
        let code = unsafe { ask(self.handle, NUM_ARGS, size_of::<u32>(), to, null_mut()) };
        check("clGetKernelInfo", code)?;
        Ok(count)
    }

    fn of_device<T: Whole>(&self, what: u32) -> Result<T, Error> {
        let mut value = T::default();
        let (size, to) = (size_of::<T>(), (&raw mut value).cast::<c_void>());
        let (ask, device) = (self.core.table().clGetKernelWorkGroupInfo, self.core.device.id);
        // SAFETY: there is room for as many bytes as we say, and any bits are a `T`.
        let code = unsafe { ask(self.handle, device, what, size, to, null_mut()) };
        check("clGetKernelWorkGroupInfo", code)?;
        Ok(value)
    }
}

/// Whole numbers that OpenCL answers with.
trait Whole: Default {}
impl Whole for usize {}
impl Whole for u64 {}

impl Argument<'_> {
    fn local_bytes(&self) -> usize {
        if let Self::Local(bytes) = self { *bytes } else { 0 }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let release = self.core.table().clReleaseKernel;
        // SAFETY: this is the only owner, and its last use.
        unsafe { release(self.handle) };
    }
}
