//! One group's events to the pieces of text that a client sees.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use scheduler::{CancelReason, FinishReason, LengthLimit, TokenId};

use crate::answer::{AnswerText, StopStrings};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::spoken::Spoken;
use crate::cluster::Likelihood;
use crate::engine::{Answer, AnswerEvent, Failure};
use crate::metrics::Metrics;
use crate::prompt::Tokenizer;

/// What a client sees of an answer, in order. `Ended` or `Failed` comes once and last.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// A choice grew; with what its tokens were, if that was asked for.
    Text { index: u32, text: String, spoken: Vec<Spoken> },
    /// A choice is complete.
    Finished {
        index: u32,
        reason: &'static str,
        limit: Option<LengthLimit>,
        /// Mean of what is known of its tokens' log-probabilities.
        likelihood: f64,
    },
    /// All choices of the group are.
    Ended(Spent),
    /// The answer cannot be completed.
    Failed(ApiError),
}

/// Tokens that a group took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    /// Of the prompt, had by the prefix cache.
    pub(super) cached: u64,
    /// The limit that ended a choice; of several, the last to be told.
    pub(super) limit: Option<LengthLimit>,
    /// When the last of them was there.
    pub(super) at: Option<Instant>,
}

impl Spent {
    pub(super) fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
        self.cached += other.cached;
        self.limit = other.limit.or(self.limit);
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
    opening: Opening,
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
    /// Characters of its text, those held back counted.
    characters: usize,
    /// Tokens that wait for their text.
    spoken: Vec<Spoken>,
    /// Of its tokens, as far as they are known.
    logprobs: f64,
}

/// What comes before an answer.
#[derive(Debug)]
pub(super) struct Opening {
    prompt_tokens: u64,
    /// Every choice begins with it.
    echo: String,
    /// The prompt, if it is to be told how likely it was.
    scored: Vec<u32>,
}

impl Opening {
    pub(super) fn new(prompt: &[u32], echo: String, parameters: &Parameters) -> Self {
        let scored = parameters.wishes.likelihoods.is_some_and(|wanted| wanted.prompt);
        Self {
            prompt_tokens: u64::try_from(prompt.len()).unwrap_or(u64::MAX),
            echo,
            scored: if scored { prompt.to_vec() } else { Vec::new() },
        }
    }
}

impl Choices {
    /// `index` is that of the first choice.
    pub(super) fn new(
        answer: Answer,
        api: &Api,
        parameters: Arc<Parameters>,
        index: u32,
        opening: Opening,
    ) -> Self {
        let characters = opening.echo.chars().count();
        let choice = || Choice {
            text: AnswerText::new(parameters.stop.clone()),
            tokens: 0,
            held: None,
            complete: false,
            characters,
            spoken: Vec::new(),
            logprobs: 0.0,
        };
        let choices: Vec<Choice> = (0..parameters.sequences).map(|_| choice()).collect();
        let mut begun = Self {
            answer,
            tokenizer: Arc::clone(&api.tokenizer),
            metrics: Arc::clone(&api.metrics),
            parameters,
            choices,
            index,
            opening,
            pieces: VecDeque::new(),
            called_off: false,
        };
        if begun.opening.scored.is_empty() && !begun.opening.echo.is_empty() {
            begun.echo(&[]);
        }
        begun
    }

