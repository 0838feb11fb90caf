//! Messages to tokens: the chat template and the tokenizer.

mod dumps;
mod guard;
mod strftime;
mod template;
mod tokenizer;

pub use guard::Rendered;
pub use template::{ChatTemplate, Conversation, TemplateError};
pub use tokenizer::{Specials, Tokenizer, TokenizerError};
#[cfg(test)]
pub(crate) use tokenizer::toy;
