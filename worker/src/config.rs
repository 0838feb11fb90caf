//! What a worker is started with.

use tls::Guard;

use crate::backend::cpu::Threads;
use crate::collective::LaneChoice;
use crate::runner::BackendChoice;

/// One worker, or all ranks of one process. Plain data: whoever reads flags has checked it.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The model, as it was given; for messages.
    pub model: String,
    /// Which backend computes.
    pub backend: BackendChoice,
    /// Threads that compute, for each rank.
    pub threads: Threads,
    /// Name of this machine; for messages and metrics.
    pub node: String,
    /// Who may call it, and how it calls others.
    pub guard: Guard,
    /// What carries its numbers to its peers; ranks of one process have no choice.
    pub lane: LaneChoice,
    /// `host:port` of its own `/metrics`, for whoever looks for it; empty: it has none.
    pub metrics: String,
}