    /// The next piece; none after the last.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            match self.answer.next().await? {
                AnswerEvent::Prompt { likelihoods } => self.score(&likelihoods),
                AnswerEvent::Token { index, token, likelihood } => {
                    self.grow(index, token, likelihood.as_ref());
                }
                AnswerEvent::SequenceFinished { index, reason } => self.finish(index, reason),
                AnswerEvent::Finished { .. }
                    if !self.choices.iter().all(|choice| choice.complete) =>
                {
                    let message = "the answer could not be completed".to_owned();
                    return Some(Piece::Failed(ApiError::Failed(message)));
                }
                AnswerEvent::Finished { times, at } => {
                    let completion = self.choices.iter().map(|choice| u64::from(choice.tokens));
                    return Some(Piece::Ended(Spent {
                        prompt: self.opening.prompt_tokens,
                        completion: completion.sum(),
                        cached: u64::from(times.cached_tokens.0),
                        limit: None,
                        at: Some(at),
                    }));
                }
                AnswerEvent::Failed { failure, message } => {
                    return Some(Piece::Failed(match failure {
                        Failure::Broken => ApiError::Failed(message),
                        Failure::Queue => ApiError::QueueTimeout(message),
                        Failure::Timeout => ApiError::Timeout(message),
                    }));
                }
            }
            // A stop string ends one sequence; the engine can only end them all.
            if !self.called_off && self.stopped_all() {
                self.called_off = true;
                self.answer.cancel(CancelReason::Stop).await;
            }
        }
    }

    /// The prompt is the first part of every choice.
    fn echo(&mut self, spoken: &[Spoken]) {
        for index in self.index..self.index + self.parameters.sequences {
            let (text, spoken) = (self.opening.echo.clone(), spoken.to_vec());
            self.pieces.push_back(Piece::Text { index, text, spoken });
        }
    }

    /// The same, once it is known how likely it was. Nothing comes before its first token.
    fn score(&mut self, likelihoods: &[Likelihood]) {
        let mut text = AnswerText::new(StopStrings::default());
        let mut characters = 0;
        let likelihoods = std::iter::once(None).chain(likelihoods.iter().map(Some));
        let tokens = std::mem::take(&mut self.opening.scored);
        let spoken = tokens.iter().zip(likelihoods).map(|(&token, likelihood)| {
            let spoken = Spoken::new(token, characters, likelihood, &self.tokenizer);
            if self.parameters.special_shown || !self.tokenizer.is_special(token) {
                let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
                characters += text.push(bytes, false).chars().count();
            }
            spoken
        });
        let spoken: Vec<Spoken> = spoken.collect();
        self.echo(&spoken);
    }

    fn grow(&mut self, index: u32, token: TokenId, likelihood: Option<&Likelihood>) {
        let Some(choice) = self.choices.get_mut(index as usize) else { return };
        if choice.complete || self.parameters.silent() {
            return;
        }
        let mut text = String::new();
        if let Some(held) = choice.held.take() {
            text = choice.push(held, &self.tokenizer, &self.parameters);
        }
        choice.tokens = choice.tokens.saturating_add(1);
        self.metrics.answer_token();
        if let Some(likelihood) = likelihood {
            choice.logprobs += f64::from(likelihood.logprob);
            if self.parameters.told.is_some() {
                let offset = choice.characters;
                let spoken = Spoken::new(token.0, offset, Some(likelihood), &self.tokenizer);
                choice.spoken.push(spoken);
            }
        }
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
        let (reason, limit) = match reason {
            _ if stopped => ("stop", None),
            FinishReason::Stop(_) => ("stop", None),
            FinishReason::Length(limit) => ("length", Some(limit)),
            FinishReason::Abort | FinishReason::Error => {
                // What follows tells why; nobody is told that this was an end.
                return;
            }
        };
        choice.complete = true;
        let likelihood = choice.likelihood();
        self.say(index, text);
        self.say_rest(index);
        let index = self.index + index;
        self.pieces.push_back(Piece::Finished { index, reason, limit, likelihood });
    }

    fn complete_if_stopped(&mut self, index: u32) {
        let choice = &mut self.choices[index as usize];
        if choice.text.is_stopped() {
            choice.complete = true;
            let likelihood = choice.likelihood();
            self.say_rest(index);
            let (index, reason) = (self.index + index, "stop");
            self.pieces.push_back(Piece::Finished { index, reason, limit: None, likelihood });
        }
    }

    /// A stop string ended the last of them.
    fn stopped_all(&self) -> bool {
        self.choices.iter().all(|choice| choice.complete)
            && self.choices.iter().any(|choice| choice.text.is_stopped())
    }

    fn say(&mut self, index: u32, text: String) {
        if !text.is_empty() {
            let spoken = std::mem::take(&mut self.choices[index as usize].spoken);
            self.pieces.push_back(Piece::Text { index: self.index + index, text, spoken });
        }
    }

    /// Tokens whose text is not part of the answer are told of all the same.
    fn say_rest(&mut self, index: u32) {
        let spoken = std::mem::take(&mut self.choices[index as usize].spoken);
        if !spoken.is_empty() {
            let text = String::new();
            self.pieces.push_back(Piece::Text { index: self.index + index, text, spoken });
        }
    }
}

impl Choice {
    fn likelihood(&self) -> f64 {
        self.logprobs / f64::from(self.tokens.max(1))
    }

    /// A token's text, as far as it is certain.
    fn push(&mut self, token: TokenId, tokenizer: &Tokenizer, parameters: &Parameters) -> String {
        if tokenizer.is_special(token.0) && !parameters.special_shown {
            return String::new();
        }
        let bytes = tokenizer.token_bytes(token.0).unwrap_or_default();
        let held = self.text.held_characters();
        let text = self.text.push(bytes, self.tokens >= parameters.tokens_min);
        // What a stop string cuts off was counted when it was held back.
        let after = self.characters + text.chars().count() + self.text.held_characters();
        self.characters = after.saturating_sub(held);
        text
    }
}
