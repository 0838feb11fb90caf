//! What the scheduler was told and what it planned, line by line in a file, and the same once more: the
//! scheduler is pure, so that a recording replays bit for bit.
//!
//! No text can be read from a recording. The scheduler compares tokens and does nothing else with them:
//! whether two sequences begin alike, and whether a token ends one. So a token is shown as a number that
//! stands for all tokens up to it, by a key that is made up anew for each recording and written nowhere.

mod line;
mod recorder;
mod replay;
mod veil;
mod writer;

pub use line::Ending;
pub(crate) use recorder::Recorded;
pub use replay::{ReplayError, Replayed, replay};
pub use writer::{RecordTo, Recording};
