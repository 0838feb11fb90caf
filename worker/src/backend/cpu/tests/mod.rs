//! Every operation against plain arithmetic, and every way of computing it against every other: the
//! same bits for any number of rows, threads, and on every path.

#![expect(clippy::cast_possible_truncation, reason = "random bits and rounded sums")]

mod attention;
mod linear;
mod norms;
pub(crate) mod support;
