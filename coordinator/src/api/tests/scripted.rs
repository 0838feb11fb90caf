//! An engine that follows a script.

use std::collections::HashMap;
use std::sync::Arc;

use scheduler::{
    CancelReason, FinishReason, GroupId, GroupTimes, LengthLimit, NewGroup, Time, TokenCount,
    TokenId,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::cluster::Likelihood;
use crate::engine::{
    AnswerEvent, EngineHandle, EngineState, Failure, Input, Submission, SubmitError, Wishes,
};
use crate::prompt::toy::{FIRST_BYTE, IM_END};

/// One thing that the engine does for a group.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Does not take it.
    Refuse(SubmitError),
    /// A sequence grows.
    Token(u32, u32),
    /// A sequence grows, and it was so likely; `b` was likelier.
    Likely(u32, u32, f32),
    /// So likely was the prompt.
    Prompt(Vec<f32>),
    /// A sequence ends.
    Finish(u32, FinishReason),
    /// Goes on once the test says so, or the group is cancelled.
    Wait,
    /// The whole answer fails.
    Fail(Failure, &'static str),
}

/// What the engine was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    Submitted(NewGroup, Wishes),
    Cancelled(CancelReason),
}

/// A text for every sequence, byte by byte, then the end token; or as far as the group may go.
pub(super) fn says(text: &str) -> impl Fn(&NewGroup) -> Vec<Act> + Send + Sync + 'static {
    let bytes = text.as_bytes().to_vec();
    move |group| (0..group.sequences).flat_map(|index| one(index, &bytes, group)).collect()
}

fn one(index: u32, bytes: &[u8], group: &NewGroup) -> Vec<Act> {
    let mut tokens: Vec<u32> = bytes.iter().map(|&byte| FIRST_BYTE + u32::from(byte)).collect();
    let mut reason = FinishReason::Stop(Some(TokenId(IM_END)));
    if let Some(at) = tokens.iter().position(|&token| group.stop_tokens.contains(&TokenId(token))) {
        reason = FinishReason::Stop(Some(TokenId(tokens[at])));
        tokens.truncate(at + 1);
    } else {
        tokens.push(IM_END);
    }
    let most = group.tokens_max.map_or(usize::MAX, |most| most.0 as usize);
    if tokens.len() > most {
        tokens.truncate(most);
        reason = FinishReason::Length(LengthLimit::Request);
    }
    let mut acts: Vec<Act> = tokens.into_iter().map(|token| Act::Token(index, token)).collect();
    acts.push(Act::Finish(index, reason));
    acts
}

/// The engine, and what it is told.
pub(super) fn engine(
    script: impl Fn(&NewGroup) -> Vec<Act> + Send + Sync + 'static,
    state: watch::Receiver<EngineState>,
    release: Arc<Notify>,
) -> (EngineHandle, mpsc::Receiver<Said>) {
    let (inputs, mut asked) = mpsc::channel(64);
    let (tell, said) = mpsc::channel(1024);
    tokio::spawn(async move {
        let mut cancels: HashMap<GroupId, oneshot::Sender<CancelReason>> = HashMap::new();
        let mut groups = 0;
        while let Some(input) = asked.recv().await {
            match input {
                Input::Submit { submission, events, accepted } => {
                    let Submission { group, wishes, .. } = *submission;
                    let acts = script(&group);
                    let sequences = group.sequences;
                    drop(tell.send(Said::Submitted(group, wishes)).await);
                    if let Some(Act::Refuse(error)) = acts.first() {
                        drop(accepted.send(Err(error.clone())));
                        continue;
                    }
                    let id = GroupId(groups);
                    groups += 1;
                    let (cancel, cancelled) = oneshot::channel();
                    cancels.insert(id, cancel);
                    drop(accepted.send(Ok(id)));
                    let release = Arc::clone(&release);
                    tokio::spawn(play(acts, sequences, events, cancelled, release));
                }
                Input::Look { reply } => drop(reply.send(Default::default())),
                Input::Cancel { group, reason } => {
                    if let Some(cancel) = cancels.remove(&group) {
                        cancel.send(reason).ok();
                    }
                    drop(tell.send(Said::Cancelled(reason)).await);
                }
            }
        }
    });
    (EngineHandle { inputs, state, unread_max: 64 }, said)
}

fn likely(logprob: f32) -> Likelihood {
    let likeliest = vec![(TokenId(FIRST_BYTE + u32::from(b'b')), -0.25)];
    Likelihood { logprob, likeliest }
}

async fn play(
    acts: Vec<Act>,
    sequences: u32,
    events: mpsc::Sender<AnswerEvent>,
    mut cancelled: oneshot::Receiver<CancelReason>,
    release: Arc<Notify>,
) {
    let mut open: Vec<u32> = (0..sequences).collect();
    for act in acts {
        let event = match act {
            Act::Prompt(logprobs) => {
                let likelihoods = logprobs.iter().map(|&logprob| likely(logprob)).collect();
                AnswerEvent::Prompt { likelihoods }
            }
            Act::Token(index, token) => {
                AnswerEvent::Token { index, token: TokenId(token), likelihood: None }
            }
            Act::Likely(index, token, logprob) => AnswerEvent::Token {
                index,
                token: TokenId(token),
                likelihood: Some(likely(logprob)),
            },
            Act::Finish(index, reason) => {
                open.retain(|&other| other != index);
                AnswerEvent::SequenceFinished { index, reason }
            }
            Act::Fail(failure, message) => {
                drop(
                    events.send(AnswerEvent::Failed { failure, message: message.to_owned() }).await,
                );
                return;
            }
            Act::Wait => {
                tokio::select! {
                    () = release.notified() => continue,
                    _ = &mut cancelled => break,
                }
            }
            Act::Refuse(_) => unreachable!("comes first or not at all"),
        };
        drop(events.send(event).await);
    }
    for index in open {
        let reason = FinishReason::Stop(None);
        drop(events.send(AnswerEvent::SequenceFinished { index, reason }).await);
    }
    let times = GroupTimes {
        arrival: Time::default(),
        first_scheduled: None,
        first_token: None,
        last_token: None,
        finished: Time::default(),
        preemptions: 0,
        cached_tokens: TokenCount(3),
    };
    drop(events.send(AnswerEvent::Finished { times, at: std::time::Instant::now() }).await);
}
