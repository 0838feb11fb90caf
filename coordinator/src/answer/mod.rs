//! Tokens' bytes to text, bit by bit.

mod text;

pub(crate) use text::{AnswerText, StopStrings};
