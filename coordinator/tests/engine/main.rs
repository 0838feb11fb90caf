//! The engine with its scheduler and its cluster, over ranks that compute nothing but remember all:
//! an oracle whose next token is a function of the tokens before, read through the block tables.
//! So whatever is batched, chunked, preempted, lost and computed again, an answer may not change.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ahead;
mod answers;
mod faults;
mod fleet;
mod grpc;
mod life;
mod metrics;
mod network;
mod oracle;
mod recording;
mod sim;
mod timeouts;
