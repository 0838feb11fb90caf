//! What the machine says of itself, before anybody judges it.

use std::io::ErrorKind;

use opencl::Device;
use serde::Serialize;
use worker::telemetry::{Card, Clock, Driver, Link, Machine};

/// Everything that was found. Field names are what scripts read.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Survey {
    /// As `uname -r` says it.
    pub(super) kernel: Option<String>,
    /// Intel's cards, by address.
    pub(super) cards: Vec<CardSurvey>,
    /// What OpenCL has for the cards; none where files describe another machine than this.
    pub(super) opencl: Option<OpenClSurvey>,
}

/// What OpenCL has for the cards.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct OpenClSurvey {
    /// Why there is nothing.
    pub(super) absent: Option<String>,
    /// Its devices.
    pub(super) devices: Vec<OpenClDevice>,
}

/// A device of OpenCL's.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OpenClDevice {
    pub(super) name: String,
    /// The driver's version.
    pub(super) driver: String,
    /// Where it is, where its driver says.
    pub(super) pci: Option<String>,
}

/// One card.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CardSurvey {
    pub(super) pci: String,
    pub(super) name: String,
    /// Whether it has memory of its own.
    pub(super) discrete: bool,
    /// The kernel's driver.
    pub(super) driver: Option<String>,
    /// What programs open.
    pub(super) render_node: Option<String>,
    /// Why they cannot.
    pub(super) locked: Option<Locked>,
    pub(super) memory_bytes: Option<u64>,
    /// The window into its memory.
    pub(super) memory_bar_bytes: Option<u64>,
    pub(super) memory_bar_resizable: bool,
    pub(super) link: Option<LinkSurvey>,
    pub(super) clock_limit_hertz: Option<f64>,
    pub(super) clock_hardware_max_hertz: Option<f64>,
    /// What holds its clock back now.
    pub(super) throttled: Vec<String>,
    /// The hottest of its sensors.
    pub(super) celsius_max: Option<f64>,
}

/// Why a render node cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Locked {
    /// It is not there.
    Missing,
    /// This user may not.
    Forbidden,
    /// Anything else.
    Broken,
}

/// The link of a card.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct LinkSurvey {
    pub(super) transfers_per_second: f64,
    pub(super) width: u32,
    /// What the card can do.
    pub(super) transfers_per_second_max: f64,
    pub(super) width_max: u32,
    /// What the slot can do, where it says.
    pub(super) slot_width_max: Option<u32>,
    /// In one direction.
    pub(super) bytes_per_second: f64,
}

impl Survey {
    /// Asks the kernel.
    pub(super) fn of(machine: &Machine) -> Self {
        let cards = machine.cards();
        Self {
            kernel: machine.kernel(),
            cards: cards.iter().map(CardSurvey::of).collect(),
            opencl: None,
        }
    }

    /// Cards with memory of their own.
    pub(super) fn discrete(&self) -> impl Iterator<Item = &CardSurvey> {
        self.cards.iter().filter(|card| card.discrete)
    }
}

impl OpenClSurvey {
    /// `opened` is what a look for devices came to.
    pub(super) fn of(opened: &anyhow::Result<Vec<Device>>) -> Self {
        let device = |device: &Device| OpenClDevice {
            name: device.name.clone(),
            driver: device.driver.clone(),
            pci: device.pci.map(|pci| pci.to_string()),
        };
        match opened {
            Ok(devices) => Self { absent: None, devices: devices.iter().map(device).collect() },
            Err(error) => Self { absent: Some(format!("{error:#}")), devices: Vec::new() },
        }
    }
}

impl CardSurvey {
    fn of(card: &Card) -> Self {
        let reading = card.read();
        let bar = card.memory_bar();
        let most = |of: fn(&Clock) -> Option<f64>| reading.clocks.iter().find_map(of);
        let locked = card.render_node.as_ref().and_then(|node| node.check().err());
        Self {
            pci: card.address.to_string(),
            name: card.name.clone(),
            discrete: card.is_discrete(),
            driver: card.driver.as_ref().map(|driver| Driver::name(driver).to_owned()),
            render_node: card.render_node.as_ref().map(|node| node.path.display().to_string()),
            locked: locked.map(|error| match error.kind() {
                ErrorKind::NotFound => Locked::Missing,
                ErrorKind::PermissionDenied => Locked::Forbidden,
                _ => Locked::Broken,
            }),
            memory_bytes: reading.memory_bytes,
            memory_bar_bytes: bar.map(|bar| bar.bytes),
            memory_bar_resizable: bar.is_some_and(|bar| bar.resizable),
            link: reading.link.map(LinkSurvey::of),
            // The first part is the one that computes.
            clock_limit_hertz: most(|clock| clock.limit_hertz),
            clock_hardware_max_hertz: most(|clock| clock.hardware_max_hertz),
            throttled: reading.clocks.iter().flat_map(Clock::reasons).map(str::to_owned).collect(),
            celsius_max: reading.sensors.heat.iter().map(|heat| heat.celsius).reduce(f64::max),
        }
    }
}

impl LinkSurvey {
    fn of(link: Link) -> Self {
        Self {
            transfers_per_second: link.card.transfers_per_second,
            width: link.card.width,
            transfers_per_second_max: link.card.transfers_per_second_max,
            width_max: link.card.width_max,
            slot_width_max: link.slot.map(|slot| slot.width_max),
            bytes_per_second: link.card.bytes_per_second(),
        }
    }
}
