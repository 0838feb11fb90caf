//! One device, one rank: a model shard, its KV blocks, and its end of the collectives.

pub mod backend;
pub mod batch;
pub mod collective;
