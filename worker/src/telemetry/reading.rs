//! Everything that a card says at one moment.

use crate::telemetry::card::Card;
use crate::telemetry::client::Clients;
use crate::telemetry::clock::Clock;
use crate::telemetry::hwmon::Sensors;
use crate::telemetry::link::Link;

/// One reading of a card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Whether the card is still there. Without it the rest is empty.
    pub is_present: bool,
    /// Energy, limits, heat, fans.
    pub sensors: Sensors,
    /// Clocks and what holds them back.
    pub clocks: Vec<Clock>,
    /// What this process takes of it.
    pub clients: Clients,
    /// How it is connected.
    pub link: Option<Link>,
    /// How much memory it has.
    pub memory_bytes: Option<u64>,
}

impl Card {
    /// Reads everything now. Each value is a small file of the kernel's.
    #[must_use]
    pub fn read(&self) -> Reading {
        if !self.is_present() {
            return Reading::default();
        }
        Reading {
            is_present: true,
            sensors: self.sensors(),
            clocks: self.clocks(),
            clients: self.clients(),
            link: self.link(),
            memory_bytes: self.memory_bytes(),
        }
    }
}
