//! One device, one rank: a model shard, its KV blocks, and its end of the collectives.
//!
//! Modules stand in the order in which a step meets them; each uses only those below it. Blank lines
//! keep the formatter from sorting them.

pub mod service;

pub mod rank;

pub mod metrics;

pub mod config;

pub mod runner;

pub mod sampler;

mod model;

pub mod shard;

pub mod backend;

pub mod collective;

pub mod batch;

pub mod telemetry;

mod memory;

pub use backend::cpu::{Pinning, Threads};
pub use model::{Fault, Operation, StepError};
pub use runner::{BackendChoice, LoadError, LoadOrder, Loaded, OrderError, Runner};
