//! Where peers find each other: dials the lower ranks, answers the higher ones.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use proto::collective::Frame;
use proto::collective::peer_server::{Peer, PeerServer};
use tls::Guard;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use crate::collective::grpc::agreement::{self, Agreement};
use crate::collective::grpc::dial::{dial, is_greeting};
use crate::collective::grpc::link::{Link, QUEUED_FRAMES_MAX};
use crate::collective::grpc::{Driver, FRAME_BYTES_MAX, GrpcCollective};
use crate::collective::{Collective, CollectiveError, LaneChoice};

/// How long a stream that was opened to us may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// Streams of peers that wait to be taken into a group; more are refused.
const ARRIVALS_MAX: usize = 64;

/// Why a group did not form.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FormError {
    /// A lower rank could not be reached in time.
    #[error("cannot reach rank {peer} at {address}: {reason}")]
    Unreachable {
        /// Who.
        peer: usize,
        /// Where.
        address: String,
        /// What the last attempt said.
        reason: String,
    },
    /// A higher rank did not call in time.
    #[error("rank {peer} at {address} did not call")]
    Silent {
        /// Who; the first of those missing.
        peer: usize,
        /// Where it is.
        address: String,
    },
    /// A lower rank does not want us.
    #[error("rank {peer} at {address} refuses: {reason}")]
    Refused {
        /// Who.
        peer: usize,
        /// Where.
        address: String,
        /// As it says.
        reason: String,
    },
    /// Everyone was there, and a rank did not stay.
    #[error("rank {peer} at {address} left the group while it formed: {reason}")]
    Left {
        /// Who.
        peer: usize,
        /// Where it was.
        address: String,
        /// What was missed.
        reason: String,
    },
    /// The epoch is not newer than the last, or a newer one came in between.
    #[error("epoch {epoch} is over: this worker has seen epoch {newest}")]
    Superseded {
        /// Which was to form.
        epoch: u64,
        /// The newest there is.
        newest: u64,
    },
    /// What was asked makes no sense.
    #[error("rank {rank} of {world} cannot be")]
    Impossible {
        /// Which rank was asked for.
        rank: usize,
        /// Of how many.
        world: usize,
    },
}

/// One worker's meeting place for groups, one group at a time. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Switchboard {
    driver: Driver,
    desk: Desk,
    guard: Guard,
    lane: LaneChoice,
}

/// Where higher ranks call: the gRPC service of a [`Switchboard`].
#[derive(Clone, Default)]
pub struct Desk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The newest epoch that we were told of.
    epoch: u64,
    /// While a group forms.
    forming: Option<Forming>,
    /// Ends the waits of the newest group.
    over: CancellationToken,
}

/// A group that has come together: our rank, and a link to each of the others.
struct Met {
    rank: u32,
    links: Vec<Option<Link>>,
    /// Cancelled when a newer group forms.
    over: CancellationToken,
}

struct Forming {
    rank: u32,
    world: u32,
    arrivals: mpsc::Sender<Link>,
}

impl Switchboard {
    /// As [`Switchboard::guarded`], for peers that anybody can be, over gRPC.
    ///
    /// # Errors
    /// As there.
    pub fn start() -> io::Result<Self> {
        Self::guarded(Guard::Open, LaneChoice::Grpc)
    }

    /// With a thread for its streams, and peers that prove who they are.
    ///
    /// # Errors
    /// When the operating system does not give one.
    pub fn guarded(guard: Guard, lane: LaneChoice) -> io::Result<Self> {
        Ok(Self { driver: Driver::start()?, desk: Desk::default(), guard, lane })
    }

    /// What drives the streams.
    #[must_use]
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Where higher ranks call. Serve it on the driver's runtime.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Meets all the others of a group, and takes a lane with them: `peers` are the addresses of all ranks in
    /// order, ours too.
    ///
    /// # Errors
    /// [`FormError`], when not everyone is there within `patience`.
    ///
    /// # Panics
    /// Only together with the task that it starts: when there is a bug.
    pub async fn form(
        &self,
        epoch: u64,
        rank: usize,
        peers: &[String],
        patience: Duration,
    ) -> Result<Box<dyn Collective>, FormError> {
        // The streams belong to the driver's runtime, wherever this is called.
        let (board, peers) = (self.clone(), peers.to_vec());
        let forming = async move { board.meet_and_agree(epoch, rank, &peers, patience).await };
        let forming = AbortOnDropHandle::new(self.driver.handle().spawn(forming));
        forming.await.expect("forming does not panic")
    }

    async fn meet_and_agree(
        &self,
        epoch: u64,
        rank: usize,
        peers: &[String],
        patience: Duration,
    ) -> Result<Box<dyn Collective>, FormError> {
        let deadline = Instant::now() + patience;
        let met = self.desk.meet(epoch, rank, peers, &self.guard, deadline).await?;
        let Met { rank: own, mut links, over } = met;
        let agreement = Agreement { epoch, rank: own, links: &mut links, deadline };
        let agreed = tokio::select! {
            agreed = agreement.reach(&self.lane) => agreed.map_err(|error| apart(&error, peers))?,
            () = over.cancelled() => {
                return Err(FormError::Superseded { epoch, newest: self.desk.lock().epoch });
            }
        };
        Ok(match agreed {
            Ok(segment) => {
                info!(epoch, rank, "sums go through shared memory");
                Box::new(agreement::share(segment, &self.driver, epoch, rank, links, over))
            }
            Err(reason) => {
                // Who was told so need not be told again.
                match self.lane {
                    LaneChoice::Grpc => debug!(epoch, rank, reason, "sums go over gRPC"),
                    LaneChoice::Auto(_) => info!(epoch, rank, reason, "sums go over gRPC"),
                }
                Box::new(GrpcCollective::new(self.driver.clone(), epoch, own, links, over))
            }
        })
    }
}

