//! What a person reads: results on standard output, complaints on standard error.

use std::io::{self, Write};

/// Says a result. Fails where nobody listens any more.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Says what went wrong, in one line.
pub(crate) fn complain(text: &str) {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Where even this fails, the exit code is left.
    writeln!(io::stderr(), "arcmesh: {line}").ok();
}

/// Says what somebody may read beside a result that a program reads, on standard error.
pub(crate) fn remark(text: &str) {
    // Nothing depends on it.
    writeln!(io::stderr(), "{text}").ok();
}

/// Writes a piece of a result as it comes; a character may be spread over pieces.
pub(crate) fn write(piece: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(piece)?;
    stdout.flush()
}
