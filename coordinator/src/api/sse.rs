//! An answer given as it grows: server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::unfold;
use serde::Serialize;
use tokio::time::timeout;

use crate::api::choices::{Piece, Spent};
use crate::api::error::ApiError;
use crate::api::generate::{Attention, Envelope, Pieces, usage};
use crate::api::openai::{Answered, Delta, DeltaChoice, TextChoice, Usage};
use crate::api::parameters::Endpoint;
use crate::api::spoken::{self, Spoken};

/// Keeps proxies from giving up; clients skip it.
const PING: Bytes = Bytes::from_static(b": ping\n\n");
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// A stream under way.
struct Events {
    /// Dropped first: whoever hears of the cancelled groups can already see it counted.
    attention: Attention,
    pieces: Pieces,
    envelope: Envelope,
    /// The usage comes last, and every other chunk says that it does not have it.
    usage: bool,
    spent: Spent,
    /// For each choice: its first chunk was sent.
    begun: Vec<bool>,
    frames: VecDeque<Bytes>,
    /// The last frame is among those.
    over: bool,
    keep_alive_every: Duration,
}

/// The head with the first piece or, so that nobody on the way gives up, after `keep_alive_every`; the
/// rest as it comes.
///
/// # Errors
/// What ended the answer before its head was sent.
pub(super) async fn respond(
    pieces: Pieces,
    choices: usize,
    envelope: Envelope,
    usage: bool,
    keep_alive_every: Duration,
    attention: Attention,
) -> Result<Response, ApiError> {
    let mut events = Events {
        attention,
        pieces,
        envelope,
        usage,
        spent: Spent::default(),
        begun: vec![false; choices],
        frames: VecDeque::new(),
        over: false,
        keep_alive_every,
    };
    match timeout(keep_alive_every, events.pieces.next()).await {
        Ok(Some(Piece::Failed(error))) => {
            events.attention.failed();
            return Err(error);
        }
        Ok(Some(piece)) => events.take(piece),
        Ok(None) => events.end(),
        Err(_) => events.frames.push_back(PING),
    }
    let frames = unfold(events, |mut events| async move {
        let frame = events.next().await?;
        events.attention.bytes(frame.len());
        Some((Ok::<_, Infallible>(frame), events))
    });
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-cache"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            match timeout(self.keep_alive_every, self.pieces.next()).await {
                Err(_) => return Some(PING),
                Ok(Some(piece)) => self.take(piece),
                Ok(None) => self.end(),
            }
        }
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Text { index, text, spoken } => {
                self.begin(index);
                self.chunk(index, Some(&text), &spoken, None);
            }
            Piece::Finished { index, reason, limit, likelihood: _ } => {
                self.spent.limit = limit.or(self.spent.limit);
                self.begin(index);
                self.chunk(index, None, &[], Some(reason));
            }
            Piece::Ended(spent) => self.spent.add(spent),
            Piece::Failed(error) => {
                self.over = true;
                self.attention.failed();
                self.frame(&error.body());
            }
        }
    }

    /// All choices are complete.
    fn end(&mut self) {
        if self.usage {
            let usage = Some(usage(self.spent));
            match self.envelope.endpoint {
                Endpoint::Chat => self.answered::<DeltaChoice<'_>>(Vec::new(), usage),
                Endpoint::Completions => self.answered::<TextChoice<'_>>(Vec::new(), usage),
            }
        }
        self.frames.push_back(DONE);
        self.over = true;
        self.attention.complete(self.spent.at);
    }

    /// A message says whose it is before it says anything else.
    fn begin(&mut self, index: u32) {
        let begun = std::mem::replace(&mut self.begun[index as usize], true);
        if begun || self.envelope.endpoint == Endpoint::Completions {
            return;
        }
        let delta = Delta { role: Some("assistant"), content: Some("") };
        self.answered(
            vec![DeltaChoice { index, delta, logprobs: None, finish_reason: None }],
            None,
        );
    }

    fn chunk(
        &mut self,
        index: u32,
        text: Option<&str>,
        spoken: &[Spoken],
        finish_reason: Option<&'static str>,
    ) {
        let logprobs = self.envelope.logprobs && !spoken.is_empty();
        match self.envelope.endpoint {
            Endpoint::Chat => {
                let delta = Delta { role: None, content: text };
                self.answered(
                    vec![DeltaChoice {
                        index,
                        delta,
                        logprobs: logprobs.then(|| spoken::of_chat(spoken)),
                        finish_reason,
                    }],
                    None,
                );
            }
            Endpoint::Completions => {
                let text = text.unwrap_or_default();
                self.answered(
                    vec![TextChoice {
                        index,
                        text,
                        logprobs: logprobs.then(|| spoken::of_text(spoken)),
                        finish_reason,
                    }],
                    None,
                );
            }
        }
    }

    fn answered<C: Serialize>(&mut self, choices: Vec<C>, usage: Option<Usage>) {
        let object = match self.envelope.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions => "text_completion",
        };
        let frame = frame(&Answered {
            id: &self.envelope.id,
            object,
            created: self.envelope.created,
            model: &self.envelope.model,
            system_fingerprint: &self.envelope.fingerprint,
            choices,
            usage: self.usage.then_some(usage),
        });
        self.frames.push_back(frame);
    }

    fn frame<T: Serialize>(&mut self, value: &T) {
        self.frames.push_back(frame(value));
    }
}

/// One event: JSON has no line ends outside of strings, and inside they are escaped.
fn frame<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, value).expect("strings and numbers have a JSON form");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}
