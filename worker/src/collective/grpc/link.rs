//! One peer: a stream of frames each way.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::collective::Frame;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;
use tonic::Streaming;

use crate::collective::CollectiveError;
use crate::collective::luck::{LOOK_MAX, Luck};

/// Payload bytes of a frame at most; a longer payload is sent as several parts, so that it streams.
/// Whole f64.
pub(super) const PART_BYTES_MAX: usize = 1 << 20;

/// Bytes of a frame at most: a part, and generous room for its tag.
pub const FRAME_BYTES_MAX: usize = PART_BYTES_MAX + 1024;

/// Frames that may be queued for a peer: 2 GiB, more than two collectives of the largest step. A rank
/// sends all of a collective before it receives, and can be one collective ahead of a peer.
pub(super) const QUEUED_FRAMES_MAX: usize = 2048;

/// Which exchange of which collective a frame belongs to, and who we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) rank: u32,
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
    luck: Luck,
}

impl Link {
    /// After the greetings.
    pub(super) fn new(
        peer: usize,
        outgoing: mpsc::Sender<Frame>,
        incoming: Streaming<Frame>,
    ) -> Self {
        Self { peer, outgoing, incoming, luck: Luck::default() }
    }

    /// Queues `payload` for the peer, cut into parts that are numbered from `first_part`.
    ///
    /// # Errors
    /// [`CollectiveError::PeerLost`], or [`CollectiveError::Deadline`] when the queue stays full.
    pub(super) async fn send(
        &self,
        tag: Tag,
        first_part: u32,
        payload: &Bytes,
        patience: Duration,
    ) -> Result<(), CollectiveError> {
        for (part, range) in (first_part..).zip(parts(payload.len())) {
            let frame = Frame {
                epoch: tag.epoch,
                rank: tag.rank,
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
                    let sent = timeout(patience, self.outgoing.send(frame)).await;
                    sent.map_err(|_| self.silent(tag, patience))?
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
    pub(super) async fn receive(
        &mut self,
        tag: Tag,
        part: u32,
        patience: Duration,
    ) -> Result<Bytes, CollectiveError> {
        let arrived = match self.look().await {
            Some(arrived) => Ok(arrived),
            None => timeout(patience, self.incoming.message()).await,
        };
        let frame = match arrived {
            Err(_) => return Err(self.silent(tag, patience)),
            Ok(Err(status)) => return Err(self.lost(tag, reason(&status))),
            Ok(Ok(None)) => return Err(self.lost(tag, "its stream ended".to_owned())),
            Ok(Ok(Some(frame))) => frame,
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

    /// Looks for the next frame for a moment, without sleeping.
    async fn look(&mut self) -> Option<Result<Option<Frame>, tonic::Status>> {
        if !self.luck.tries() {
            return None;
        }
        let until = Instant::now() + LOOK_MAX;
        let mut message = pin!(self.incoming.message());
        let arrived = loop {
            let polled = poll_fn(|context| Poll::Ready(message.as_mut().poll(context))).await;
            match polled {
                Poll::Ready(arrived) => break Some(arrived),
                Poll::Pending if Instant::now() >= until => break None,
                // The streams are driven in between.
                Poll::Pending => yield_now().await,
            }
        };
        self.luck.learn(arrived.is_some());
        arrived
    }

    /// Waits until the peer is gone, and says how. Nothing more is to come from it.
    pub(super) async fn end(mut self) -> String {
        match self.incoming.message().await {
            Err(status) => reason(&status),
            Ok(None) => "its stream ended".to_owned(),
            Ok(Some(_)) => "it sent what was not asked for".to_owned(),
        }
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

fn reason(status: &tonic::Status) -> String {
    format!("{} ({:?})", status.message(), status.code())
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
