//! A device and what it says about itself.

#![expect(unsafe_code, reason = "calls of a foreign library")]

use std::ffi::c_void;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, check};
use crate::pci::PciAddress;
use crate::table::{Handle, Table};

/// Intel's vendor number, as PCI has it.
const INTEL: u32 = 0x8086;
/// Text beyond this is cut.
const TEXT_MAX: usize = 1 << 16;
/// Sizes of sub-groups that a device may list.
const SIZES_MAX: usize = 16;

const DEVICE_TYPE: u32 = 0x1000;
const DEVICE_VENDOR_ID: u32 = 0x1001;
const DEVICE_COMPUTE_UNITS_MAX: u32 = 0x1002;
const DEVICE_WORK_GROUP_MAX: u32 = 0x1004;
const DEVICE_ALLOCATION_MAX: u32 = 0x1010;
const DEVICE_GLOBAL_MEMORY: u32 = 0x101F;
const DEVICE_LOCAL_MEMORY: u32 = 0x1023;
const DEVICE_SINGLE_FP_CONFIG: u32 = 0x101B;
const DEVICE_NAME: u32 = 0x102B;
const DRIVER_VERSION: u32 = 0x102D;
const DEVICE_VERSION: u32 = 0x102F;
const DEVICE_EXTENSIONS: u32 = 0x1030;
const DEVICE_UNIFIED_MEMORY: u32 = 0x1035;
const DEVICE_UUID_KHR: u32 = 0x106A;
const DEVICE_SUB_GROUP_SIZES_INTEL: u32 = 0x4108;
const DEVICE_PCI_KHR: u32 = 0x410F;
/// `CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT`
const DIVIDES_CORRECTLY: u64 = 1 << 7;

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A card of its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// The host's processor.
    Cpu,
    /// Anything else.
    Other,
}

/// A device's own number, the same after every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = ();

    /// 32 hexadecimal digits, with or without dashes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| ())?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// A device, asked once about everything that matters here.
#[derive(Clone)]
pub struct Device {
    pub(crate) table: Arc<Table>,
    pub(crate) id: Handle,
    /// As it calls itself.
    pub name: String,
    /// The driver's version.
    pub driver: String,
    /// The OpenCL version it has, as text.
    pub version: String,
    /// What kind it is.
    pub kind: DeviceKind,
    /// Whether Intel made it.
    pub intel: bool,
    /// Where it is, if its driver says.
    pub pci: Option<PciAddress>,
    /// Its number, if its driver says.
    pub uuid: Option<Uuid>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of the largest buffer.
    pub buffer_bytes_max: u64,
    /// Bytes that a work-group shares.
    pub local_bytes: u64,
    /// Work-items of the largest work-group.
    pub work_group_max: usize,
    /// Compute units: Xe cores times their vector engines, or threads of a processor.
    pub compute_units: u32,
    /// Whether quotients and square roots can be rounded correctly.
    pub divides_correctly: bool,
    /// Work-items that a kernel may ask to run in step, if its driver says.
    pub sub_group_sizes: Vec<usize>,
    extensions: Vec<String>,
}

