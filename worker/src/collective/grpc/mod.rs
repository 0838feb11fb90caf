//! Ranks that are processes: peers over persistent gRPC streams.
//!
//! Every pair of ranks has one stream for the life of a group; the higher rank dials the lower, and both
//! greet ([`Switchboard`]). The streams have a thread of their own ([`Driver`]); a rank that waits for its
//! peers drives them itself.
//!
//! An all-reduce sends whole vectors to everyone and adds them in order of rank. From three ranks on,
//! long vectors are added slice by slice instead (each rank adds its own slice for all, then shares it),
//! which sends less. Both give the same bits, since sums are exact.

mod agreement;
mod dial;
mod driver;
mod link;
mod switchboard;

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Endpoint, Server};

use crate::collective::grpc::link::{Link, Tag, parts};
use crate::collective::{Collective, CollectiveError, CollectiveTimes, Lane, keep_one_per_rank};

pub use crate::collective::grpc::driver::Driver;
pub use crate::collective::grpc::link::FRAME_BYTES_MAX;
pub use crate::collective::grpc::switchboard::{Desk, FormError, Switchboard};

const _: () = assert!(cfg!(target_endian = "little"), "frames hold numbers as they are in memory");

/// From how many bytes on an all-reduce of three or more ranks goes slice by slice: it takes one more
/// trip over the link, which is worth it when sending the rest takes longer than that trip.
const SLICED_BYTES_MIN: usize = 64 << 10;

/// From how many bytes on what a collective sends may not have left when it has received everything: then
/// the streams go back to their thread at once.
const UNSENT_BYTES_MIN: u64 = 64 << 10;

/// Bytes of an HTTP/2 frame: large frames take fewer turns.
const HTTP2_FRAME_BYTES: u32 = 1 << 20;

/// Bytes on their way in one stream, and in one connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How often an idle connection is asked for a sign of life, and how long it may take to give one:
/// together less than the 5 seconds in which a half-open connection must be noticed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(3);

/// A gRPC server, set up for small frames that are waited for.
///
/// Feed it from a `TcpIncoming` with `with_nodelay(Some(true))`: a server that is given its connections
/// does not set that by itself, and without it a frame can take 40 ms.
#[must_use]
pub fn tuned_server() -> Server {
    Server::builder()
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
}

/// The same for the side that dials.
#[must_use]
pub fn tuned_endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .keep_alive_while_idle(true)
}

/// One rank's end of a group of processes. Made by [`Switchboard::form`]. Its operations must not be called
/// on a thread that drives a runtime.
#[derive(Debug)]
pub struct GrpcCollective {
    rank: usize,
    driver: Driver,
    /// One for each rank, in order; none for ourselves.
    links: Vec<Option<Link>>,
    tag: Tag,
    patience: Duration,
    times: CollectiveTimes,
    /// Memory of what is sent, used again when the peers' queues have let go of it.
    buffer: BytesMut,
    /// A newer group forms: this one waits for nobody any more.
    over: CancellationToken,
    failed: Option<CollectiveError>,
}

impl Collective for GrpcCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.links.len()
    }

    fn lane(&self) -> Lane {
        Lane::Grpc
    }

    fn begin(&mut self, step: u64, patience: Duration) {
        (self.tag.step, self.tag.index, self.patience) = (step, 0, patience);
        self.times = CollectiveTimes::default();
    }

    fn all_reduce(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.timed(async |end| {
            if end.world() > 2 && size_of_val::<[f64]>(values) >= SLICED_BYTES_MIN {
                return end.sum_sliced(values).await;
            }
            let own = end.encode(&[], bytemuck::cast_slice(values));
            for peer in end.peers() {
                end.send(peer, 0, &own).await?;
            }
            end.sum(values, &own).await
        })
    }

    fn gather(&mut self, values: &[f32], out: &mut Vec<Vec<f32>>) -> Result<(), CollectiveError> {
        keep_one_per_rank(out, if self.rank == 0 { self.world() } else { 0 });
        self.timed(async |end| {
            if end.rank == 0 {
                out[0].extend_from_slice(values);
                for (peer, part) in out.iter_mut().enumerate().skip(1) {
                    end.receive_all(peer, part).await?;
                }
                return Ok(());
            }
            let bytes: &[u8] = bytemuck::cast_slice(values);
            let own = end.encode(&(bytes.len() as u64).to_le_bytes(), bytes);
            end.send(0, 0, &own).await?;
            let_leave().await;
            Ok(())
        })
    }

    fn times(&self) -> CollectiveTimes {
        self.times
    }
}

