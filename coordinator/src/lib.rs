//! HTTP in, steps out: the coordinator of a group of workers.
//!
//! Modules are listed from the request inwards; each uses only those below it.

mod engine;

mod cluster;

mod metrics;

pub use cluster::{Member, MemberError, MemberRequest, connect};
pub use engine::{Answer, AnswerEvent, Capacity, EngineHandle, EngineState, SubmitError};
pub use metrics::Metrics;
