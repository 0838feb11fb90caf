//! Tokens that are found in a text before the rest is cut up: control tokens and those users added.

use std::ops::Range;

use checkpoint::TokenKind;

/// A token that is found as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    /// As it stands in a text.
    pub(super) text: String,
    pub(super) id: u32,
    /// Steers the model: found only where control tokens are looked for.
    pub(super) control: bool,
    /// Swallows the white space before it.
    pub(super) strips_left: bool,
    /// Swallows the white space after it.
    pub(super) strips_right: bool,
}

/// All of them, found by leftmost, then longest match.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// By text.
    sorted: Vec<Added>,
    /// Where those that begin with a byte begin; one more than there are bytes.
    starts: Vec<usize>,
}

impl AddedTokens {
    pub(super) fn new(mut sorted: Vec<Added>) -> Self {
        sorted.retain(|added| !added.text.is_empty());
        sorted.sort_by(|a, b| a.text.cmp(&b.text).then(a.id.cmp(&b.id)));
        sorted.dedup_by(|next, kept| next.text == kept.text);
        let starts = (0..=256)
            .map(|byte| {
                sorted.partition_point(|added| usize::from(added.text.as_bytes()[0]) < byte)
            })
            .collect();
        Self { sorted, starts }
    }

    /// Those of a GGUF file.
    pub(super) fn of_kinds(tokens: &[String], kinds: &[TokenKind]) -> Self {
        let added = |((text, kind), id): ((&String, &TokenKind), u32)| {
            let control = match kind {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
            };
            let text = text.clone();
            Some(Added { text, id, control, strips_left: false, strips_right: false })
        };
        Self::new(tokens.iter().zip(kinds).zip(0..).filter_map(added).collect())
    }

    pub(super) fn control_token(&self, text: &str) -> Option<u32> {
        let found = self.sorted.binary_search_by(|added| added.text.as_str().cmp(text)).ok()?;
        Some(&self.sorted[found]).filter(|added| added.control).map(|added| added.id)
    }

    /// The first, and of several there the longest, that is accepted.
    pub(super) fn find(
        &self,
        text: &str,
        from: usize,
        accept: impl Fn(&Added, Range<usize>) -> bool,
    ) -> Option<(Range<usize>, &Added)> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|at| {
            let first = usize::from(bytes[at]);
            if self.starts[first] == self.starts[first + 1] {
                return None;
            }
            let added =
                self.longest_at(&bytes[at..], |added| accept(added, at..at + added.text.len()))?;
            Some((at..at + added.text.len(), added))
        })
    }

    /// The text begins with one of them.
    pub(super) fn begin(&self, text: &str) -> bool {
        self.longest_at(text.as_bytes(), |_| true).is_some()
    }

    /// Bytes at the end of `text` that are the beginning, but not the whole, of a control token.
    pub(super) fn control_prefix(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let longest = self.sorted.iter().map(|added| added.text.len()).max().unwrap_or(0);
        let begins = |tail: &[u8]| {
            let from = self.sorted.partition_point(|added| added.text.as_bytes() < tail);
            self.sorted[from..]
                .iter()
                .take_while(|added| added.text.as_bytes().starts_with(tail))
                .any(|added| added.control && added.text.len() > tail.len())
        };
        (1..longest.min(bytes.len() + 1))
            .rev()
            .find(|length| begins(&bytes[bytes.len() - length..]))
            .unwrap_or(0)
    }

    /// The longest token that `text` begins with. A token is valid UTF-8, so it ends where a character does.
    fn longest_at(&self, text: &[u8], accept: impl Fn(&Added) -> bool) -> Option<&Added> {
        let mut range = 0..self.sorted.len();
        let mut found = None;
        for depth in 0..=text.len() {
            // Here `range` holds the tokens that begin with `text[..depth]`; the shortest sorts first.
            if range.is_empty() {
                break;
            }
            let shortest = &self.sorted[range.start];
            if shortest.text.len() == depth {
                if accept(shortest) {
                    found = Some(shortest);
                }
                range.start += 1;
            }
            let Some(&byte) = text.get(depth) else { break };
            let tokens = &self.sorted[range.clone()];
            let low = tokens.partition_point(|added| added.text.as_bytes()[depth] < byte);
            let high = tokens.partition_point(|added| added.text.as_bytes()[depth] <= byte);
            range = range.start + low..range.start + high;
        }
        found
    }
}
