//! The link between a card and the machine.

use std::path::Path;

use opencl::PciAddress;

use crate::telemetry::card::Card;
use crate::telemetry::machine::{number, text};

/// One end of a link of PCI Express: what it does now, and the most that it could do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Port {
    /// Transfers a second and lane.
    pub transfers_per_second: f64,
    /// Lanes.
    pub width: u32,
    /// Most transfers a second and lane.
    pub transfers_per_second_max: f64,
    /// Most lanes.
    pub width_max: u32,
}

/// The link that a card is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The end that belongs to the card.
    pub card: Port,
    /// Where that end is: on an Arc, a switch on the card rather than the graphics chip.
    pub address: PciAddress,
    /// The end that belongs to the machine; none where it does not say.
    pub slot: Option<Port>,
}

impl Card {
    /// The link to the machine.
    ///
    /// The graphics chip of an Arc sits behind a switch on the card, and says of the link within the
    /// card that it is one lane of the first generation. So the first device on the way up that is
    /// more than that is where the card really ends.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let mut folders = self.folder().ancestors().filter_map(|folder| {
            let address = folder.file_name()?.to_str()?.parse::<PciAddress>().ok()?;
            Some((folder, address))
        });
        let own = Port::read(self.folder());
        let outer = folders.find_map(|(folder, address)| {
            let card = Port::read(folder)?;
            let is_real = card.width_max > 1 || card.transfers_per_second_max > 2.5e9;
            is_real.then(|| Link { card, address, slot: folder.parent().and_then(Port::read) })
        });
        outer.or_else(|| Some(Link { card: own?, address: self.address, slot: None }))
    }
}

impl Port {
    fn read(folder: &Path) -> Option<Self> {
        let speed = |name| {
            // As in "16.0 GT/s PCIe"; a link that is down says "Unknown".
            let text = text(&folder.join(name))?;
            let giga: f64 = text.split_whitespace().next()?.parse().ok()?;
            giga.is_finite().then_some(giga * 1e9)
        };
        Some(Self {
            transfers_per_second: speed("current_link_speed")?,
            width: number(&folder.join("current_link_width"))?,
            transfers_per_second_max: speed("max_link_speed")?,
            width_max: number(&folder.join("max_link_width"))?,
        })
    }

    /// Bytes a second in one direction, before what packets cost.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        // The first two generations send 10 bits for 8, the next three 130 for 128.
        let of_a_transfer =
            if self.transfers_per_second < 8e9 { 8.0 / 10.0 } else { 128.0 / 130.0 };
        self.transfers_per_second * of_a_transfer / 8.0 * f64::from(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_what_its_lanes_and_their_code_allow() {
        let port = |transfers_per_second, width| Port {
            transfers_per_second,
            width,
            transfers_per_second_max: 16e9,
            width_max: 16,
        };
        assert!((port(2.5e9, 1).bytes_per_second() - 250e6).abs() < 1.0);
        assert!((port(16e9, 16).bytes_per_second() / 1e9 - 31.5).abs() < 0.1);
    }
}
