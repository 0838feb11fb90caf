//! `arcmesh bench`: how fast a model runs here, and how fast a server answers.

pub(crate) mod engine;
pub(crate) mod serve;
