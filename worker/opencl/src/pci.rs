//! Where a device sits.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function, such as `0000:03:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Which of the machine's trees of buses; usually 0.
    pub domain: u32,
    /// Which bus of it, under 256.
    pub bus: u32,
    /// Which device of the bus, under 32.
    pub device: u32,
    /// Which part of the device, under 8.
    pub function: u32,
}

/// What is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI address such as 0000:03:00.0")]
pub struct PciAddressError(String);

impl FromStr for PciAddress {
    type Err = PciAddressError;

    /// As `lspci` and the kernel write it. The domain may be left out; it is 0 then.
    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        let parse = || {
            let (place, function) = text.split_once('.')?;
            let mut parts = place.rsplit(':');
            let (device, bus) = (parts.next()?, parts.next()?);
            let domain = parts.next().unwrap_or("0000");
            // Bridges of some machines have domains beyond four digits.
            let address = Self {
                domain: hexadecimal(domain, 4..=8)?,
                bus: hexadecimal(bus, 2..=2)?,
                device: hexadecimal(device, 2..=2)?,
                function: hexadecimal(function, 1..=1)?,
            };
            let is_one = parts.next().is_none() && address.device < 32 && address.function < 8;
            is_one.then_some(address)
        };
        parse().ok_or_else(|| PciAddressError(text.chars().take(64).collect()))
    }
}

fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(text, 16).ok();
    number.filter(|_| is_number && digits.contains(&text.len()))
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let address: PciAddress = "0001:a3:1f.7".parse().unwrap();
        assert_eq!(address, PciAddress { domain: 1, bus: 0xa3, device: 31, function: 7 });
        assert_eq!(address.to_string(), "0001:a3:1f.7");
        assert_eq!("03:00.0".parse::<PciAddress>().unwrap().to_string(), "0000:03:00.0");
        assert_eq!("10000:e1:00.0".parse::<PciAddress>().unwrap().to_string(), "10000:e1:00.0");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let wrong = ["", "03", "03:00", "3:00.0", "0000:03:20.0", "0000:03:00.8", "x:03:00.0"];
        let odd = ["1:0000:03:00.0", "0000:+3:00.0", "0000:03:00.00", "100:00.0", "0:0:0:0.0"];
        for text in wrong.into_iter().chain(odd) {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }
}
