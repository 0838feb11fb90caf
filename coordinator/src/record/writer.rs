//! A recording's file: written by a thread of its own, so that no step waits for a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::record::line::{Ending, Line};

/// Lines that may wait for the disk. With more the recording ends: one with a gap is worth nothing.
const LINES_MAX: usize = 4096;
/// Room for the last line.
const END_BYTES: u64 = 32;

/// Where a recording goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordTo {
    /// In place of what is there.
    pub file: PathBuf,
    /// At so many bytes the recording ends, and nothing else does.
    pub bytes_max: u64,
}

/// A recording under way. Dropping it ends it and waits until all is written.
#[derive(Debug)]
pub struct Recording {
    lines: Option<SyncSender<Line>>,
    writer: Option<JoinHandle<()>>,
}

impl Recording {
    /// Makes the file.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn begin(to: &RecordTo) -> io::Result<Self> {
        let file = BufWriter::new(File::create(&to.file)?);
        let (lines, written) = sync_channel(LINES_MAX);
        let bytes_max = to.bytes_max;
        let name = to.file.display().to_string();
        let writer =
            std::thread::Builder::new().name("recording".to_owned()).spawn(move || match write(
                file, &written, bytes_max,
            ) {
                Ok(Ending::Shutdown) => {}
                Ok(Ending::Full) => {
                    tracing::warn!("the recording {name} ends: it has {bytes_max} bytes");
                }
                Ok(Ending::Slow) => {
                    tracing::warn!("the recording {name} ends: the disk does not keep up");
                }
                Err(error) => tracing::warn!("the recording {name} ends: {error}"),
            })?;
        Ok(Self { lines: Some(lines), writer: Some(writer) })
    }

    /// One more line. False: there is no recording any more.
    pub(super) fn line(&mut self, line: Line) -> bool {
        let Some(lines) = &self.lines else { return false };
        match lines.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => {
                self.lines = None;
                false
            }
            Err(TrySendError::Full(_)) => {
                // The lines that wait are whole: the writer says so when it has come to their end.
                self.end(Ending::Slow);
                false
            }
        }
    }

    fn end(&mut self, why: Ending) {
        let (Some(lines), Some(writer)) = (self.lines.take(), self.writer.take()) else { return };
        if why == Ending::Slow {
            // Whoever records waits for nobody.
            std::thread::spawn(move || lines.send(Line::End(why)));
            return;
        }
        drop(lines);
        if writer.join().is_err() {
            tracing::error!("the recording's thread died");
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end(Ending::Shutdown);
    }
}

/// Writes lines until there are no more, and why.
fn write(mut file: impl Write, lines: &Receiver<Line>, bytes_max: u64) -> io::Result<Ending> {
    let mut bytes = 0;
    let why = loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => break Ending::Shutdown,
            Err(TryRecvError::Empty) => {
                file.flush()?;
                match lines.recv() {
                    Ok(line) => line,
                    Err(_) => break Ending::Shutdown,
                }
            }
        };
        if let Line::End(why) = line {
            break why;
        }
        let written = text(&line)?;
        if bytes + written.len() as u64 + END_BYTES > bytes_max {
            break Ending::Full;
        }
        bytes += written.len() as u64;
        file.write_all(&written)?;
    };
    file.write_all(&text(&Line::End(why))?)?;
    file.flush()?;
    Ok(why)
}

fn text(line: &Line) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}
