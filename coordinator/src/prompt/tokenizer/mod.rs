//! Text to tokens and back, whatever kind of vocabulary a model brings.
//!
//! Three kinds are understood: a `tokenizer.json`, byte-level BPE of a GGUF file, and `SentencePiece`
//! of a GGUF file. Control tokens are always matched here, never by the library: so one tokenizer serves
//! both text in which they steer and text in which they are only letters.
//!
//! Every token has its bytes in a table, so an answer can be put together byte by byte.

mod added;
mod bpe;
mod json;
mod sentencepiece;
mod table;
#[cfg(test)]
pub(crate) mod toy;

use checkpoint::VocabularySource;
use tokenizers::Encoding;

use crate::prompt::guard::Rendered;

use added::{Added, AddedTokens};
use sentencepiece::SentencePiece;
use table::TokenTable;

/// The library takes some three hundred times a text's size while it works, so long texts are cut up.
const CUT_BYTES: usize = 64 << 10;

/// What is done with the text of control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// It becomes the token.
    Parse,
    /// It is text like any other.
    Ignore,
}

/// Why a tokenizer cannot be built, or cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The pre-tokenizer of a GGUF file is not one of those known.
    #[error("the pre-tokenizer `{pre}` is not known; known are: {known}")]
    UnknownPreTokenizer {
        /// What the file asks for.
        pre: String,
        /// What there is.
        known: String,
    },
    /// The vocabulary contradicts itself.
    #[error("the vocabulary is damaged: {0}")]
    Damaged(String),
    /// A `tokenizer.json` that cannot be read.
    #[error("cannot read {path}: {what}")]
    Json {
        /// Which file.
        path: String,
        /// Why.
        what: String,
    },
    /// A text that cannot be put into tokens.
    #[error("cannot tokenise: {0}")]
    Text(String),
    /// No token has this id.
    #[error("there is no token {0}: the vocabulary has {1}")]
    NoSuchToken(u32, usize),
}

/// The part that knows how plain text falls into tokens.
enum Model {
    /// A GGUF file's BPE, by the library. Ids from the second value on are stand-ins: they are dropped.
    Bpe(Box<tokenizers::Tokenizer>, u32),
    /// A `tokenizer.json`, by the library.
    Json(Box<tokenizers::Tokenizer>),
    /// Pairs merged by score.
    SentencePiece(SentencePiece),
}

/// A model's tokenizer. Read-only: share it freely.
pub struct Tokenizer {
    model: Model,
    added: AddedTokens,
    table: TokenTable,
    /// Put before a text that asks for it.
    begin: Option<u32>,
    /// A space goes before the first word, and only there, unless the text begins with one of these.
    space_first: Option<AddedTokens>,
    /// The vocabulary was made with a space before the first word: not shown when a whole text is decoded.
    space_hidden: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.model {
            Model::Bpe(..) => "bpe",
            Model::Json(_) => "json",
            Model::SentencePiece(_) => "sentencepiece",
        };
        f.debug_struct("Tokenizer")
            .field("kind", &kind)
            .field("vocabulary", &self.vocabulary())
            .field("begin", &self.begin)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Builds a tokenizer; `begin` is put before texts that ask for it.
    ///
    /// # Errors
    /// [`TokenizerError`] when the vocabulary is of an unknown kind or contradicts itself.
    pub fn from_source(
        source: VocabularySource,
        begin: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let tokenizer = match source {
            VocabularySource::Json(path) => json::open(&path)?,
            VocabularySource::Bpe { pre, tokens, kinds, merges } => {
                bpe::build(&pre, &tokens, &kinds, &merges)?
            }
            VocabularySource::SentencePiece {
                tokens,
                scores,
                kinds,
                add_space_prefix,
                unknown,
            } => {
                let table = TokenTable::sentencepiece(&tokens, &kinds)?;
                let added = AddedTokens::of_kinds(&tokens, &kinds);
                let model = SentencePiece::new(tokens, scores, &kinds, add_space_prefix, unknown)?;
                Self {
                    model: Model::SentencePiece(model),
                    added,
                    table,
                    begin: None,
                    space_first: None,
                    space_hidden: add_space_prefix,
                }
            }
        };
        let vocabulary = tokenizer.vocabulary();
        match begin {
            Some(id) if id as usize >= vocabulary => {
                Err(TokenizerError::NoSuchToken(id, vocabulary))
            }
            _ => Ok(Self { begin, ..tokenizer }),
        }
    }

