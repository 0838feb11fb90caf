//! A small vocabulary for tests: every byte, a few words, and `ChatML`'s control tokens.

use checkpoint::{TokenKind, VocabularySource};

use crate::prompt::tokenizer::Tokenizer;
use crate::prompt::tokenizer::table::byte_letter;

/// `<|endoftext|>`
pub(crate) const END_OF_TEXT: u32 = 0;
/// `<|im_start|>`
pub(crate) const IM_START: u32 = 1;
/// `<|im_end|>`
pub(crate) const IM_END: u32 = 2;
/// Byte `b` is token `FIRST_BYTE + b`.
pub(crate) const FIRST_BYTE: u32 = 4;

/// Every byte a token, and `he`, `ll`, `hell`, `hello`.
pub(crate) fn toy() -> Tokenizer {
    toy_with(&[])
}

/// The same, with further control tokens at the end.
pub(crate) fn toy_with(control: &[&str]) -> Tokenizer {
    let mut tokens: Vec<String> =
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"].map(str::to_owned).to_vec();
    let mut kinds = vec![TokenKind::Control; 3];
    kinds.push(TokenKind::UserDefined);
    tokens.extend((0..=u8::MAX).map(|byte| byte_letter(byte).to_string()));
    tokens.extend(["he", "ll", "hell", "hello"].map(str::to_owned));
    kinds.resize(tokens.len(), TokenKind::Normal);
    tokens.extend(control.iter().map(|&token| token.to_owned()));
    kinds.resize(tokens.len(), TokenKind::Control);
    let merges = ["h e", "l l", "he ll", "hell o"].map(str::to_owned).to_vec();
    let source = VocabularySource::Bpe { pre: "gpt-2".to_owned(), tokens, kinds, merges };
    Tokenizer::from_source(source, None).expect("the toy is sound")
}
