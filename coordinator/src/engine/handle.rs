//! How the rest of the coordinator talks to the engine: submit, and listen.

use std::time::{Duration, Instant};

use scheduler::{CancelReason, FinishReason, GroupId, GroupTimes, NewGroup, Refusal, TokenId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cluster::Likelihood;
use crate::engine::look::Look;
use crate::engine::state::EngineState;
use crate::engine::wishes::Wishes;

/// What the engine is asked.
#[derive(Debug)]
pub(crate) enum Input {
    /// Queue a group, or say why not.
    Submit {
        /// What is wanted.
        submission: Box<Submission>,
        /// Where its events go. Bounded: a reader who lets it fill up is cut off.
        events: mpsc::Sender<AnswerEvent>,
        /// Answered at once.
        accepted: oneshot::Sender<Result<GroupId, SubmitError>>,
    },
    /// Say what goes on.
    Look {
        /// Answered at once.
        reply: oneshot::Sender<Look>,
    },
    /// End a group early.
    Cancel {
        /// Which.
        group: GroupId,
        /// Why.
        reason: CancelReason,
    },
}

/// What is wanted of the engine.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Prompt, sequences, limits.
    pub group: NewGroup,
    /// What is wanted of its logits.
    pub wishes: Wishes,
    /// When the request came in, for TTFT and end-to-end latency.
    pub arrival: Instant,
    /// It is given up when that has passed since its arrival.
    pub timeout: Option<Duration>,
    /// For logs.
    pub request_id: String,
    /// Sequences that its client gets, of those of the group.
    pub choices: u32,
}

/// Why the engine did not take a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The scheduler's own refusal.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The group of workers is forming, re-forming or draining.
    #[error("the model is not ready: {0}")]
    NotReady(String),
}

/// What happens to an answer, in order. `Finished` or `Failed` comes once and last.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// How likely the prompt was, token by token from the second on; if asked for, before any token.
    Prompt {
        /// One for each token but the first.
        likelihoods: Vec<Likelihood>,
    },
    /// A sequence of the group grew.
    Token {
        /// Its place in the group.
        index: u32,
        /// The token; an end token too, just before `SequenceFinished`.
        token: TokenId,
        /// How likely it was, if asked for.
        likelihood: Option<Likelihood>,
    },
    /// A sequence ended.
    SequenceFinished {
        /// Its place in the group.
        index: u32,
        /// Why.
        reason: FinishReason,
    },
    /// All sequences have.
    Finished {
        /// When it passed what, on the scheduler's clock.
        times: GroupTimes,
        /// When that was.
        at: Instant,
    },
    /// The answer cannot be completed; what the client should be told.
    Failed {
        /// What kind of failure it is.
        failure: Failure,
        /// One sentence.
        message: String,
    },
}

/// Why an answer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be computed, or not be delivered.
    Broken,
    /// It waited too long for its first step.
    Queue,
    /// The time that its request gave it is over.
    Timeout,
}

/// The engine, from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    pub(crate) inputs: mpsc::Sender<Input>,
    /// Where the engine stands.
    pub(crate) state: watch::Receiver<EngineState>,
    /// Events an answer may hold unread.
    pub(crate) unread_max: usize,
}

/// A running answer. Dropping it before its last event cancels the group.
#[derive(Debug)]
pub struct Answer {
    /// Which group.
    pub group: GroupId,
    events: mpsc::Receiver<AnswerEvent>,
    inputs: mpsc::Sender<Input>,
    ended: bool,
}

impl EngineHandle {
    /// Where the engine stands now.
    #[must_use]
    pub fn state(&self) -> EngineState {
        self.state.borrow().clone()
    }

    /// What goes on at this moment; none before the first group of workers has formed, or once the engine has
    /// ended.
    pub(crate) async fn look(&self) -> Option<Look> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Look { reply }).await.ok()?;
        answer.await.ok()
    }

    /// Queues a group.
    ///
    /// # Errors
    /// [`SubmitError`], at once: nothing is half accepted.
    pub async fn submit(&self, submission: Submission) -> Result<Answer, SubmitError> {
        let (events, receiver) = mpsc::channel(self.unread_max);
        let (accepted, answer) = oneshot::channel();
        let gone = || SubmitError::NotReady("the engine has stopped".to_owned());
        self.inputs
            .send(Input::Submit { submission: Box::new(submission), events, accepted })
            .await
            .map_err(|_| gone())?;
        let group = answer.await.map_err(|_| gone())??;
        Ok(Answer { group, events: receiver, inputs: self.inputs.clone(), ended: false })
    }
}

impl Answer {
    /// The next event; none after the last.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await.unwrap_or_else(|| AnswerEvent::Failed {
            failure: Failure::Broken,
            message: "the answer was cut off: it was not read fast enough".to_owned(),
        });
        self.ended = matches!(event, AnswerEvent::Finished { .. } | AnswerEvent::Failed { .. });
        Some(event)
    }

    /// Ends the whole group early; its last events still come.
    pub async fn cancel(&self, reason: CancelReason) {
        // The engine being gone is the same as the group being gone.
        drop(self.inputs.send(Input::Cancel { group: self.group, reason }).await);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cancel = Input::Cancel { group: self.group, reason: CancelReason::Abort };
        if let Err(mpsc::error::TrySendError::Full(cancel)) = self.inputs.try_send(cancel) {
            let inputs = self.inputs.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { drop(inputs.send(cancel).await) });
            }
        }
    }
}
