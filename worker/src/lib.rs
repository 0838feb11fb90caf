//! One device, one rank: a model shard, its KV blocks, and its end of the collectives.
//!
//! Modules stand in the order in which a step meets them; each uses only those below it.

pub mod backend;
pub mod batch;
pub mod collective;
pub mod sampler;
pub mod shard;
