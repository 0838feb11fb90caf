//! What a GGUF file says about tokens.

use crate::error::{CheckpointError, shown};
use crate::gguf::Gguf;
use crate::vocabulary::{END_TEXTS, TemplateTokens, TokenKind, VocabularySource};

const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// Pre-tokenizers whose models want the begin token even where the file does not say so.
const PRE_WITH_BEGIN: [&str; 5] = ["llama3", "llama-v3", "llama-bpe", "tekken", "falcon3"];

/// Ids that `SentencePiece` files mean when they don't say: unknown, begin, end.
const SENTENCE_PIECE_IDS: [u32; 3] = [0, 1, 2];

/// Everything that is needed to build the tokenizer.
pub(crate) fn source(gguf: &Gguf) -> Result<VocabularySource, CheckpointError> {
    let model = gguf.text("tokenizer.ggml.model")?;
    let tokens = gguf.texts(TOKENS)?;
    let kinds = kinds(gguf, tokens.len())?;
    match model {
        Some("gpt2") => Ok(VocabularySource::Bpe {
            pre: gguf.text("tokenizer.ggml.pre")?.unwrap_or("default").to_owned(),
            merges: gguf.texts("tokenizer.ggml.merges")?,
            tokens,
            kinds,
        }),
        Some("llama") => {
            let scores = gguf.floats(SCORES)?.unwrap_or_default();
            if scores.len() != tokens.len() {
                let what = format!("{} tokens have {} scores", tokens.len(), scores.len());
                return Err(gguf.damaged(what));
            }
            let unknown = gguf.token("tokenizer.ggml.unknown_token_id")?;
            Ok(VocabularySource::SentencePiece {
                scores,
                add_space_prefix: gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
                unknown: unknown
                    .or(Some(SENTENCE_PIECE_IDS[0]))
                    .filter(|&id| (id as usize) < tokens.len()),
                tokens,
                kinds,
            })
        }
        other => Err(gguf.unsupported(format!(
            "its tokenizer is of kind {}; served are gpt2 (byte-level BPE) and llama \
             (SentencePiece)",
            shown(other.unwrap_or("(none)"))
        ))),
    }
}

fn kinds(gguf: &Gguf, tokens: usize) -> Result<Vec<TokenKind>, CheckpointError> {
    let Some(numbers) = gguf.integers(KINDS)? else {
        return Ok(vec![TokenKind::Normal; tokens]);
    };
    if numbers.len() != tokens {
        return Err(gguf.damaged(format!("{tokens} tokens have {} types", numbers.len())));
    }
    Ok(numbers
        .into_iter()
        .map(|number| match number {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        })
        .collect())
}

/// How many tokens the tokenizer knows; none where the file has no tokenizer.
pub(crate) fn token_count(gguf: &Gguf) -> Option<usize> {
    gguf.text_count(TOKENS)
}

/// The begin token by name, whether or not it is prepended.
fn named_begin(gguf: &Gguf) -> Result<Option<u32>, CheckpointError> {
    let sentence_piece = gguf.text("tokenizer.ggml.model")? == Some("llama");
    let default = sentence_piece.then_some(SENTENCE_PIECE_IDS[1]);
    Ok(gguf.token("tokenizer.ggml.bos_token_id")?.or(default))
}

fn named_end(gguf: &Gguf) -> Result<Option<u32>, CheckpointError> {
    let sentence_piece = gguf.text("tokenizer.ggml.model")? == Some("llama");
    let default = sentence_piece.then_some(SENTENCE_PIECE_IDS[2]);
    Ok(gguf.token("tokenizer.ggml.eos_token_id")?.or(default))
}

/// The token that begins every sequence, where the file or its kind of tokenizer wants one.
pub(crate) fn begin_token(gguf: &Gguf) -> Result<Option<u32>, CheckpointError> {
    let wanted = match gguf.flag("tokenizer.ggml.add_bos_token")? {
        Some(wanted) => wanted,
        None => {
            gguf.text("tokenizer.ggml.model")? == Some("llama")
                || gguf.text("tokenizer.ggml.pre")?.is_some_and(|pre| PRE_WITH_BEGIN.contains(&pre))
        }
    };
    Ok(named_begin(gguf)?.filter(|_| wanted))
}

/// Tokens that end an answer: those that the file names, and those known to end a turn.
pub(crate) fn end_tokens(gguf: &Gguf) -> Result<Vec<u32>, CheckpointError> {
    let mut ends: Vec<u32> = named_end(gguf)?.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(gguf.token(key)?);
    }
    let Some(count) = token_count(gguf) else { return Ok(ends) };
    let kinds = kinds(gguf, count)?;
    gguf.each_text(TOKENS, |id, bytes| {
        let known = END_TEXTS.iter().any(|text| text.as_bytes() == bytes);
        if known && kinds[id] == TokenKind::Control {
            ends.extend(u32::try_from(id).ok());
        }
        Ok(())
    })?;
    Ok(ends)
}

/// Texts of the begin and the end token, for chat templates.
pub(crate) fn template_tokens(gguf: &Gguf) -> Result<TemplateTokens, CheckpointError> {
    let (begin, end) = (named_begin(gguf)?, named_end(gguf)?);
    let mut tokens = TemplateTokens::default();
    if token_count(gguf).is_none() {
        return Ok(tokens);
    }
    gguf.each_text(TOKENS, |id, bytes| {
        let id = u32::try_from(id).ok();
        if id.is_some() && id == begin {
            tokens.begin = Some(String::from_utf8_lossy(bytes).into_owned());
        }
        if id.is_some() && id == end {
            tokens.end = Some(String::from_utf8_lossy(bytes).into_owned());
        }
        Ok(())
    })?;
    Ok(tokens)
}
