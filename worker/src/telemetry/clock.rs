//! How fast a card's parts run, and what holds them back.

use std::path::{Path, PathBuf};

use crate::telemetry::card::Card;
use crate::telemetry::machine::{names, number};

/// The clock of one part of a card, a *GT* in the driver's words.
#[derive(Debug, Clone, PartialEq)]
pub struct Clock {
    /// Which part, such as `gt0`.
    pub part: String,
    /// Now, in Hz; 0 while it sleeps.
    pub actual_hertz: Option<f64>,
    /// The most that is asked for.
    pub limit_hertz: Option<f64>,
    /// The most that the hardware does.
    pub hardware_max_hertz: Option<f64>,
    /// What can hold it back, and whether it does now. `status` is any of them.
    pub throttled: Vec<(String, bool)>,
}

/// What a driver calls the same things.
struct Files {
    actual: &'static str,
    limit: &'static str,
    hardware_max: &'static str,
    /// Folder of what holds it back, and what names there begin with.
    throttle: (&'static str, &'static str),
}

const I915: Files = Files {
    actual: "rps_act_freq_mhz",
    limit: "rps_max_freq_mhz",
    hardware_max: "rps_RP0_freq_mhz",
    throttle: ("", "throttle_reason_"),
};

const XE: Files = Files {
    actual: "act_freq",
    limit: "max_freq",
    hardware_max: "rp0_freq",
    throttle: ("throttle", "reason_"),
};

impl Card {
    /// Reads the clocks of all parts.
    #[must_use]
    pub fn clocks(&self) -> Vec<Clock> {
        let mut clocks = Vec::new();
        if let Some(folder) = self.drm_folder() {
            for (part, folder) in parts(&folder.join("gt"), "gt") {
                clocks.push(Clock::read(part, &folder, &I915));
            }
        }
        for (_, tile) in parts(self.folder(), "tile") {
            for (part, folder) in parts(&tile, "gt") {
                clocks.push(Clock::read(part, &folder.join("freq0"), &XE));
            }
        }
        clocks
    }
}

impl Clock {
    fn read(part: String, folder: &Path, files: &Files) -> Self {
        let hertz = |name| number::<f64>(&folder.join(name)).map(|mega| mega * 1e6);
        let (inside, prefix) = files.throttle;
        let reasons = folder.join(inside);
        let throttled = names(&reasons).into_iter().filter_map(|name| {
            let reason = if name == "status" { &name } else { name.strip_prefix(prefix)? };
            let is_now = number::<u32>(&reasons.join(&name))? != 0;
            Some((reason.to_owned(), is_now))
        });
        Self {
            part,
            actual_hertz: hertz(files.actual),
            limit_hertz: hertz(files.limit),
            hardware_max_hertz: hertz(files.hardware_max),
            throttled: throttled.collect(),
        }
    }

    /// What holds it back now.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        self.throttled
            .iter()
            .filter(|(reason, is_now)| *is_now && reason != "status")
            .map(|(reason, _)| reason.as_str())
    }
}

/// Folders that are called `kind` and a number.
fn parts(folder: &Path, kind: &str) -> Vec<(String, PathBuf)> {
    let is_one =
        |name: &String| name.strip_prefix(kind).is_some_and(|rest| rest.parse::<u8>().is_ok());
    names(folder)
        .into_iter()
        .filter(is_one)
        .map(|name| {
            let inside = folder.join(&name);
            (name, inside)
        })
        .collect()
}
