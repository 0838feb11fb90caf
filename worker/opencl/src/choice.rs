//! Which of the devices.

use std::fmt;
use std::str::FromStr;

use crate::device::{Device, DeviceKind, Uuid};
use crate::pci::PciAddress;

/// How a device is named by who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// An Arc card; where there is none, an integrated GPU of Intel's.
    #[default]
    Auto,
    /// The host's processor as an OpenCL device: for tests.
    Cpu,
    /// The card at an address.
    Pci(PciAddress),
    /// The device of a number.
    Uuid(Uuid),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pci, uuid) = (text.parse().map(Self::Pci).ok(), text.parse().map(Self::Uuid).ok());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => pci.or(uuid).ok_or_else(|| {
                format!("'{text}' is not auto, cpu, a PCI address such as 0000:03:00.0, or a UUID")
            }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Pci(address) => write!(f, "{address}"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// No device is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no OpenCL device is '{wanted}'; there is {found}")]
pub struct NoDevice {
    wanted: DeviceChoice,
    found: String,
}

/// The devices that a choice allows, the best first, those alike in order of their addresses: ranks
/// that share a machine take one each.
///
/// # Errors
/// There is none.
pub fn choose(wanted: DeviceChoice, devices: Vec<Device>) -> Result<Vec<Device>, NoDevice> {
    let found: Vec<String> = devices.iter().map(described).collect();
    let mut fitting: Vec<Device> =
        devices.into_iter().filter(|device| fits(wanted, device)).collect();
    fitting
        .sort_by_key(|device| (rank(device), device.pci, std::cmp::Reverse(device.memory_bytes)));
    // Other platforms may show the same card again.
    fitting.dedup_by(|a, b| a.pci.is_some() && a.pci == b.pci);
    if let Some(best) = fitting.first().map(rank) {
        fitting.retain(|device| rank(device) == best);
        return Ok(fitting);
    }
    let found = if found.is_empty() { "no device at all".to_owned() } else { found.join(", ") };
    Err(NoDevice { wanted, found })
}

fn fits(wanted: DeviceChoice, device: &Device) -> bool {
    let gpu = matches!(device.kind, DeviceKind::Discrete | DeviceKind::Integrated);
    match wanted {
        DeviceChoice::Auto => gpu && device.intel,
        DeviceChoice::Cpu => device.kind == DeviceKind::Cpu,
        DeviceChoice::Pci(address) => device.pci == Some(address),
        DeviceChoice::Uuid(uuid) => device.uuid == Some(uuid),
    }
}

/// Less is better.
fn rank(device: &Device) -> u8 {
    match device.kind {
        DeviceKind::Discrete => 0,
        DeviceKind::Integrated => 1,
        DeviceKind::Cpu => 2,
        DeviceKind::Other => 3,
    }
}

fn described(device: &Device) -> String {
    match (device.pci, device.uuid) {
        (Some(address), _) => format!("{} at {address}", device.name),
        (None, Some(uuid)) => format!("{} of UUID {uuid}", device.name),
        (None, None) => device.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_and_written_alike() {
        let uuid = "86807106-0a00-0332-faff-fffb8b1f0000";
        for text in ["auto", "cpu", "0000:03:00.0", uuid] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        let said = "0".parse::<DeviceChoice>().unwrap_err();
        assert!(said.contains("PCI address"), "never by an index: {said}");
    }
}
