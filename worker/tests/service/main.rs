//! Workers as a coordinator sees them: a toy model, real sockets, one rank or several.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod faults;
mod local;
mod probes;
mod site;
mod steps;
