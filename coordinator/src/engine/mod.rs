//! The loop that owns the scheduler: wait for one thing, apply it, start a step if idle.

mod handle;

pub use handle::{Answer, AnswerEvent, EngineHandle, SubmitError};
