//! How fast a model would be at most, for every number of ranks that makes sense here.

use checkpoint::{Checkpoint, CheckpointError};
use forecast::{Demand, Device, Link, Load, Sharing, StepForecast, forecast};
use serde::Serialize;
use worker::backend::opencl::LAUNCHES_PER_LAYER;

use crate::device::MeasuredDevice;
use crate::doctor::measure::Measured;

/// One user, in the middle of an answer.
const LOAD: Load = Load { batch: 1, context: 512 };
/// Ranks that are compared on a processor.
const WORLDS: [u32; 3] = [1, 2, 4];

/// What is to be expected at most. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Prediction {
    /// The model's file or folder.
    model: String,
    load: Load,
    /// Ways to run it here.
    ways: Vec<Way>,
}

/// One way to run it, with more and more ranks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Way {
    /// Where the ranks are, and how they are joined.
    name: &'static str,
    steps: Vec<StepForecast>,
    /// Of each, whether a rank's weights fit in the memory of its device; empty where that is not asked.
    fits: Vec<bool>,
    /// How many ranks are fastest.
    best_world: u32,
}

impl Prediction {
    pub(super) fn of(
        checkpoint: &Checkpoint,
        measured: &Measured,
    ) -> Result<Self, CheckpointError> {
        let demand = Demand::of(checkpoint)?;
        let host = Device {
            read_bytes_per_second: measured.host_read_bytes_per_second,
            launch_seconds: 0.0,
            launches_per_layer: 0.0,
        };
        let ways = [
            ("on the processor, ranks in one process", measured.in_process),
            ("on the processor, ranks as processes over loopback gRPC", measured.loopback),
        ];
        let mut ways: Vec<Way> = ways
            .map(|(name, link)| Way::new(name, &demand, (host, Sharing::One), link, &WORLDS))
            .into();
        ways.extend(Way::on_devices(&demand, measured));
        Ok(Self { model: checkpoint.path().display().to_string(), load: LOAD, ways })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Load { batch, context } = self.load;
        let mut lines = vec![format!(
            "predicted  {}: at most, {batch} sequence of {context} tokens, decode",
            self.model
        )];
        for way in &self.ways {
            lines.push(format!("  {}", way.name));
            lines.extend(way.steps.iter().map(line));
            if let Some(step) = way.too_large() {
                let ranks = step.world;
                lines.push(format!("    the weights do not fit with {ranks} ranks or fewer"));
            }
            lines.push(format!("    {}", way.advice()));
        }
        lines.join("\n")
    }
}

/// One number of ranks.
fn line(step: &StepForecast) -> String {
    let milli = |seconds: f64| seconds * 1e3;
    format!(
        "    {:>2} ranks {:>8.1} tokens/s: device {:.2} ms, launches {:.2} ms, all-reduces {:.2} ms",
        step.world,
        step.tokens_per_second,
        milli(step.device_seconds),
        milli(step.launch_seconds),
        milli(step.collective_seconds)
    )
}

impl Way {
    fn new(
        name: &'static str,
        demand: &Demand,
        devices: (Device, Sharing),
        link: Link,
        worlds: &[u32],
    ) -> Self {
        let step = |&world: &u32| forecast(demand, LOAD, world, devices, link);
        let steps: Vec<StepForecast> = worlds.iter().map(step).collect();
        let best = steps.iter().max_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        Self { name, best_world: best.map_or(1, |step| step.world), steps, fits: Vec::new() }
    }

    /// The most ranks with which the weights do not fit.
    fn too_large(&self) -> Option<&StepForecast> {
        let each = self.steps.iter().zip(&self.fits);
        each.filter(|(_, fits)| !**fits).map(|(step, _)| step).next_back()
    }

    /// With as many ranks as there are OpenCL devices, each as slow as the slowest, and partial sums
    /// that go through the host.
    fn on_devices(demand: &Demand, measured: &Measured) -> Option<Self> {
        let devices = &measured.devices;
        let least = |of: fn(&MeasuredDevice) -> f64| devices.iter().map(of).reduce(f64::min);
        let most = |of: fn(&MeasuredDevice) -> f64| devices.iter().map(of).reduce(f64::max);
        let device = Device {
            read_bytes_per_second: least(|device| device.read_bytes_per_second)?,
            launch_seconds: most(|device| device.launch_seconds)?,
            launches_per_layer: LAUNCHES_PER_LAYER.into(),
        };
        let rates = [
            measured.in_process.bytes_per_second,
            least(|device| device.to_device_bytes_per_second)?,
            least(|device| device.from_device_bytes_per_second)?,
        ];
        let exchange = most(|device| device.exchange_seconds)?;
        let link = Link {
            latency_seconds: measured.in_process.latency_seconds + exchange,
            bytes_per_second: 1.0 / rates.map(f64::recip).iter().sum::<f64>(),
        };
        let sharing = if devices.iter().any(|device| device.kind == "cpu") {
            Sharing::One
        } else {
            Sharing::Own
        };
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        let worlds: Vec<u32> = match sharing {
            Sharing::Own => (1..=count).collect(),
            Sharing::One => WORLDS.into(),
        };
        let name = "on OpenCL devices, ranks in one process, sums through the host";
        let mut way = Self::new(name, demand, (device, sharing), link, &worlds);
        let memory = devices.iter().map(|device| device.memory_bytes).min().unwrap_or(0);
        way.fits = way.steps.iter().map(|step| step.rank_weight_bytes < memory as f64).collect();
        Some(way)
    }

    /// Says plainly when more ranks do not help.
    fn advice(&self) -> String {
        let slower = self.steps.iter().any(|step| step.world > self.best_world);
        match (self.best_world, slower) {
            (1, true) => "more ranks are slower here: use one".to_owned(),
            (best, true) => format!("more than {best} ranks are slower here: use {best}"),
            (best, false) => format!("{best} ranks are the fastest of these"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand =
        Demand { layers: 30, hidden: 576, weight_bytes: 1e8, kv_token_bytes: 2e4 };
    const DEVICE: Device =
        Device { read_bytes_per_second: 2e10, launch_seconds: 0.0, launches_per_layer: 0.0 };

    #[test]
    fn it_is_said_plainly_when_more_ranks_are_slower() {
        let slow = Link { latency_seconds: 2e-4, bytes_per_second: 1e9 };
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::Own), slow, &WORLDS);
        assert_eq!((way.best_world, way.advice().contains("slower")), (1, true), "{way:?}");
        let fast = Link { latency_seconds: 1e-6, bytes_per_second: 1e10 };
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::Own), fast, &WORLDS);
        assert_eq!((way.best_world, way.advice().contains("slower")), (4, false), "{way:?}");
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::One), fast, &WORLDS);
        assert_eq!(way.best_world, 1);
    }
}