    /// The tokens of a text. With `add_begin` the model's begin token comes first, unless the text
    /// already begins with it or the model has none.
    ///
    /// # Errors
    /// [`TokenizerError::Text`] when the library fails.
    pub fn encode(
        &self,
        text: &str,
        specials: Specials,
        add_begin: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        self.encode_with(text, add_begin, |added, _| !added.control || specials == Specials::Parse)
    }

    /// The tokens of a rendered conversation: control tokens that the template wrote steer, the same
    /// letters in what a user wrote do not.
    ///
    /// # Errors
    /// [`TokenizerError::Text`] when the library fails.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TokenizerError> {
        self.encode_with(rendered.text(), true, |added, range| {
            !added.control || !rendered.is_guarded(range)
        })
    }

    /// The text of tokens; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::NoSuchToken`].
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let mut bytes = Vec::new();
        for &token in tokens {
            let text = self
                .token_bytes(token)
                .ok_or(TokenizerError::NoSuchToken(token, self.vocabulary()))?;
            if skip_special && self.is_special(token) {
                continue;
            }
            // The space that encoding put before the first word.
            let hidden = self.space_hidden && bytes.is_empty() && text.first() == Some(&b' ');
            bytes.extend_from_slice(&text[usize::from(hidden)..]);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a token adds to a text; none: there is no such token.
    #[must_use]
    pub fn token_bytes(&self, token: u32) -> Option<&[u8]> {
        self.table.bytes(token)
    }

    /// The token steers the model and is not part of an answer's text.
    #[must_use]
    pub fn is_special(&self, token: u32) -> bool {
        self.table.is_special(token)
    }

    /// Tokens there are.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.table.len()
    }

    /// Bytes of the longest token: a text of n bytes has at least n / this many tokens.
    #[must_use]
    pub fn token_bytes_max(&self) -> usize {
        self.table.longest()
    }

    /// The control token with this text.
    #[must_use]
    pub fn control_token(&self, text: &str) -> Option<u32> {
        self.added.control_token(text)
    }

    /// Where control tokens stand in a text, as byte ranges.
    pub(crate) fn control_ranges(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        let mut ranges = Vec::new();
        let mut from = 0;
        while let Some((range, _)) = self.added.find(text, from, |added, _| added.control) {
            from = range.end;
            ranges.push(range);
        }
        ranges
    }

    /// Bytes at the end of a text that could begin a control token.
    pub(crate) fn control_prefix(&self, text: &str) -> usize {
        self.added.control_prefix(text)
    }

    fn encode_with(
        &self,
        text: &str,
        add_begin: bool,
        accept: impl Fn(&Added, std::ops::Range<usize>) -> bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens: Vec<u32> = self.begin.filter(|_| add_begin).into_iter().collect();
        let begins = tokens.len();
        let mut from = 0;
        while let Some((range, added)) = self.added.find(text, from, &accept) {
            let mut before = &text[from..range.start];
            if added.strips_left {
                before = before.trim_end();
            }
            self.encode_plain(before, from == 0, &mut tokens)?;
            tokens.push(added.id);
            from = range.end;
            if added.strips_right {
                from += text[from..].len() - text[from..].trim_start().len();
            }
        }
        self.encode_plain(&text[from..], from == 0, &mut tokens)?;
        if begins == 1 && tokens.get(1) == self.begin.as_ref() {
            tokens.remove(0);
        }
        Ok(tokens)
    }

    /// Text without control tokens.
    fn encode_plain(
        &self,
        text: &str,
        first: bool,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.model {
            Model::SentencePiece(model) => model.encode(text, tokens),
            Model::Bpe(library, stand_ins) => {
                for piece in bpe::cut(text, CUT_BYTES) {
                    let ids = ids(library, piece)?;
                    tokens.extend(ids.get_ids().iter().filter(|&id| id < stand_ins));
                }
            }
            Model::Json(library) => {
                let spaced = self
                    .space_first
                    .as_ref()
                    .filter(|unless| first && !text.starts_with([' ', '▁']) && !unless.begin(text));
                let spaced = spaced.map(|_| format!(" {text}"));
                let ids = ids(library, spaced.as_deref().unwrap_or(text))?;
                tokens.extend_from_slice(ids.get_ids());
            }
        }
        Ok(())
    }
}

fn ids(library: &tokenizers::Tokenizer, text: &str) -> Result<Encoding, TokenizerError> {
    library.encode_fast(text, false).map_err(|error| TokenizerError::Text(error.to_string()))
}

#[cfg(test)]
mod tests;
