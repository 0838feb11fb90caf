//! Ranks adding up their parts: two operations on host memory.
//!
//! Every exchange is tagged `(epoch, step, index)` and has a deadline. Partial sums are exact
//! multiples of [`crate::backend::SUM_GRID`], so every order of adding gives the same bits; we add in
//! order of rank all the same.

pub mod grpc;
mod lane;
pub mod local;
mod luck;
pub mod solo;

use std::path::PathBuf;
use std::time::Duration;

/// Why ranks did not come together.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CollectiveError {
    /// A peer said nothing until the deadline.
    #[error("rank {peer} was silent for {waited_ms} ms in collective {index} of step {step}")]
    Deadline {
        /// Who was waited for.
        peer: usize,
        /// In which step.
        step: u64,
        /// In which collective of the step.
        index: u32,
        /// For how long.
        waited_ms: u64,
    },
    /// A peer's stream ended.
    #[error("lost rank {peer} in collective {index} of step {step}: {reason}")]
    PeerLost {
        /// Who is gone.
        peer: usize,
        /// In which step.
        step: u64,
        /// In which collective of the step.
        index: u32,
        /// As the transport says it.
        reason: String,
    },
    /// A peer is somewhere else than we are.
    #[error("rank {peer} sent {got} where {expected} was due")]
    Mismatch {
        /// Who sent it.
        peer: usize,
        /// What was due.
        expected: String,
        /// What came.
        got: String,
    },
}

/// Where the time of a step's collectives went, and what they moved. Reset by each [`Collective::begin`].
///
/// The wait for a peer lasts from when we have handed over all that we send in this collective (or
/// exchange of a collective) to when the first of what the peer sends is here. So it holds a peer's lag
/// and the link's latency; the time that bytes take to follow the first is transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectiveTimes {
    /// Copying, receiving and adding: all of a collective's time that is not `wait`.
    pub transfer: Duration,
    /// Waiting for a peer that was not there yet.
    pub wait: Duration,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

/// What carries a group's numbers from rank to rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// There is one rank.
    None,
    /// The memory of one process.
    Local,
    /// Memory that processes of one host share.
    Shared,
    /// Streams from process to process.
    Grpc,
}

/// Which lane ranks that are processes take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneChoice {
    /// Shared memory, made in this folder, where all ranks of a group find it; else gRPC.
    Auto(PathBuf),
    /// gRPC.
    Grpc,
}

impl Default for LaneChoice {
    /// Shared memory where the system has it.
    fn default() -> Self {
        Self::Auto(PathBuf::from("/dev/shm"))
    }
}

impl Lane {
    /// As metrics name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Shared => "shared",
            Self::Grpc => "grpc",
        }
    }
}

/// One rank's end of a group. Implementations: [`solo`], [`local`], [`grpc`], and one for shared memory
/// that [`grpc::Switchboard::form`] gives.
pub trait Collective: Send {
    /// Which rank this is.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world(&self) -> usize;

    /// What carries their numbers.
    fn lane(&self) -> Lane;

    /// Starts a step: the collectives that follow are numbered from 0 and tagged with it. Each wait
    /// on a peer ends after `patience`.
    fn begin(&mut self, step: u64, patience: Duration);

    /// `values[i]` becomes the sum over all ranks; the same bits on each.
    ///
    /// # Errors
    /// Whatever kept a peer from coming; the group is then of no more use.
    fn all_reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError>;

    /// Rank 0 gets every rank's `values` in `out`, one after another in order of rank (lengths may
    /// differ); on other ranks `out` is left empty.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError>;

    /// What this step's collectives took so far.
    fn times(&self) -> CollectiveTimes;
}

/// Makes `out` hold one empty part for each of `ranks`, with the memory that its parts have.
fn keep_one_per_rank(out: &mut Vec<Vec<f32>>, ranks: usize) {
    out.resize_with(ranks, Vec::new);
    out.iter_mut().for_each(Vec::clear);
}