// SAFETY: a device's handle may be used by any thread; the specification says so of all calls but
// `clSetKernelArg`.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, driver, kind, pci, .. } = self;
        f.debug_struct("Device")
            .field("name", name)
            .field("driver", driver)
            .field("kind", kind)
            .field("pci", pci)
            .finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn new(table: Arc<Table>, id: Handle) -> Result<Self, Error> {
        let ask = Ask { table: &table, id };
        let extensions = ask.text(DEVICE_EXTENSIONS)?;
        let extensions: Vec<String> = extensions.split_whitespace().map(str::to_owned).collect();
        let has = |name: &str| extensions.iter().any(|it| it == name);
        let unified = ask.number::<u32>(DEVICE_UNIFIED_MEMORY)? != 0;
        let kind = match ask.number::<u64>(DEVICE_TYPE)? {
            // A simulator says that it is everything.
            kinds if kinds & 2 != 0 => DeviceKind::Cpu,
            kinds if kinds & 4 != 0 && unified => DeviceKind::Integrated,
            kinds if kinds & 4 != 0 => DeviceKind::Discrete,
            _ => DeviceKind::Other,
        };
        let pci = has("cl_khr_pci_bus_info").then(|| ask.pci()).transpose()?;
        let uuid = has("cl_khr_device_uuid").then(|| ask.number::<[u8; 16]>(DEVICE_UUID_KHR));
        let sizes = has("cl_intel_required_subgroup_size").then(|| ask.sizes()).transpose()?;
        Ok(Self {
            sub_group_sizes: sizes.unwrap_or_default(),
            name: ask.text(DEVICE_NAME)?,
            driver: ask.text(DRIVER_VERSION)?,
            version: ask.text(DEVICE_VERSION)?,
            kind,
            intel: ask.number::<u32>(DEVICE_VENDOR_ID)? == INTEL,
            pci,
            uuid: uuid.transpose()?.map(Uuid),
            memory_bytes: ask.number(DEVICE_GLOBAL_MEMORY)?,
            buffer_bytes_max: ask.number(DEVICE_ALLOCATION_MAX)?,
            local_bytes: ask.number(DEVICE_LOCAL_MEMORY)?,
            work_group_max: ask.number(DEVICE_WORK_GROUP_MAX)?,
            compute_units: ask.number(DEVICE_COMPUTE_UNITS_MAX)?,
            divides_correctly: ask.number::<u64>(DEVICE_SINGLE_FP_CONFIG)? & DIVIDES_CORRECTLY != 0,
            extensions,
            id,
            table,
        })
    }

    /// Whether the device has an extension.
    #[must_use]
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|it| it == extension)
    }
}

/// Questions to a device.
struct Ask<'a> {
    table: &'a Table,
    id: Handle,
}

/// Plain numbers that a device answers with: any bits are a value.
trait Plain: Default + Copy {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for usize {}
impl Plain for [u8; 16] {}
impl Plain for [u32; 4] {}

impl Ask<'_> {
    fn number<T: Plain>(&self, what: u32) -> Result<T, Error> {
        let mut value = T::default();
        let (size, to) = (size_of::<T>(), (&raw mut value).cast::<c_void>());
        let ask = self.table.clGetDeviceInfo;
        // SAFETY: there is room for as many bytes as we say, and any bits are a `T`.
        let code = unsafe { ask(self.id, what, size, to, std::ptr::null_mut()) };
        check("clGetDeviceInfo", code)?;
        Ok(value)
    }

    fn text(&self, what: u32) -> Result<String, Error> {
        let (ask, none) = (self.table.clGetDeviceInfo, std::ptr::null_mut());
        let mut size = 0;
        // SAFETY: only the size is asked for.
        let code = unsafe { ask(self.id, what, 0, none, &raw mut size) };
        check("clGetDeviceInfo", code)?;
        let mut bytes = vec![0_u8; size.min(TEXT_MAX)];
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: there is room for as many bytes as we say.
        let code = unsafe { ask(self.id, what, bytes.len(), to, std::ptr::null_mut()) };
        check("clGetDeviceInfo", code)?;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).trim().to_owned())
    }

    fn sizes(&self) -> Result<Vec<usize>, Error> {
        let mut sizes = [0_usize; SIZES_MAX];
        let (size, to) = (size_of_val(&sizes), sizes.as_mut_ptr().cast::<c_void>());
        let (ask, mut given) = (self.table.clGetDeviceInfo, 0);
        // SAFETY: there is room for as many bytes as we say, and any bits are a number.
        let code = unsafe { ask(self.id, DEVICE_SUB_GROUP_SIZES_INTEL, size, to, &raw mut given) };
        check("clGetDeviceInfo", code)?;
        Ok(sizes.into_iter().take(given / size_of::<usize>()).collect())
    }

    fn pci(&self) -> Result<PciAddress, Error> {
        let [domain, bus, device, function] = self.number::<[u32; 4]>(DEVICE_PCI_KHR)?;
        Ok(PciAddress { domain, bus, device, function })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_with_and_without_dashes() {
        let text = "86807106-0a00-0332-faff-fffb8b1f0000";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(text.replace('-', "").parse(), Ok(uuid));
        assert_eq!("86807106".parse::<Uuid>(), Err(()));
    }
}
