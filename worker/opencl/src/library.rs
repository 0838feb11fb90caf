//! Finding the library, and the devices behind it.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::Device;
use crate::error::{Error, check};
use crate::one_at_a_time::alone;
use crate::table::{Handle, Table};

/// Libraries that were opened, which are never closed: drivers leave threads behind that would run on
/// in memory that is gone.
static OPENED: Mutex<Vec<(PathBuf, Arc<Table>)>> = Mutex::new(Vec::new());
/// Where the loader is by its common name; the system's search path does the rest.
const LOADER: &str = "libOpenCL.so.1";
/// What a platform without devices, and a loader without platforms, say.
const DEVICE_NOT_FOUND: i32 = -1;
const NO_PLATFORM: i32 = -1001;
/// Every kind of device.
const DEVICE_TYPE_ALL: u64 = 0xFFFF_FFFF;
/// Platforms and devices beyond these are not looked at.
const LISTED_MAX: u32 = 64;

/// There is no OpenCL here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no OpenCL on this machine: {path} cannot be opened ({reason})", path = path.display())]
pub struct Absent {
    /// What was tried.
    pub path: PathBuf,
    /// What the system said.
    pub reason: String,
}

/// An OpenCL library, open for the rest of the process.
#[derive(Debug, Clone)]
pub struct Library {
    table: Arc<Table>,
}

impl Library {
    /// Opens the system's OpenCL loader, or another library at `path`: a loader, or a driver that can
    /// be called directly.
    ///
    /// # Errors
    /// There is none, or it lacks a call of OpenCL 2.0.
    pub fn open(path: Option<&Path>) -> Result<Self, Absent> {
        let path = path.unwrap_or(Path::new(LOADER));
        let absent = |error: libloading::Error| Absent {
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = opened.iter().find(|(known, _)| known == path) {
            return Ok(Self { table: Arc::clone(table) });
        }
        // SAFETY: an OpenCL library's initialisers expect nothing of who opens it.
        let library = unsafe { libloading::Library::new(path) }.map_err(absent)?;
        let table = Arc::new(Table::new(library).map_err(absent)?);
        opened.push((path.to_path_buf(), Arc::clone(&table)));
        Ok(Self { table })
    }

    /// Every device of every platform, in the library's order. Devices that do not answer questions
    /// are left out.
    ///
    /// # Errors
    /// Platforms or devices that cannot be listed.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        let _alone = alone();
        let mut devices = Vec::new();
        for platform in self.platforms()? {
            for id in self.of_platform(platform)? {
                devices.extend(Device::new(Arc::clone(&self.table), id).ok());
            }
        }
        Ok(devices)
    }

    fn platforms(&self) -> Result<Vec<Handle>, Error> {
        let mut found = [std::ptr::null_mut(); LISTED_MAX as usize];
        let mut count = 0;
        // SAFETY: there is room for as many as we say.
        let code = unsafe {
            (self.table.clGetPlatformIDs)(LISTED_MAX, found.as_mut_ptr(), &raw mut count)
        };
        if code == NO_PLATFORM {
            return Ok(Vec::new());
        }
        check("clGetPlatformIDs", code)?;
        Ok(found[..count.min(LISTED_MAX) as usize].to_vec())
    }

    fn of_platform(&self, platform: Handle) -> Result<Vec<Handle>, Error> {
        let mut found = [std::ptr::null_mut(); LISTED_MAX as usize];
        let (to, mut count) = (found.as_mut_ptr(), 0);
        let list = self.table.clGetDeviceIDs;
        // SAFETY: there is room for as many as we say.
        let code = unsafe { list(platform, DEVICE_TYPE_ALL, LISTED_MAX, to, &raw mut count) };
        if code == DEVICE_NOT_FOUND {
            return Ok(Vec::new());
        }
        check("clGetDeviceIDs", code)?;
        Ok(found[..count.min(LISTED_MAX) as usize].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_opencl_is_told_so_in_one_line() {
        let absent = Library::open(Some(Path::new("/nowhere/libOpenCL.so.1"))).unwrap_err();
        let said = absent.to_string();
        assert!(said.starts_with("there is no OpenCL on this machine: /nowhere/libOpenCL.so.1"));
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
