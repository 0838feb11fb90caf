//! The calls of `worker.proto` and `collective.proto`, for one rank.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, Stream, StreamExt, unfold};
use proto::collective::Frame;
use proto::collective::peer_server::Peer;
use proto::worker::worker_server::Worker;
use proto::worker::{
    DescribeRequest, Description, LoadProgress, LoadRequest, StepReply, StepRequest,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::backend::BackendError;
use crate::collective::grpc::{Desk, FormError};
use crate::metrics::WorkerMetrics;
use crate::rank::{LoadFailure, Rank};
use crate::runner::LoadError;

/// Steps of a stream that may be unanswered: the one that runs and the one after it.
const STEPS_MAX: usize = 2;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the coordinator calls.
#[derive(Debug)]
pub(super) struct WorkerCalls {
    rank: Rank,
    stop: CancellationToken,
    /// Ends the newest stream of steps.
    steps: Mutex<CancellationToken>,
}

/// What other ranks call.
#[derive(Debug)]
pub(super) struct PeerCalls {
    desk: Desk,
    metrics: WorkerMetrics,
}

impl WorkerCalls {
    pub(super) fn new(rank: Rank, stop: CancellationToken) -> Self {
        Self { rank, stop, steps: Mutex::default() }
    }

    /// Ends the stream of steps that there is: a coordinator that comes back cannot end its old one.
    fn take_over(&self) -> CancellationToken {
        let mine = CancellationToken::new();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *steps, mine.clone()).cancel();
        mine
    }

    fn count(&self, method: &str, ok: bool) {
        self.rank.metrics().rpc(method, ok);
    }
}

#[tonic::async_trait]
impl Worker for WorkerCalls {
    type LoadStream = Answers<LoadProgress>;
    type StepsStream = Answers<StepReply>;

    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<Description>, Status> {
        self.count("describe", true);
        Ok(Response::new(self.rank.describe()))
    }

    async fn load(
        &self,
        request: Request<LoadRequest>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        let loading = self.rank.load(request.get_ref());
        self.count("load", loading.is_ok());
        let progress = ReceiverStream::new(loading.map_err(|failure| status(&failure))?);
        let progress = progress.map(|told| told.map_err(|failure| status(&failure)));
        Ok(Response::new(Box::pin(progress)))
    }

    async fn steps(
        &self,
        request: Request<Streaming<StepRequest>>,
    ) -> Result<Response<Self::StepsStream>, Status> {
        self.count("steps", true);
        let steps = Steps {
            requests: request.into_inner(),
            ended: false,
            rank: self.rank.clone(),
            asked: FuturesOrdered::new(),
            taken_over: self.take_over(),
            stop: self.stop.clone(),
        };
        Ok(Response::new(Box::pin(unfold(Some(steps), |steps| async { steps?.next().await }))))
    }
}

#[tonic::async_trait]
impl Peer for PeerCalls {
    type ExchangeStream = <Desk as Peer>::ExchangeStream;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let admitted = self.desk.exchange(request).await;
        self.metrics.rpc("exchange", admitted.is_ok());
        admitted
    }
}

impl PeerCalls {
    pub(super) fn new(desk: Desk, metrics: WorkerMetrics) -> Self {
        Self { desk, metrics }
    }
}

/// A group's stream of steps, answered one by one.
struct Steps {
    requests: Streaming<StepRequest>,
    /// There will be no more requests.
    ended: bool,
    rank: Rank,
    /// Steps that are not answered yet, at most `STEPS_MAX`.
    asked: FuturesOrdered<BoxFuture<'static, StepReply>>,
    taken_over: CancellationToken,
    stop: CancellationToken,
}

impl Steps {
    /// The next reply and what follows it: nothing after an error.
    async fn next(mut self) -> Option<(Result<StepReply, Status>, Option<Self>)> {
        let taken_over = self.taken_over.clone();
        let replied = tokio::select! {
            biased;
            () = taken_over.cancelled() => {
                Some(Err(Status::aborted("another stream of steps took over")))
            }
            replied = self.reply() => replied,
        }?;
        let rest = replied.is_ok().then_some(self);
        Some((replied, rest))
    }

    /// A step that was asked for is answered, also when the worker is to stop. The next is taken meanwhile, so
    /// that it begins at once.
    async fn reply(&mut self) -> Option<Result<StepReply, Status>> {
        while !(self.ended && self.asked.is_empty()) {
            let Self { requests, ended, rank, asked, stop, .. } = self;
            let takes = !*ended && asked.len() < STEPS_MAX && !stop.is_cancelled();
            tokio::select! {
                biased;
                Some(reply) = asked.next() => return Some(Ok(reply)),
                () = stop.cancelled(), if asked.is_empty() => {
                    return Some(Err(Status::unavailable("the worker is stopping")));
                }
                message = requests.message(), if takes => match message {
                    Ok(Some(request)) => asked.push_back(Box::pin(rank.step(request))),
                    Ok(None) => *ended = true,
                    Err(broken) => return Some(Err(broken)),
                },
            }
        }
        None
    }
}

/// How a failure to load is said: whether asking again may help is in the code.
fn status(failure: &LoadFailure) -> Status {
    let text = failure.to_string();
    match failure {
        LoadFailure::Stale { .. } | LoadFailure::Model { .. } => Status::failed_precondition(text),
        LoadFailure::Order(_) | LoadFailure::Group(FormError::Impossible { .. }) => {
            Status::invalid_argument(text)
        }
        LoadFailure::Group(FormError::Superseded { .. }) => Status::aborted(text),
        LoadFailure::Group(_) => Status::unavailable(text),
        LoadFailure::Load(
            LoadError::Backend(BackendError::Memory { .. })
            | LoadError::NoBlock { .. }
            | LoadError::NoRoom { .. },
        ) => Status::resource_exhausted(text),
        LoadFailure::Load(LoadError::Backend(BackendError::Device(_)))
        | LoadFailure::Died { .. } => Status::internal(text),
        LoadFailure::Load(_) => Status::failed_precondition(text),
    }
}
