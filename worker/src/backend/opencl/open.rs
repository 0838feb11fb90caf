//! Taking a device.

use std::path::PathBuf;

use opencl::{Device, DeviceChoice, Library, Queue, choose};

use crate::backend::opencl::OpenClBackend;
use crate::backend::opencl::driver::{Driver, failed};
use crate::backend::opencl::steps::Arrays;
use crate::backend::{BackendError, Capabilities};

/// Which device, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenClConfig {
    /// Another library than the system's OpenCL loader.
    pub library: Option<PathBuf>,
    /// Which device.
    pub device: DeviceChoice,
    /// Where compiled programs are kept between runs.
    pub programs: Option<PathBuf>,
}

impl OpenClConfig {
    /// The devices that fit, see [`choose`].
    ///
    /// # Errors
    /// There is no OpenCL, or no such device: one line that says so.
    pub fn devices(&self) -> Result<Vec<Device>, BackendError> {
        let failure = |error: &dyn std::error::Error| BackendError::Absent(error.to_string());
        let library = Library::open(self.library.as_deref()).map_err(|error| failure(&error))?;
        let devices = library.devices().map_err(|error| failure(&error))?;
        choose(self.device, devices).map_err(|error| failure(&error))
    }

    /// What the first of them is.
    ///
    /// # Errors
    /// As [`OpenClConfig::devices`].
    pub fn capabilities(&self) -> Result<Capabilities, BackendError> {
        Ok(capabilities(&self.devices()?[0]))
    }
}

impl OpenClBackend {
    /// Takes the device of the rank that has this place among the `ranks_here` of its machine: they take one
    /// each, in order, and begin again where there are more ranks than devices.
    ///
    /// # Errors
    /// [`BackendError::Absent`] if there is none, [`BackendError::Device`] if it cannot be taken.
    pub fn new(
        config: &OpenClConfig,
        (place, ranks_here): (usize, usize),
    ) -> Result<Self, BackendError> {
        let devices = config.devices()?;
        let queue = Queue::open(&devices[place % devices.len()]);
        let queue = queue.map_err(|error| failed(&error))?;
        let driver = Driver::new(queue, config.programs.clone()).map_err(|error| failed(&error))?;
        Ok(Self {
            driver,
            arrays: Arrays::default(),
            sharing: ranks_here.div_ceil(devices.len()).max(1),
        })
    }
}

/// What a device is.
pub(crate) fn capabilities(device: &Device) -> Capabilities {
    let place = device.pci.map_or(String::new(), |address| format!(" at {address}"));
    Capabilities {
        backend: "opencl",
        device: format!("{}{place}", device.name),
        threads: device.compute_units as usize,
        memory_bytes: device.memory_bytes,
    }
}
