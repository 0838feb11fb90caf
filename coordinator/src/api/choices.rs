//! One group's events to the pieces of text that a client sees.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use scheduler::{CancelReason, FinishReason, TokenId};

use crate::answer::AnswerText;
use crate::api::Api;
use crate::api::parameters::Parameters;
use crate::engine::{Answer, AnswerEvent};
use crate::metrics::Metrics;
use crate::prompt::Tokenizer;

/// What a client sees of an answer, in order. `Ended` or `Failed` comes once and last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A choice grew.
    Text { index: u32, text: String },
    /// A choice is complete.
    Finished { index: u32, reason: &'static str },
    /// All choices of the group are.
    Ended(Spent),
    /// The answer cannot be completed.
    Failed(String),
}

/// Tokens that a group took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    /// Of the prompt, had by the prefix cache.
    pub(super) cached: u64,
    /// When the last of them was there.
    pub(super) at: Option<Instant>,
}

impl Spent {
    pub(super) fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.cached += other.cached;
        self.at = self.at.max(other.at);
    }
}

/// The choices of one group.
#[derive(Debug)]
pub(super) struct Choices {
    answer: Answer,
    tokenizer: Arc<Tokenizer>,
    metrics: Arc<Metrics>,
    parameters: Arc<Parameters>,
    choices: Vec<Choice>,
    /// Of the first choice.
    index: u32,
    prompt_tokens: u64,
    pieces: VecDeque<Piece>,
    /// All choices are complete and the rest of the group was called off.
    called_off: bool,
}

/// One sequence's text.
#[derive(Debug)]
struct Choice {
    text: AnswerText,
    tokens: u32,
    /// A token that may turn out to be the end of the answer, and then is not part of it.
    held: Option<TokenId>,
    complete: bool,
}

impl Choices {
    /// `index` is that of the first choice. With `echo`, every choice begins with it.
    pub(super) fn new(
        answer: Answer,
        api: &Api,
        parameters: Arc<Parameters>,
        index: u32,
        prompt_tokens: usize,
        echo: &str,
    ) -> Self {
        let choice = || Choice {
            text: AnswerText::new(parameters.stop.clone()),
            tokens: 0,
            held: None,
            complete: false,
        };
        let choices: Vec<Choice> = (0..parameters.sequences).map(|_| choice()).collect();
        let echoes = (index..index + parameters.sequences).filter(|_| !echo.is_empty());
        let pieces = echoes.map(|index| Piece::Text { index, text: echo.to_owned() }).collect();
        let prompt_tokens = u64::try_from(prompt_tokens).unwrap_or(u64::MAX);
        Self {
            answer,
            tokenizer: Arc::clone(&api.tokenizer),
            metrics: Arc::clone(&api.metrics),
            parameters,
            choices,
            index,
            prompt_tokens,
            pieces,
            called_off: false,
        }
    }

    /// The next piece; none after the last.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            match self.answer.next().await? {
                AnswerEvent::Token { index, token } => self.grow(index, token),
                AnswerEvent::SequenceFinished { index, reason } => self.finish(index, reason),
                AnswerEvent::Finished { .. }
                    if !self.choices.iter().all(|choice| choice.complete) =>
                {
                    return Some(Piece::Failed("the answer could not be completed".to_owned()));
                }
                AnswerEvent::Finished { times, at } => {
                    let completion = self.choices.iter().map(|choice| u64::from(choice.tokens));
                    return Some(Piece::Ended(Spent {
                        prompt: self.prompt_tokens,
                        completion: completion.sum(),
                        cached: u64::from(times.cached_tokens.0),
                        at: Some(at),
                    }));
                }
                AnswerEvent::Failed { message } => return Some(Piece::Failed(message)),
            }
            // A stop string ends one sequence; the engine can only end them all.
            if !self.called_off && self.stopped_all() {
                self.called_off = true;
                self.answer.cancel(CancelReason::Stop).await;
            }
        }
    }

    fn grow(&mut self, index: u32, token: TokenId) {
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if choice.complete {
            return;
        }
        let mut text = String::new();
        if let Some(held) = choice.held.take() {
            text = choice.push(held, &self.tokenizer, &self.parameters);
        }
        choice.tokens = choice.tokens.saturating_add(1);
        self.metrics.answer_token();
        let special = self.tokenizer.is_special(token.0);
        if special || self.parameters.stop_tokens.contains(&token.0) {
            choice.held = Some(token);
        } else {
            text.push_str(&choice.push(token, &self.tokenizer, &self.parameters));
        }
        self.say(index, text);
        self.complete_if_stopped(index);
    }

    fn finish(&mut self, index: u32, reason: FinishReason) {
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if choice.complete {
            return;
        }
        let held = choice.held.take();
        let hidden = match reason {
            FinishReason::Stop(token) => token == held && !self.parameters.stop_shown,
            _ => false,
        };
        let mut text = String::new();
        if let Some(held) = held.filter(|_| !hidden) {
            text = choice.push(held, &self.tokenizer, &self.parameters);
        }
        let stopped = choice.text.is_stopped();
        text.push_str(&choice.text.finish());
        let reason = match reason {
            _ if stopped => "stop",
            FinishReason::Stop(_) => "stop",
            FinishReason::Length(_) => "length",
            FinishReason::Abort | FinishReason::Error => {
                // What follows tells why; nobody is told that this was an end.
                return;
            }
        };
        choice.complete = true;
        self.say(index, text);
        self.pieces.push_back(Piece::Finished { index: self.index + index, reason });
    }

    fn complete_if_stopped(&mut self, index: u32) {
        let choice = &mut self.choices[index as usize];
        if choice.text.is_stopped() {
            choice.complete = true;
            self.pieces.push_back(Piece::Finished { index: self.index + index, reason: "stop" });
        }
    }

    /// A stop string ended the last of them.
    fn stopped_all(&self) -> bool {
        self.choices.iter().all(|choice| choice.complete)
            && self.choices.iter().any(|choice| choice.text.is_stopped())
    }

    fn say(&mut self, index: u32, text: String) {
        if !text.is_empty() {
            self.pieces.push_back(Piece::Text { index: self.index + index, text });
        }
    }
}

impl Choice {
    /// A token's text, as far as it is certain.
    fn push(&mut self, token: TokenId, tokenizer: &Tokenizer, parameters: &Parameters) -> String {
        if tokenizer.is_special(token.0) && !parameters.special_shown {
            return String::new();
        }
        let bytes = tokenizer.token_bytes(token.0).unwrap_or_default();
        self.text.push(bytes, self.tokens >= parameters.tokens_min)
    }
}
