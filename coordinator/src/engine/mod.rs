//! The loop that owns the scheduler: wait for one thing, apply it, start a step if idle.

mod handle;
mod state;

pub use handle::{Answer, AnswerEvent, EngineHandle, SubmitError};
pub use state::{Capacity, EngineState};
