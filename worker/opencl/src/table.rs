//! The calls that we make, as the OpenCL 3.0 specification declares them.

#![expect(unsafe_code, reason = "a table of foreign functions")]

use std::ffi::{c_char, c_void};

use libloading::Library;

/// Any of OpenCL's objects.
pub(crate) type Handle = *mut c_void;
pub(crate) type BuildCallback = Option<extern "C" fn(Handle, *mut c_void)>;
pub(crate) type ContextCallback =
    Option<extern "C" fn(*const c_char, *const c_void, usize, *mut c_void)>;

macro_rules! table {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// Addresses of the calls, valid while the library is open, which it is as long as this is.
        #[expect(non_snake_case, reason = "as the specification names them")]
        pub(crate) struct Table {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) -> $result,)*
            _open: Library,
        }

        impl Table {
            /// Looks all calls up.
            pub(crate) fn new(library: Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0").as_bytes();
                        // SAFETY: the type is the one that the specification gives this call.
                        *unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> $result>(symbol) }?
                    },)*
                    _open: library,
                })
            }
        }
    };
}

table! {
    clGetPlatformIDs(u32, *mut Handle, *mut u32) -> i32;
    clGetDeviceIDs(Handle, u64, u32, *mut Handle, *mut u32) -> i32;
    clGetDeviceInfo(Handle, u32, usize, *mut c_void, *mut usize) -> i32;
    clCreateContext(*const isize, u32, *const Handle, ContextCallback, *mut c_void, *mut i32) -> Handle;
    clReleaseContext(Handle) -> i32;
    clCreateCommandQueueWithProperties(Handle, Handle, *const u64, *mut i32) -> Handle;
    clReleaseCommandQueue(Handle) -> i32;
    clCreateBuffer(Handle, u64, usize, *mut c_void, *mut i32) -> Handle;
    clReleaseMemObject(Handle) -> i32;
    clCreateProgramWithSource(Handle, u32, *const *const c_char, *const usize, *mut i32) -> Handle;
    clCreateProgramWithBinary(Handle, u32, *const Handle, *const usize, *const *const u8, *mut i32, *mut i32) -> Handle;
    clBuildProgram(Handle, u32, *const Handle, *const c_char, BuildCallback, *mut c_void) -> i32;
    clGetProgramBuildInfo(Handle, Handle, u32, usize, *mut c_void, *mut usize) -> i32;
    clGetProgramInfo(Handle, u32, usize, *mut c_void, *mut usize) -> i32;
    clReleaseProgram(Handle) -> i32;
    clCreateKernel(Handle, *const c_char, *mut i32) -> Handle;
    clReleaseKernel(Handle) -> i32;
    clGetKernelInfo(Handle, u32, usize, *mut c_void, *mut usize) -> i32;
    clGetKernelWorkGroupInfo(Handle, Handle, u32, usize, *mut c_void, *mut usize) -> i32;
    clSetKernelArg(Handle, u32, usize, *const c_void) -> i32;
    clEnqueueNDRangeKernel(Handle, Handle, u32, *const usize, *const usize, *const usize, u32, *const Handle, *mut Handle) -> i32;
    clEnqueueReadBuffer(Handle, Handle, u32, usize, usize, *mut c_void, u32, *const Handle, *mut Handle) -> i32;
    clEnqueueWriteBuffer(Handle, Handle, u32, usize, usize, *const c_void, u32, *const Handle, *mut Handle) -> i32;
    clEnqueueCopyBuffer(Handle, Handle, Handle, usize, usize, usize, u32, *const Handle, *mut Handle) -> i32;
    clEnqueueMapBuffer(Handle, Handle, u32, u64, usize, usize, u32, *const Handle, *mut Handle, *mut i32) -> *mut c_void;
    clEnqueueUnmapMemObject(Handle, Handle, *mut c_void, u32, *const Handle, *mut Handle) -> i32;
    clWaitForEvents(u32, *const Handle) -> i32;
    clReleaseEvent(Handle) -> i32;
    clFinish(Handle) -> i32;
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}
