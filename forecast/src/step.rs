//! The time of one step of decode.

use serde::Serialize;

use crate::demand::Demand;

/// Bytes of a number in an all-reduce: partial sums are f64, so that they are exact.
const SUM_BYTES: f64 = 8.0;
/// All-reduces of a layer: after attention and after the feed-forward.
const ALL_REDUCES: f64 = 2.0;
/// From how many bytes on three or more ranks add slice by slice.
const SLICED_BYTES_MIN: f64 = 65_536.0;

/// What one device was measured, or is held, to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Device {
    /// Bytes a second that it reads.
    pub read_bytes_per_second: f64,
    /// What starting a kernel costs; 0 on the host.
    pub launch_seconds: f64,
    /// Kernels that a layer takes; those of the head and the embedding weigh nothing beside.
    pub launches_per_layer: f64,
}

/// What an all-reduce of two ranks was measured to cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Link {
    /// With one number.
    pub latency_seconds: f64,
    /// Bytes of its message ÷ the time beyond that.
    pub bytes_per_second: f64,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Sequences.
    pub batch: u32,
    /// Tokens that each has.
    pub context: u32,
}

/// Whether ranks add anything to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Each rank has a device.
    Own,
    /// All ranks are parts of one device, such as the processor of this machine.
    One,
}

/// Where the time of a step goes, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepForecast {
    /// Ranks.
    pub world: u32,
    /// Reading weights and KV.
    pub device_seconds: f64,
    /// Starting kernels.
    pub launch_seconds: f64,
    /// All-reduces.
    pub collective_seconds: f64,
    /// Tokens a second of all sequences.
    pub tokens_per_second: f64,
    /// Weights of a rank.
    pub rank_weight_bytes: f64,
}

/// What a step costs at least when `world` ranks share `demand`.
#[must_use]
pub fn forecast(
    demand: &Demand,
    load: Load,
    world: u32,
    (device, sharing): (Device, Sharing),
    link: Link,
) -> StepForecast {
    let ranks = f64::from(world.max(1));
    let batch = f64::from(load.batch);
    let devices = match sharing {
        Sharing::Own => ranks,
        Sharing::One => 1.0,
    };
    let kv = demand.kv_token_bytes * batch * f64::from(load.context);
    let read = (demand.weight_bytes + kv) / devices / device.read_bytes_per_second;
    let layers = f64::from(demand.layers);
    let launch = layers * device.launches_per_layer * device.launch_seconds;
    let message = batch * f64::from(demand.hidden) * SUM_BYTES;
    let collective = layers * ALL_REDUCES * link.all_reduce(ranks, message);
    let step = read + launch + collective;
    StepForecast {
        world,
        device_seconds: read,
        launch_seconds: launch,
        collective_seconds: collective,
        tokens_per_second: batch / step,
        rank_weight_bytes: demand.weight_bytes / ranks,
    }
}

impl Link {
    /// One all-reduce of a message of so many bytes.
    #[must_use]
    pub fn all_reduce(self, ranks: f64, bytes: f64) -> f64 {
        let sending = bytes / self.bytes_per_second;
        if ranks < 2.0 {
            0.0
        } else if ranks > 2.0 && bytes >= SLICED_BYTES_MIN {
            // There and back: a slice to each, then the sum of one's own to all.
            2.0 * self.latency_seconds + 2.0 * (ranks - 1.0) / ranks * sending
        } else {
            self.latency_seconds + (ranks - 1.0) * sending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand =
        Demand { layers: 10, hidden: 1000, weight_bytes: 1e9, kv_token_bytes: 1e4 };
    const DEVICE: Device =
        Device { read_bytes_per_second: 1e11, launch_seconds: 1e-5, launches_per_layer: 10.0 };
    const LINK: Link = Link { latency_seconds: 1e-5, bytes_per_second: 1e9 };
    const ONE: Load = Load { batch: 1, context: 0 };

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn one_rank_reads_everything_and_adds_nothing_up() {
        let one = forecast(&DEMAND, ONE, 1, (DEVICE, Sharing::Own), LINK);
        close(one.device_seconds, 0.01);
        close(one.launch_seconds, 0.001);
        assert_eq!(one.collective_seconds, 0.0);
        close(one.tokens_per_second, 1.0 / 0.011);
    }

    #[test]
    fn devices_of_their_own_share_the_reading_and_ranks_of_one_device_do_not() {
        let own = forecast(&DEMAND, ONE, 2, (DEVICE, Sharing::Own), LINK);
        close(own.device_seconds, 0.005);
        // 20 times 10 µs and 8000 bytes at 1 GB/s.
        close(own.collective_seconds, 20.0 * 18e-6);
        let shared = forecast(&DEMAND, ONE, 2, (DEVICE, Sharing::One), LINK);
        close(shared.device_seconds, 0.01);
        assert!(shared.tokens_per_second < own.tokens_per_second);
        close(shared.rank_weight_bytes, 5e8);
    }

    #[test]
    fn what_a_batch_has_in_its_cache_is_read_too() {
        let load = Load { batch: 32, context: 100 };
        let many = forecast(&DEMAND, load, 1, (DEVICE, Sharing::Own), LINK);
        close(many.device_seconds, (1e9 + 32.0 * 1e6) / 1e11);
    }

    #[test]
    fn a_slow_link_makes_more_ranks_slower() {
        let slow = Link { latency_seconds: 1e-3, bytes_per_second: 1e8 };
        let of = |world| forecast(&DEMAND, ONE, world, (DEVICE, Sharing::Own), slow);
        assert!(of(2).tokens_per_second < of(1).tokens_per_second);
    }

    #[test]
    fn long_messages_of_many_ranks_go_in_slices() {
        close(LINK.all_reduce(4.0, 8000.0), 1e-5 + 3.0 * 8e-6);
        close(LINK.all_reduce(4.0, 1e6), 2e-5 + 1.5e-3);
        close(LINK.all_reduce(2.0, 1e6), 1e-5 + 1e-3);
    }
}
