//! A group of one: nothing to add, nobody to wait for.

use std::time::Duration;

use crate::collective::{Collective, CollectiveError, CollectiveTimes, Lane, keep_one_per_rank};

/// The only rank of its group.
#[derive(Debug, Default)]
pub struct SoloCollective;

impl Collective for SoloCollective {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn lane(&self) -> Lane {
        Lane::None
    }

    fn begin(&mut self, _step: u64, _patience: Duration) {}

    fn all_reduce(&mut self, _values: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError> {
        keep_one_per_rank(out, 1);
        out[0].extend_from_slice(values);
        Ok(())
    }

    fn times(&self) -> CollectiveTimes {
        CollectiveTimes::default()
    }
}
