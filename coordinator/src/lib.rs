//! HTTP in, steps out: the coordinator of a group of workers.

mod engine;

pub use engine::{Answer, AnswerEvent, EngineHandle, SubmitError};
