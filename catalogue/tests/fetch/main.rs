//! Fetching models from servers that behave well, badly or not at all.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fixture;
mod hub;
mod package_index;
