//! How fast a model would be at most, for every number of ranks that makes sense here.

use checkpoint::{Checkpoint, CheckpointError};
use forecast::{Demand, Device, Link, Load, Sharing, StepForecast, forecast};
use serde::Serialize;

use crate::doctor::measure::Measured;

/// One user, in the middle of an answer.
const LOAD: Load = Load { batch: 1, context: 512 };
/// Ranks that are compared.
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
            multiply_adds_per_second: None,
            launch_seconds: 0.0,
            launches_per_layer: 0.0,
        };
        let ways = [
            ("on the processor, ranks in one process", measured.in_process),
            ("on the processor, ranks as processes over loopback gRPC", measured.loopback),
        ];
        let ways = ways.map(|(name, link)| Way::new(name, &demand, (host, Sharing::One), link));
        Ok(Self { model: checkpoint.path().display().to_string(), load: LOAD, ways: ways.into() })
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
    fn new(name: &'static str, demand: &Demand, devices: (Device, Sharing), link: Link) -> Self {
        let steps = WORLDS.map(|world| forecast(demand, LOAD, world, devices, link));
        let best = steps.iter().max_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
        Self { name, best_world: best.map_or(1, |step| step.world), steps: steps.into() }
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

    const DEMAND: Demand = Demand {
        layers: 30,
        hidden: 576,
        weight_bytes: 1e8,
        multiply_adds: 1e8,
        kv_token_bytes: 2e4,
    };
    const DEVICE: Device = Device {
        read_bytes_per_second: 2e10,
        multiply_adds_per_second: None,
        launch_seconds: 0.0,
        launches_per_layer: 0.0,
    };

    #[test]
    fn it_is_said_plainly_when_more_ranks_are_slower() {
        let slow = Link { latency_seconds: 2e-4, bytes_per_second: 1e9 };
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::Own), slow);
        assert_eq!((way.best_world, way.advice().contains("slower")), (1, true), "{way:?}");
        let fast = Link { latency_seconds: 1e-6, bytes_per_second: 1e10 };
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::Own), fast);
        assert_eq!((way.best_world, way.advice().contains("slower")), (4, false), "{way:?}");
        let way = Way::new("", &DEMAND, (DEVICE, Sharing::One), fast);
        assert_eq!(way.best_world, 1);
    }
}