impl GrpcCollective {
    /// `links` has one for each rank but ours.
    fn new(
        driver: Driver,
        epoch: u64,
        rank: u32,
        links: Vec<Option<Link>>,
        over: CancellationToken,
    ) -> Self {
        Self {
            over,
            rank: usize::try_from(rank).expect("it is below the number of links"),
            driver,
            links,
            tag: Tag { rank, epoch, step: 0, index: 0 },
            patience: Duration::ZERO,
            times: CollectiveTimes::default(),
            buffer: BytesMut::new(),
            failed: None,
        }
    }

    /// Runs one collective: times it, numbers the next, and gives up the group when it fails.
    fn timed(
        &mut self,
        run: impl AsyncFnOnce(&mut Self) -> Result<(), CollectiveError>,
    ) -> Result<(), CollectiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let started = Instant::now();
        let (waited, sent) = (self.times.wait, self.times.bytes_sent);
        let driver = self.driver.clone();
        let over = self.over.clone();
        let (tag, rank) = (self.tag, self.rank);
        let result = driver.run(async {
            tokio::select! {
                biased;
                result = run(self) => result,
                () = over.cancelled() => Err(superseded(tag, rank)),
            }
        });
        if self.times.bytes_sent - sent >= UNSENT_BYTES_MIN {
            driver.give_back();
        }
        self.times.transfer += started.elapsed().saturating_sub(self.times.wait - waited);
        self.tag.index += 1;
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            // Peers see their streams end and need not wait for their deadlines.
            self.links.iter_mut().for_each(|link| *link = None);
            driver.give_back();
        }
        result
    }

    /// Every rank adds the slice of `values` that is its own for all, then shares it.
    async fn sum_sliced(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let (rank, world, numbers) = (self.rank, self.world(), values.len());
        let slices: Vec<Range<usize>> =
            (0..world).map(|r| numbers * r / world..numbers * (r + 1) / world).collect();
        let whole = self.encode(&[], bytemuck::cast_slice(values));
        for peer in self.peers() {
            self.send(peer, 0, &whole.slice(bytes_of(&slices[peer]))).await?;
        }
        let own = whole.slice(bytes_of(&slices[rank]));
        self.sum(&mut values[slices[rank].clone()], &own).await?;
        drop((whole, own));

        let own = self.encode(&[], bytemuck::cast_slice(&values[slices[rank].clone()]));
        for peer in self.peers() {
            self.send(peer, part_count(&slices[peer]), &own).await?;
        }
        let_leave().await;
        let first_part = part_count(&slices[rank]);
        for peer in self.peers() {
            let slice = &mut values[slices[peer].clone()];
            for (part, range) in (first_part..).zip(parts(size_of_val::<[f64]>(slice))) {
                let bytes = self.receive_exact(peer, part, range.len(), part == first_part).await?;
                copy_numbers(&mut slice[numbers_of(&range)], &bytes);
            }
        }
        Ok(())
    }

    /// Receives everyone's `values` and adds them in order of rank; `own` is what we brought.
    async fn sum(&mut self, values: &mut [f64], own: &Bytes) -> Result<(), CollectiveError> {
        let_leave().await;
        for (part, range) in (0..).zip(parts(own.len())) {
            for rank in 0..self.world() {
                let bytes = if rank == self.rank {
                    own.slice(range.clone())
                } else {
                    self.receive_exact(rank, part, range.len(), part == 0).await?
                };
                let values = &mut values[numbers_of(&range)];
                if rank == 0 {
                    copy_numbers(values, &bytes);
                } else {
                    add_numbers(values, &bytes);
                }
            }
        }
        Ok(())
    }

    /// Receives what a peer gathers: its bytes are counted at the start of its first part.
    async fn receive_all(
        &mut self,
        peer: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), CollectiveError> {
        let mut bytes = self.receive(peer, 0, true).await?;
        let head = bytes.split_to(bytes.len().min(size_of::<u64>()));
        let total = <[u8; 8]>::try_from(head.as_ref()).map(u64::from_le_bytes).ok();
        let total = total.and_then(|total| usize::try_from(total).ok());
        let total = total.filter(|total| *total <= proto::MESSAGE_BYTES_MAX && *total % 4 == 0);
        let Some(total) = total else {
            return Err(self.link(peer).wrong_length(0, "a count of bytes", head.len()));
        };
        let mut left = total;
        for (part, range) in (0..).zip(parts(total + size_of::<u64>())) {
            if part > 0 {
                bytes = self.receive_exact(peer, part, range.len(), false).await?;
            }
            if bytes.len() > left || !bytes.len().is_multiple_of(4) {
                let due = format!("at most {left} bytes of f32");
                return Err(self.link(peer).wrong_length(part, &due, bytes.len()));
            }
            left -= bytes.len();
            out.extend(bytes.chunks_exact(4).map(|n| f32::from_le_bytes([n[0], n[1], n[2], n[3]])));
        }
        if left > 0 {
            return Err(self.link(peer).wrong_length(0, "the first of the bytes", bytes.len()));
        }
        Ok(())
    }

    /// Copies `head` and `bytes` to memory that the streams can hold on to.
    fn encode(&mut self, head: &[u8], bytes: &[u8]) -> Bytes {
        self.buffer.reserve(head.len() + bytes.len());
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(bytes);
        self.buffer.split().freeze()
    }

    async fn send(
        &mut self,
        peer: usize,
        first_part: u32,
        payload: &Bytes,
    ) -> Result<(), CollectiveError> {
        let (tag, patience) = (self.tag, self.patience);
        self.link(peer).send(tag, first_part, payload, patience).await?;
        self.times.bytes_sent += payload.len() as u64;
        Ok(())
    }

    /// As [`Self::receive`], for a part whose length is known.
    async fn receive_exact(
        &mut self,
        peer: usize,
        part: u32,
        bytes_due: usize,
        first: bool,
    ) -> Result<Bytes, CollectiveError> {
        let bytes = self.receive(peer, part, first).await?;
        if bytes.len() == bytes_due {
            return Ok(bytes);
        }
        Err(self.link(peer).wrong_length(part, &format!("{bytes_due} bytes"), bytes.len()))
    }

    /// Waits for a part; `first`: the time that takes is a wait for the peer, not for its bytes.
    async fn receive(
        &mut self,
        peer: usize,
        part: u32,
        first: bool,
    ) -> Result<Bytes, CollectiveError> {
        let started = first.then(Instant::now);
        let link = self.links[peer].as_mut().expect(NO_LINK);
        let bytes = link.receive(self.tag, part, self.patience).await;
        if let Some(started) = started {
            self.times.wait += started.elapsed();
        }
        let bytes = bytes?;
        self.times.bytes_received += bytes.len() as u64;
        Ok(bytes)
    }

    fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.world()).filter(move |peer| *peer != rank)
    }

    fn link(&self, peer: usize) -> &Link {
        self.links[peer].as_ref().expect(NO_LINK)
    }
}

