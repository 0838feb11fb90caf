//! Toys of every architecture through a whole rank: right numbers, whatever the schedule and the
//! world, and an answer to every request that makes no sense.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ahead;
mod backends;
mod choosing;
mod failures;
mod forward;
mod group;
mod reference;
mod schedules;
mod worlds;
