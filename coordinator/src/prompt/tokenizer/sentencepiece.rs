//! `SentencePiece` vocabularies of GGUF files: neighbours are merged, best score first.
//!
//! Written out rather than put on a library of merge rules: the rules would have to be derived from
//! 262 144 tokens at every start, and of two equal scores the leftmost pair goes first, which rules
//! with an order of their own cannot say.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use checkpoint::TokenKind;

use crate::prompt::tokenizer::TokenizerError;
use crate::prompt::tokenizer::table::byte_token;

/// A vocabulary with scores.
#[derive(Debug)]
pub(super) struct SentencePiece {
    ids: HashMap<String, u32>,
    /// By id.
    scores: Vec<f32>,
    /// The token of each byte, where there is one.
    bytes: Vec<Option<u32>>,
    unknown: Option<u32>,
    space_prefix: bool,
    /// Bytes of the longest token: nothing longer can be one.
    longest: usize,
}

/// A run of text that is one token so far. Length 0: merged into its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    length: usize,
    /// `usize::MAX`: none.
    previous: usize,
    /// `usize::MAX`: none.
    next: usize,
}

/// Two neighbours that make a token together.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Of both; a pair of which one has changed since has another.
    length: usize,
}

const NONE: usize = usize::MAX;

impl SentencePiece {
    pub(super) fn new(
        tokens: Vec<String>,
        scores: Vec<f32>,
        kinds: &[TokenKind],
        space_prefix: bool,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        if tokens.len() != scores.len() {
            let what = format!("{} tokens, but {} scores", tokens.len(), scores.len());
            return Err(TokenizerError::Damaged(what));
        }
        let mut bytes = vec![None; 256];
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut longest = 0;
        for ((token, kind), id) in tokens.into_iter().zip(kinds).zip(0..) {
            match kind {
                TokenKind::Byte => {
                    if let Some(byte) = byte_token(&token) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                TokenKind::Normal => {
                    longest = longest.max(token.len());
                    ids.insert(token, id);
                }
                // Found in the text before it comes here, or never.
                _ => {}
            }
        }
        Ok(Self { ids, scores, bytes, unknown, space_prefix, longest })
    }

    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut marked = String::with_capacity(text.len() + 3);
        if self.space_prefix {
            marked.push('▁');
        }
        marked.push_str(&text.replace(' ', "▁"));
        let mut unknown_before = false;
        for symbol in self.merged(&marked).iter().filter(|symbol| symbol.length > 0) {
            let piece = &marked[symbol.start..symbol.start + symbol.length];
            unknown_before = self.push(piece, unknown_before, tokens);
        }
    }

    /// Every character a symbol, then merged until no two neighbours make a token.
    fn merged(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(place, (start, letter))| Symbol {
                start,
                length: letter.len_utf8(),
                previous: place.checked_sub(1).unwrap_or(NONE),
                next: place + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut pairs: BinaryHeap<Pair> = (1..symbols.len())
            .filter_map(|right| self.pair(text, &symbols, right - 1, right))
            .collect();
        while let Some(Pair { left, right, length, .. }) = pairs.pop() {
            let (a, b) = (symbols[left], symbols[right]);
            if a.length == 0 || b.length == 0 || a.length + b.length != length {
                continue;
            }
            symbols[left].length = length;
            symbols[left].next = b.next;
            symbols[right].length = 0;
            if b.next != NONE {
                symbols[b.next].previous = left;
                pairs.extend(self.pair(text, &symbols, left, b.next));
            }
            if a.previous != NONE {
                pairs.extend(self.pair(text, &symbols, a.previous, left));
            }
        }
        symbols
    }

    fn pair(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Pair> {
        let (a, b) = (symbols[left], symbols[right]);
        let length = a.length + b.length;
        if length > self.longest {
            return None;
        }
        let id = *self.ids.get(&text[a.start..a.start + length])?;
        Some(Pair { score: self.scores[id as usize], left, right, length })
    }

    /// A piece, else its bytes, else the unknown token, once for several. Returns whether it was that.
    fn push(&self, piece: &str, unknown_before: bool, tokens: &mut Vec<u32>) -> bool {
        if let Some(&id) = self.ids.get(piece) {
            tokens.push(id);
            return false;
        }
        let bytes: Option<Vec<u32>> =
            piece.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        if let Some(bytes) = bytes {
            tokens.extend(bytes);
            return false;
        }
        if !unknown_before {
            tokens.extend(self.unknown);
        }
        true
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}
