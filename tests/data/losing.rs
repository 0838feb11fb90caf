//! An OpenCL library that loses its device: everything is the real one's, until the file that
//! `TEST_LOST` names is there; then nothing comes back from the device any more.
//!
//! A test compiles it (`rustc --crate-type cdylib`), linked to the real library, whose path
//! `TEST_LOSING` gives.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

/// `CL_OUT_OF_RESOURCES`, which a device that was reset gives for everything.
const LOST: i32 = -5;
const RTLD_NOW: c_int = 2;

unsafe extern "C" {
    fn dlopen(name: *const c_char, how: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

type Read = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    u32,
    usize,
    usize,
    *mut c_void,
    u32,
    *const *mut c_void,
    *mut *mut c_void,
) -> i32;

/// As the specification declares it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clEnqueueReadBuffer(
    queue: *mut c_void,
    from: *mut c_void,
    blocking: u32,
    offset: usize,
    size: usize,
    to: *mut c_void,
    events: u32,
    list: *const *mut c_void,
    event: *mut *mut c_void,
) -> i32 {
    if std::env::var_os("TEST_LOST").is_some_and(|file| Path::new(&file).exists()) {
        return LOST;
    }
    let path = CString::new(std::env::var("TEST_LOSING").unwrap()).unwrap();
    // SAFETY: the real library, which is open already, and its call of this name and type.
    unsafe {
        let real = dlsym(dlopen(path.as_ptr(), RTLD_NOW), c"clEnqueueReadBuffer".as_ptr());
        let real: Read = std::mem::transmute(real);
        real(queue, from, blocking, offset, size, to, events, list, event)
    }
}
