//! Messages to tokens: the chat template and the tokenizer.

mod dumps;
mod guard;
mod strftime;
mod template;
mod tokenizer;

pub use guard::Rendered;
pub use template::{ChatTemplate, Conversation, TemplateError};
#[cfg(test)]
pub(crate) use tokenizer::toy;
pub use tokenizer::{Specials, Tokenizer, TokenizerError};
