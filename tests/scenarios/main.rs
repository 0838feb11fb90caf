//! What a user sees: real processes, the real small model, real HTTP.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod etcd;
mod faults;
mod figures;
mod limits;
mod load;
mod logits;
mod membership;
mod process;
mod site;
mod timeouts;
