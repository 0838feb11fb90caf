//! A rank in another process: the channels of a [`Member`], carried over gRPC.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proto::MESSAGE_BYTES_MAX;
use proto::worker::load_progress::State;
use proto::worker::worker_client::WorkerClient;
use proto::worker::{
    DescribeRequest, Description, LoadRequest, Loaded, Loading, StepReply, StepRequest,
};
use tls::Guard;
use tokio::sync::{mpsc, oneshot};
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
/// Steps under way: one that runs, and one that was sent ahead.
const STEPS_MAX: usize = 2;
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

/// Where the answer to a step goes.
type Reply = oneshot::Sender<Result<StepReply, MemberError>>;

struct Steps {
    requests: mpsc::Sender<StepRequest>,
    replies: Streaming<StepReply>,
}

impl Remote {
    async fn serve(mut self, mut asked: mpsc::Receiver<MemberRequest>) {
        let mut aside = None;
        loop {
            let request = match aside.take() {
                Some(request) => request,
                None => match asked.recv().await {
                    Some(request) => request,
                    None => return,
                },
            };
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
                MemberRequest::Step { request, reply } => {
                    aside = self.run_steps((request, reply), &mut asked).await;
                }
            }
        }
    }

    /// Sends a step, and the one that is asked for meanwhile, until none is under way. Gives what else was
    /// asked.
    async fn run_steps(
        &mut self,
        first: (Arc<StepRequest>, Reply),
        asked: &mut mpsc::Receiver<MemberRequest>,
    ) -> Option<MemberRequest> {
        let mut next = Some(first);
        let mut aside = None;
        let mut waiting: VecDeque<Reply> = VecDeque::new();
        loop {
            if let Some((request, reply)) = next.take() {
                waiting.push_back(reply);
                let sent = tokio::select! {
                    sent = self.send(request) => Some(sent),
                    () = gone(&mut waiting) => None,
                };
                if !matches!(sent, Some(Ok(()))) {
                    let reply = waiting.pop_front().expect("somebody waits for the step");
                    self.hand_over(sent.and_then(Result::err).map(Err), reply);
                    return aside;
                }
            }
            let takes = waiting.len() < STEPS_MAX && aside.is_none() && !asked.is_closed();
            let answer = tokio::select! {
                biased;
                answer = self.answer() => Some(answer),
                () = gone(&mut waiting) => None,
                request = asked.recv(), if takes => {
                    match request {
                        Some(MemberRequest::Step { request, reply }) => {
                            next = Some((request, reply));
                        }
                        request => aside = request,
                    }
                    continue;
                }
            };
            let is_lost = !matches!(answer, Some(Ok(_)));
            let reply = waiting.pop_front().expect("somebody waits for the step");
            self.hand_over(answer, reply);
            if is_lost {
                self.steps = None;
            }
            // Whoever waits for a step behind one that is lost hears that nobody answers any more.
            if is_lost || waiting.is_empty() {
                return aside;
            }
        }
    }

    /// An answer that was given up, or that says the rank is lost, leaves nothing of the connection.
    fn hand_over<T>(
        &mut self,
        answer: Option<Result<T, MemberError>>,
        reply: oneshot::Sender<Result<T, MemberError>>,
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

    async fn send(&mut self, request: Arc<StepRequest>) -> Result<(), MemberError> {
        let request = Arc::unwrap_or_clone(request);
        if let Some(steps) = &self.steps {
            return steps.requests.send(request).await.map_err(|_| ended());
        }
        self.steps = Some(self.open_steps(request).await?);
        Ok(())
    }

    /// The next reply to a step.
    async fn answer(&mut self) -> Result<StepReply, MemberError> {
        let steps = self.steps.as_mut().ok_or_else(ended)?;
        let reply = steps.replies.message().await.map_err(|status| failed(&status))?;
        reply.ok_or_else(ended)
    }

    /// The first request is on its way before the stream is answered: the worker may wait for it.
    async fn open_steps(&mut self, first: StepRequest) -> Result<Steps, MemberError> {
        let (requests, outgoing) = mpsc::channel(STEPS_MAX);
        requests.try_send(first).expect("the channel is new and holds one");
        let answer = self.client().steps(ReceiverStream::new(outgoing)).await;
        let replies = answer.map_err(|status| failed(&status))?.into_inner();
        Ok(Steps { requests, replies })
    }
}

/// Nobody waits any more for the first of these.
async fn gone(waiting: &mut VecDeque<Reply>) {
    match waiting.front_mut() {
        Some(reply) => reply.closed().await,
        None => std::future::pending().await,
    }
}

fn ended() -> MemberError {
    MemberError::Lost("the stream of steps ended".to_owned())
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
