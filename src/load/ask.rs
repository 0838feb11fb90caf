//! One request, from its first byte to the last of its answer, and what was seen of it.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use tokio::time::timeout_at;

use crate::load::http::{Connection, HttpError, text};
use crate::load::prompts::Asked;
use crate::load::stream::{Chunk, Events};
use crate::load::target::Target;

/// What a client saw of one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// When it was sent, after the start of the load.
    pub(crate) start: Duration,
    /// Sent until the answer had ended.
    pub(crate) e2e: Duration,
    /// Sent until the first text came.
    pub(crate) ttft: Option<Duration>,
    /// Between one piece of text and the next.
    pub(crate) gaps: Vec<Duration>,
    /// Tokens of the prompt, as the server counted them.
    pub(crate) prompt_tokens: u32,
    /// Tokens of the answer, as the server counted them; where it did not, pieces of text.
    pub(crate) output_tokens: u32,
    /// How it ended.
    pub(crate) ended: Ended,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a whole answer, and why it was whole.
    Answered(String),
    /// Turned away with a status.
    Status(u16),
    /// Cut short, and how: a broken connection, no end in time, an error within the answer.
    Failed(String),
}

impl Sample {
    /// It has a whole answer.
    pub(crate) fn answered(&self) -> bool {
        matches!(self.ended, Ended::Answered(_))
    }

    /// Time for each token after the first.
    pub(crate) fn tpot(&self) -> Option<Duration> {
        let after_first = self.output_tokens.checked_sub(1).filter(|count| *count > 0)?;
        let spent: Duration = self.gaps.iter().sum();
        Some(spent / after_first)
    }
}

/// A client: one connection, one request at a time.
#[derive(Default)]
pub(crate) struct Client {
    connection: Option<Connection>,
}

impl Client {
    /// Asks, and waits for the end.
    pub(crate) async fn ask(&mut self, target: &Target, asked: &Asked, began: Instant) -> Sample {
        let sent = Instant::now();
        let mut sample = Sample {
            start: sent - began,
            e2e: Duration::ZERO,
            ttft: None,
            gaps: Vec::new(),
            prompt_tokens: 0,
            output_tokens: 0,
            ended: Ended::Failed("no end in time".to_owned()),
        };
        let deadline = tokio::time::Instant::now() + target.timeout;
        let asking = self.exchange(target, asked, sent, &mut sample);
        let ended = timeout_at(deadline, asking).await;
        match ended {
            Ok(Ok(ended)) => sample.ended = ended,
            Ok(Err(error)) => sample.ended = Ended::Failed(error.to_string()),
            Err(_) => {}
        }
        if !sample.answered() {
            self.connection = None;
        }
        sample.e2e = sent.elapsed();
        sample
    }

    async fn exchange(
        &mut self,
        target: &Target,
        asked: &Asked,
        sent: Instant,
        sample: &mut Sample,
    ) -> Result<Ended, HttpError> {
        let response = self.send(target, asked).await?;
        let status = response.status().as_u16();
        if status != 200 {
            let why = text(response).await.unwrap_or_default();
            tracing::debug!(status, why, "turned away");
            return Ok(Ended::Status(status));
        }
        read(response, sent, sample).await
    }

    /// A connection that the server has closed meanwhile is replaced, before anything was sent on it.
    async fn send(
        &mut self,
        target: &Target,
        asked: &Asked,
    ) -> Result<Response<Incoming>, HttpError> {
        let kept = self.connection.take().filter(Connection::is_ready);
        let mut connection = match kept {
            Some(connection) => connection,
            None => target.origin.connect().await?,
        };
        let request = target.origin.request(target.path(), Some(target.body(asked)));
        let response = connection.send(request).await?;
        self.connection = Some(connection);
        Ok(response)
    }
}

/// Reads the stream to its end.
async fn read(
    response: Response<Incoming>,
    sent: Instant,
    sample: &mut Sample,
) -> Result<Ended, HttpError> {
    let mut body = response.into_body();
    let mut events = Events::default();
    let mut seen = Seen::default();
    while let Some(frame) = body.frame().await {
        let now = Instant::now();
        let frame = frame.map_err(|error| HttpError::Broken(error.to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        for chunk in events.take(&bytes).map_err(HttpError::Broken)? {
            seen.take(chunk, now, sent, sample);
        }
    }
    if let Some(error) = seen.error {
        return Ok(Ended::Failed(error));
    }
    if sample.output_tokens == 0 {
        sample.output_tokens = seen.pieces;
    }
    match seen.finish {
        Some(finish) if seen.done => Ok(Ended::Answered(finish)),
        _ => Err(HttpError::Broken("the answer ended too early".to_owned())),
    }
}

/// What the chunks said so far.
#[derive(Default)]
struct Seen {
    pieces: u32,
    last: Option<Instant>,
    finish: Option<String>,
    error: Option<String>,
    done: bool,
}

impl Seen {
    fn take(&mut self, chunk: Chunk, now: Instant, sent: Instant, sample: &mut Sample) {
        if chunk.text {
            match self.last {
                None => sample.ttft = Some(now - sent),
                Some(last) => sample.gaps.push(now - last),
            }
            self.last = Some(now);
            self.pieces += 1;
        }
        if let Some((prompt, answer)) = chunk.usage {
            (sample.prompt_tokens, sample.output_tokens) = (prompt, answer);
        }
        self.finish = chunk.finish.or(self.finish.take());
        self.error = chunk.error.or(self.error.take());
        self.done |= chunk.done;
    }
}
