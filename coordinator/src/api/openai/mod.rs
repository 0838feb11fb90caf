//! The JSON that goes out, as OpenAI's clients expect it. The only types here that are serialized.

mod answer;
mod live;
mod logprobs;
mod other;

pub(crate) use answer::{
    Answered, CachedTokens, Delta, DeltaChoice, Message, MessageChoice, TextChoice, Usage,
};
pub(crate) use live::{Live, LiveGroup, LiveRank};
pub(crate) use logprobs::{ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob, TopLogprobs};
pub(crate) use other::{
    ErrorBody, ErrorObject, Model, ModelList, Status, TargetGroup, Text, Tokens, Version,
};