const NO_LINK: &str = "there is a link to every peer until a collective fails";

/// Whoever waited for has nothing to do with it: the coordinator has gone on.
fn superseded(tag: Tag, rank: usize) -> CollectiveError {
    let reason = "a newer group forms".to_owned();
    CollectiveError::PeerLost { peer: rank, step: tag.step, index: tag.index, reason }
}

/// Lets the streams take what was queued. What we wait for may be here already, and then nothing would
/// leave before the next collective.
async fn let_leave() {
    tokio::task::yield_now().await;
}

fn bytes_of(numbers: &Range<usize>) -> Range<usize> {
    numbers.start * size_of::<f64>()..numbers.end * size_of::<f64>()
}

fn numbers_of(bytes: &Range<usize>) -> Range<usize> {
    bytes.start / size_of::<f64>()..bytes.end / size_of::<f64>()
}

fn part_count(numbers: &Range<usize>) -> u32 {
    u32::try_from(parts(bytes_of(numbers).len()).count()).expect("a payload has few parts")
}

fn copy_numbers(values: &mut [f64], bytes: &[u8]) {
    bytemuck::cast_slice_mut::<f64, u8>(values).copy_from_slice(bytes);
}

fn add_numbers(values: &mut [f64], bytes: &[u8]) {
    for (value, number) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value += f64::from_le_bytes(*number);
    }
}
