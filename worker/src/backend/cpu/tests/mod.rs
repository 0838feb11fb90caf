//! Every operation against plain arithmetic, and every way of computing it against every other: the
//! same bits for any number of rows, threads, and on every path.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod attention;
mod linear;
mod norms;
mod support;
