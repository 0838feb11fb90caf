//! One peer: a stream of frames each way.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::collective::Frame;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::collective::CollectiveError;
use crate::collective::grpc::wait::block_until;

/// Payload bytes of a frame at most; a longer payload is sent as several parts, so that it streams.
/// Whole f64.
pub(super) const PART_BYTES_MAX: usize = 1 << 20;

/// Bytes of a frame at most: a part, and generous room for its tag.
pub const FRAME_BYTES_MAX: usize = PART_BYTES_MAX + 1024;

/// Frames that may be queued for a peer: 2 GiB, more than two collectives of the largest step. A rank
/// sends all of a collective before it receives, and can be one collective ahead of a peer.
pub(super) const QUEUED_FRAMES_MAX: usize = 2048;

/// Which exchange of which collective a frame belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) epoch: u64,
    pub(super) step: u64,
    pub(super) index: u32,
}

/// One peer, as a rank sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: usize,
    outgoing: mpsc::Sender<Frame>,
    incoming: Streaming<Frame>,
}

impl Link {
    /// After the greetings.
    pub(super) fn new(
        peer: usize,
        outgoing: mpsc::Sender<Frame>,
        incoming: Streaming<Frame>,
    ) -> Self {
        Self { peer, outgoing, incoming }
    }

    /// Queues `payload` for the peer, cut into parts that are numbered from `first_part`.
    ///
    /// # Errors
    /// [`CollectiveError::PeerLost`], or [`CollectiveError::Deadline`] when the queue stays full.
    pub(super) fn send(
        &self,
        tag: Tag,
        rank: u32,
        first_part: u32,
        payload: &Bytes,
        patience: Duration,
    ) -> Result<(), CollectiveError> {
        for (part, range) in (first_part..).zip(parts(payload.len())) {
            let frame = Frame {
                epoch: tag.epoch,
                rank,
                step: tag.step,
                index: tag.index,
                part,
                payload: payload.slice(range),
            };
            match self.outgoing.try_send(frame) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    return Err(self.lost(tag, "its stream was closed".to_owned()));
                }
                Err(mpsc::error::TrySendError::Full(frame)) => {
                    let sent = block_until(self.outgoing.send(frame), Instant::now() + patience);
                    sent.ok_or_else(|| self.silent(tag, patience))?
                        .map_err(|_| self.lost(tag, "its stream was closed".to_owned()))?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the peer's next frame, which must be part `part` of what `tag` says.
    ///
    /// # Errors
    /// [`CollectiveError`].
    pub(super) fn receive(
        &mut self,
        tag: Tag,
        part: u32,
        patience: Duration,
    ) -> Result<Bytes, CollectiveError> {
        let arrived = block_until(self.incoming.message(), Instant::now() + patience);
        let frame = match arrived {
            None => return Err(self.silent(tag, patience)),
            Some(Err(status)) => {
                let reason = format!("{} ({:?})", status.message(), status.code());
                return Err(self.lost(tag, reason));
            }
            Some(Ok(None)) => return Err(self.lost(tag, "its stream ended".to_owned())),
            Some(Ok(Some(frame))) => frame,
        };
        let due = (tag.epoch, tag.step, tag.index, part);
        let got = (frame.epoch, frame.step, frame.index, frame.part);
        if got == due && usize::try_from(frame.rank) == Ok(self.peer) {
            return Ok(frame.payload);
        }
        let Frame { epoch, rank, step, index, part: number, .. } = frame;
        Err(CollectiveError::Mismatch {
            peer: self.peer,
            expected: format!(
                "part {part} of collective {} of step {} of epoch {}",
                tag.index, tag.step, tag.epoch
            ),
            got: format!(
                "part {number} of collective {index} of step {step} of epoch {epoch}, as rank {rank},"
            ),
        })
    }

    /// The peer sent part `part` with a length that cannot be.
    pub(super) fn wrong_length(&self, part: u32, due: &str, got: usize) -> CollectiveError {
        CollectiveError::Mismatch {
            peer: self.peer,
            expected: format!("{due} in part {part}"),
            got: format!("{got} bytes"),
        }
    }

    fn lost(&self, tag: Tag, reason: String) -> CollectiveError {
        CollectiveError::PeerLost { peer: self.peer, step: tag.step, index: tag.index, reason }
    }

    fn silent(&self, tag: Tag, patience: Duration) -> CollectiveError {
        CollectiveError::Deadline {
            peer: self.peer,
            step: tag.step,
            index: tag.index,
            waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The parts that a payload of this many bytes is sent in; an empty one is sent as one empty part.
pub(super) fn parts(bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let count = bytes.div_ceil(PART_BYTES_MAX).max(1);
    (0..count).map(move |part| part * PART_BYTES_MAX..bytes.min((part + 1) * PART_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_payload_once_and_an_empty_one_takes_one() {
        let cut = |bytes| parts(bytes).map(|part| (part.start, part.end)).collect::<Vec<_>>();
        let (full, over) = (PART_BYTES_MAX, PART_BYTES_MAX + 8);
        assert_eq!(cut(0), [(0, 0)]);
        assert_eq!(cut(8), [(0, 8)]);
        assert_eq!(cut(full), [(0, full)]);
        assert_eq!(cut(over), [(0, full), (full, over)]);
    }
}