impl Desk {
    /// The gRPC service.
    #[must_use]
    pub fn service(&self) -> PeerServer<Self> {
        PeerServer::new(self.clone()).max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls the lower ranks, and waits for the higher ones to call.
    async fn meet(
        &self,
        epoch: u64,
        rank: usize,
        peers: &[String],
        guard: &Guard,
        deadline: Instant,
    ) -> Result<Met, FormError> {
        let world = peers.len();
        let (own, mut arrivals, over) = self.announce(epoch, rank, world)?;
        let mut links: Vec<Option<Link>> = (0..world).map(|_| None).collect();
        let greeting = Frame { epoch, rank: own, ..Frame::default() };
        let mut dials: FuturesUnordered<_> = (0..rank)
            .map(|peer| dial(peer, &peers[peer], guard, greeting.clone(), deadline))
            .collect();
        while let Some(missing) = (0..world).find(|peer| *peer != rank && links[*peer].is_none()) {
            let link = tokio::select! {
                biased;
                Some(dialled) = dials.next() => dialled?,
                arrived = arrivals.recv() => {
                    let newest = || self.lock().epoch;
                    arrived.ok_or_else(|| FormError::Superseded { epoch, newest: newest() })?
                }
                // A dial that is under way ends at the deadline by itself, and says more.
                () = sleep_until(deadline), if dials.is_empty() => {
                    let address = peers[missing].clone();
                    return Err(FormError::Silent { peer: missing, address });
                }
            };
            // A peer that calls twice has lost its first call.
            let peer = link.peer;
            links[peer] = Some(link);
        }
        self.conclude(epoch)?;
        Ok(Met { rank: own, links, over })
    }

    /// Lets higher ranks of this epoch call from now on; ends whatever was forming, and what the
    /// group before waits for. Gives our rank as it is on the wire, where the calls come in, and what
    /// tells that a newer group forms.
    fn announce(
        &self,
        epoch: u64,
        rank: usize,
        world: usize,
    ) -> Result<(u32, mpsc::Receiver<Link>, CancellationToken), FormError> {
        let impossible = FormError::Impossible { rank, world };
        let (Ok(own), Ok(all)) = (u32::try_from(rank), u32::try_from(world)) else {
            return Err(impossible);
        };
        if own >= all {
            return Err(impossible);
        }
        let mut state = self.lock();
        if epoch <= state.epoch {
            return Err(FormError::Superseded { epoch, newest: state.epoch });
        }
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        state.epoch = epoch;
        state.forming = Some(Forming { rank: own, world: all, arrivals });
        let over = CancellationToken::new();
        std::mem::replace(&mut state.over, over.clone()).cancel();
        Ok((own, receiver, over))
    }

    /// Everyone is there: nobody else may call.
    fn conclude(&self, epoch: u64) -> Result<(), FormError> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Err(FormError::Superseded { epoch, newest: state.epoch });
        }
        state.forming = None;
        Ok(())
    }

    /// Hands a stream that was opened to us to the group that it names, and greets back.
    fn admit(
        &self,
        greeting: &Frame,
        incoming: Streaming<Frame>,
    ) -> Result<mpsc::Receiver<Frame>, Status> {
        let state = self.lock();
        let (theirs, ours) = (greeting.epoch, state.epoch);
        if theirs > ours {
            // Retried: we will be told of it soon.
            return Err(Status::unavailable(format!("not yet at epoch {theirs}, but at {ours}")));
        }
        if theirs < ours {
            return Err(Status::aborted(format!("epoch {theirs} is over: now at {ours}")));
        }
        let Some(forming) = &state.forming else {
            return Err(Status::aborted(format!("the group of epoch {ours} is complete")));
        };
        let Forming { rank, world, arrivals } = forming;
        if greeting.rank <= *rank || greeting.rank >= *world {
            return Err(Status::invalid_argument(format!(
                "rank {rank} of {world} is not called by a rank {}",
                greeting.rank
            )));
        }
        let (outgoing, frames) = mpsc::channel(QUEUED_FRAMES_MAX);
        let answer = Frame { epoch: ours, rank: *rank, ..Frame::default() };
        outgoing.try_send(answer).expect("the queue is new");
        let peer = usize::try_from(greeting.rank).expect("checked to be a rank");
        arrivals
            .try_send(Link::new(peer, outgoing, incoming))
            .map_err(|_| Status::unavailable(format!("epoch {ours} is not forming any more")))?;
        Ok(frames)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Desk")
            .field("epoch", &state.epoch)
            .field("forming", &state.forming.is_some())
            .finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Peer for Desk {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut incoming = request.into_inner();
        let greeting = timeout(GREETING_PATIENCE, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its greeting"))?;
        if !is_greeting(&greeting) {
            return Err(Status::invalid_argument("the first frame must be a greeting"));
        }
        let frames = self.admit(&greeting, incoming)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }
}

/// What it means for a group that its ranks could not agree.
fn apart(error: &CollectiveError, peers: &[String]) -> FormError {
    let (CollectiveError::Deadline { peer, .. }
    | CollectiveError::PeerLost { peer, .. }
    | CollectiveError::Mismatch { peer, .. }) = *error;
    FormError::Left { peer, address: peers[peer].clone(), reason: error.to_string() }
}
