//! What a user sees: real processes, the real small model, real HTTP.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod between;
mod browser;
mod chromium;
mod demo;
mod doors;
mod etcd;
mod faults;
mod figures;
mod handover;
mod heal;
mod leaders;
mod limits;
mod line;
mod listed;
mod load;
mod logits;
mod matrix;
mod membership;
mod memory;
mod process;
mod prometheus;
mod reconcile;
mod recording;
mod rotation;
mod secure;
mod security;
mod site;
mod timeouts;
mod watches;
