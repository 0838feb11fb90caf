//! A rank in another process: the channels of a [`Member`], carried over gRPC.

use std::sync::Arc;
use std::time::Duration;

use proto::MESSAGE_BYTES_MAX;
use proto::worker::load_progress::State;
use proto::worker::worker_client::WorkerClient;
use proto::worker::{
    DescribeRequest, Description, LoadRequest, Loaded, Loading, StepReply, StepRequest,
};
use tls::Guard;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::cluster::{Member, MemberError, MemberRequest};

/// A peer that does not accept within this time is not there.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A connection is asked for a sign of life this often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// And given this long to answer: a peer that is stopped or gone without a word is noticed in 4 s, and
/// one on a machine that is only busy is not.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Room in the windows for a step's plan with its block tables without waiting for credit.
const WINDOW_BYTES: u32 = 4 << 20;

/// A rank at `host:port`. Nothing is sent before it is asked something; a connection that broke is
/// made anew by the next question. Must be called within a tokio runtime; its task ends with the
/// last clone of the [`Member`].
///
/// # Errors
/// [`MemberError::Refused`] when the address cannot be one.
pub fn connect(address: &str, guard: &Guard) -> Result<Member, MemberError> {
    let refused = |error| MemberError::Refused(format!("{address} is no address: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(refused)?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(ASK_EVERY)
        .keep_alive_timeout(ANSWER_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let (requests, asked) = mpsc::channel(1);
    let guard = guard.clone();
    tokio::spawn(Remote { endpoint, guard, client: None, steps: None }.serve(asked));
    Ok(Member { name: address.to_owned(), address: Some(address.to_owned()), requests })
}

/// The task behind a member.
struct Remote {
    endpoint: Endpoint,
    guard: Guard,
    /// Connected, as far as we know.
    client: Option<WorkerClient<Channel>>,
    /// The group's stream of steps.
    steps: Option<Steps>,
}

struct Steps {
    requests: mpsc::Sender<StepRequest>,
    replies: Streaming<StepReply>,
}

impl Remote {
    async fn serve(mut self, mut asked: mpsc::Receiver<MemberRequest>) {
        while let Some(request) = asked.recv().await {
            match request {
                MemberRequest::Describe { mut reply } => {
                    let answer = tokio::select! {
                        answer = self.describe() => Some(answer),
                        () = reply.closed() => None,
                    };
                    self.hand_over(answer, reply);
                }
                MemberRequest::Load { request, progress, mut reply } => {
                    let answer = tokio::select! {
                        answer = self.load(request, &progress) => Some(answer),
                        () = reply.closed() => None,
                    };
                    self.hand_over(answer, reply);
                }
                MemberRequest::Step { request, mut reply } => {
                    let answer = tokio::select! {
                        answer = self.step(request) => Some(answer),
                        () = reply.closed() => None,
                    };
                    self.hand_over(answer, reply);
                }
            }
        }
    }

    /// An answer that was given up, or that says the rank is lost, leaves nothing of the connection.
    fn hand_over<T>(
        &mut self,
        answer: Option<Result<T, MemberError>>,
        reply: tokio::sync::oneshot::Sender<Result<T, MemberError>>,
    ) {
        if matches!(answer, None | Some(Err(MemberError::Lost(_)))) {
            self.client = None;
            self.steps = None;
        }
        if let Some(answer) = answer {
            // The asker being gone is fine: it has stopped waiting.
            drop(reply.send(answer));
        }
    }

    fn client(&mut self) -> WorkerClient<Channel> {
        let Self { endpoint, guard, client, .. } = self;
        client
            .get_or_insert_with(|| {
                WorkerClient::new(guard.lazy(endpoint))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX)
            })
            .clone()
    }

    async fn describe(&mut self) -> Result<Description, MemberError> {
        let answer = self.client().describe(DescribeRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failed(&status))
    }

    async fn load(
        &mut self,
        request: LoadRequest,
        progress: &mpsc::Sender<Loading>,
    ) -> Result<Loaded, MemberError> {
        self.steps = None;
        let answer = self.client().load(request).await;
        let mut states = answer.map_err(|status| failed(&status))?.into_inner();
        while let Some(message) = states.message().await.map_err(|status| failed(&status))? {
            match message.state {
                Some(State::Loaded(loaded)) => return Ok(loaded),
                // A full channel only means that nobody looks just now.
                Some(State::Loading(loading)) => drop(progress.try_send(loading)),
                None => {}
            }
        }
        Err(MemberError::Lost("the stream ended before the model was loaded".to_owned()))
    }

    async fn step(&mut self, request: Arc<StepRequest>) -> Result<StepReply, MemberError> {
        let ended = || MemberError::Lost("the stream of steps ended".to_owned());
        let request = Arc::unwrap_or_clone(request);
        let mut steps = match self.steps.take() {
            Some(steps) => {
                steps.requests.send(request).await.map_err(|_| ended())?;
                steps
            }
            None => self.open_steps(request).await?,
        };
        let reply = steps.replies.message().await.map_err(|status| failed(&status))?;
        self.steps = Some(steps);
        reply.ok_or_else(ended)
    }

    /// The first request is on its way before the stream is answered: the worker may wait for it.
    async fn open_steps(&mut self, first: StepRequest) -> Result<Steps, MemberError> {
        let (requests, outgoing) = mpsc::channel(1);
        requests.try_send(first).expect("the channel is new and holds one");
        let answer = self.client().steps(ReceiverStream::new(outgoing)).await;
        let replies = answer.map_err(|status| failed(&status))?.into_inner();
        Ok(Steps { requests, replies })
    }
}

/// Whether asking again may help.
fn failed(status: &Status) -> MemberError {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated
        | Code::AlreadyExists => MemberError::Refused(status.message().to_owned()),
        // A broken connection shows up as any of these.
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => MemberError::Lost(cause(status)),
    }
}

/// The innermost reason: `connection refused` rather than `transport error`.
fn cause(status: &Status) -> String {
    let mut source = std::error::Error::source(status);
    let mut said = status.message().to_owned();
    while let Some(error) = source {
        said = error.to_string();
        source = error.source();
    }
    said
}
