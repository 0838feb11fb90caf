//! `arcmesh bench`: how fast a device is, a model runs here, and a server answers.

pub(crate) mod device;
pub(crate) mod engine;
pub(crate) mod serve;
