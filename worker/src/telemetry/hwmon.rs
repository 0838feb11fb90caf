//! What a card's sensors say: energy, power limits, heat, fans.

use std::path::{Path, PathBuf};

use crate::telemetry::card::{Card, Driver};
use crate::telemetry::machine::{names, number, text};

/// Channels of a kind that are looked for; drivers have up to a handful.
const CHANNELS_MAX: u32 = 9;

/// One reading of a card's sensors. What the driver does not have is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sensors {
    /// Energy that the card has taken since its driver was loaded, joules.
    pub energy_joules: Option<f64>,
    /// Power that it may take on average, watts.
    pub power_limit_watts: Option<f64>,
    /// Voltage of the chip.
    pub volts: Option<f64>,
    /// How hot it is.
    pub heat: Vec<Heat>,
    /// How fast its fans turn.
    pub fans: Vec<Fan>,
}

/// What a thermometer says.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// Where it is, such as `package` or `vram`.
    pub sensor: String,
    /// Degrees.
    pub celsius: f64,
}

/// How fast a fan turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Fan {
    /// Which one, from `1`.
    pub fan: String,
    /// Revolutions a minute.
    pub rpm: f64,
}

impl Card {
    /// Reads the card's sensors.
    #[must_use]
    pub fn sensors(&self) -> Sensors {
        let Some(folder) = self.sensor_folder() else { return Sensors::default() };
        // The card as a whole where there is a channel for it, else the chip.
        let first = |kind: &str, value: &str| {
            (1..=2)
                .find_map(|channel| scaled(&folder.join(format!("{kind}{channel}_{value}")), 1e6))
        };
        let millivolts = |channel| scaled(&folder.join(format!("in{channel}_input")), 1e3);
        let channels = 1..=CHANNELS_MAX;
        Sensors {
            energy_joules: first("energy", "input"),
            power_limit_watts: first("power", "max"),
            volts: millivolts(0).or_else(|| millivolts(1)),
            heat: channels.clone().filter_map(|channel| self.heat(&folder, channel)).collect(),
            fans: channels
                .filter_map(|channel| {
                    let rpm = number(&folder.join(format!("fan{channel}_input")))?;
                    Some(Fan { fan: channel.to_string(), rpm })
                })
                .collect(),
        }
    }

    /// Of the folders of sensors, the one of the device as a whole: i915 has others for its parts,
    /// called `i915_gt0` and so on.
    fn sensor_folder(&self) -> Option<PathBuf> {
        let wanted = self.driver.as_ref()?.name();
        let all = self.folder().join("hwmon");
        let mut folders = names(&all).into_iter().map(|name| all.join(name));
        folders.find(|folder| text(&folder.join("name")).as_deref() == Some(wanted))
    }

    fn heat(&self, folder: &Path, channel: u32) -> Option<Heat> {
        let celsius = scaled(&folder.join(format!("temp{channel}_input")), 1e3)?;
        let named = text(&folder.join(format!("temp{channel}_label")));
        let sensor = match (named.as_deref(), &self.driver, channel) {
            // What the drivers' documents call the channels that have no label in older kernels.
            (Some("pkg"), ..) | (None, Some(Driver::I915), 1) | (None, Some(Driver::Xe), 2) => {
                "package".to_owned()
            }
            (None, Some(Driver::Xe), 3) => "vram".to_owned(),
            (Some(label), ..) => label.to_owned(),
            (None, ..) => channel.to_string(),
        };
        Some(Heat { sensor, celsius })
    }
}

/// A whole number of parts of a unit, as the unit.
fn scaled(path: &Path, parts: f64) -> Option<f64> {
    let value: i64 = number(path)?;
    Some(value as f64 / parts)
}
