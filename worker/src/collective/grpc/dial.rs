//! Calling a lower rank, until it answers or refuses for good.

use std::time::Duration;

use proto::collective::Frame;
use proto::collective::peer_client::PeerClient;
use tls::Guard;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::collective::grpc::link::{Link, QUEUED_FRAMES_MAX};
use crate::collective::grpc::{FRAME_BYTES_MAX, FormError, tuned_endpoint};

/// Between two attempts to reach a peer: it may not listen yet, or not know of the epoch yet.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// One attempt to connect takes no longer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Calls a lower rank until it answers, refuses for good, or the deadline passes.
pub(super) async fn dial(
    peer: usize,
    address: &str,
    guard: &Guard,
    greeting: Frame,
    deadline: Instant,
) -> Result<Link, FormError> {
    let mut reason = "no answer".to_owned();
    loop {
        let attempt = timeout_at(deadline, call(peer, address, guard, greeting.clone())).await;
        match attempt {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(status)) => {
                reason = status.message().to_owned();
                if matches!(status.code(), Code::Aborted | Code::InvalidArgument) {
                    let address = address.to_owned();
                    return Err(FormError::Refused { peer, address, reason });
                }
            }
            Err(_elapsed) => {}
        }
        if timeout_at(deadline, sleep(RETRY_AFTER)).await.is_err() {
            let address = address.to_owned();
            return Err(FormError::Unreachable { peer, address, reason });
        }
    }
}

/// One attempt.
async fn call(peer: usize, address: &str, guard: &Guard, greeting: Frame) -> Result<Link, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(format!("not an address: {error}")))?;
    let endpoint = tuned_endpoint(endpoint).connect_timeout(CONNECT_PATIENCE);
    let channel =
        guard.connect(&endpoint).await.map_err(|error| Status::unavailable(with_causes(&error)))?;
    let epoch = greeting.epoch;
    let (outgoing, frames) = mpsc::channel(QUEUED_FRAMES_MAX);
    outgoing.try_send(greeting).expect("the queue is new");
    let mut client = PeerClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    let mut incoming = client.exchange(ReceiverStream::new(frames)).await?.into_inner();
    let answer = incoming.message().await?;
    let answer = answer.ok_or_else(|| Status::unavailable("it hung up instead of greeting"))?;
    let is_peer = answer.epoch == epoch && usize::try_from(answer.rank) == Ok(peer);
    if !is_greeting(&answer) || !is_peer {
        return Err(Status::invalid_argument(format!(
            "it greets as rank {} of epoch {}",
            answer.rank, answer.epoch
        )));
    }
    Ok(Link::new(peer, outgoing, incoming))
}

/// Whether a frame is the first of a stream.
pub(super) fn is_greeting(frame: &Frame) -> bool {
    frame.step == 0 && frame.index == 0 && frame.part == 0 && frame.payload.is_empty()
}

/// An error and what caused it: the transport's own text says little.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
