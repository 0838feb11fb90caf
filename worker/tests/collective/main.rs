//! Ranks that come together, in one process, in shared memory and over gRPC: the same sums everywhere, and
//! an error that names who did not come.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod faults;
mod groups;
mod lanes;
mod strangers;
mod sums;
