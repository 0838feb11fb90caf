//! The prefix cache: full blocks that can be found by their tokens and all tokens before.
//!
//! A block is found by its *link*, which stands for everything before it, and a hash of its own
//! tokens; then the tokens themselves are compared. So blocks with one beginning form a chain, and two
//! beginnings whose hashes collide cost a miss and never a wrong answer.

use std::collections::BTreeMap;

use crate::units::{BlockId, TokenId};

/// Stands for a sequence of full blocks from the start. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link(u64);

/// Which blocks can be found, and which of them nobody holds.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    on: bool,
    found: BTreeMap<(Link, u64), BlockId>,
    /// By block; none: it cannot be found.
    contents: Vec<Option<Content>>,
    /// Blocks that nobody holds, the longest unused first.
    resting: BTreeMap<u64, BlockId>,
    links: u64,
    moments: u64,
}

#[derive(Debug)]
struct Content {
    /// What comes before.
    before: Link,
    /// What comes before, and this block.
    link: Link,
    hash: u64,
    tokens: Box<[TokenId]>,
    /// Since when nobody holds it.
    rests_since: Option<u64>,
}

impl Link {
    /// Of the first block: nothing comes before.
    pub(crate) const START: Self = Self(0);
}

impl PrefixCache {
    pub(crate) const fn new(on: bool) -> Self {
        Self {
            on,
            found: BTreeMap::new(),
            contents: Vec::new(),
            resting: BTreeMap::new(),
            links: 0,
            moments: 0,
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// Blocks that nobody holds.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    /// The link that ends with this block.
    pub(crate) fn link(&self, block: BlockId) -> Option<Link> {
        Some(self.content(block)?.link)
    }

    pub(crate) fn find(&self, before: Link, tokens: &[TokenId]) -> Option<BlockId> {
        let block = *self.found.get(&(before, hash(tokens)))?;
        let content = self.content(block)?;
        (*content.tokens == *tokens).then_some(block)
    }

    /// A held block can be found from now on, unless another has its place.
    pub(crate) fn insert(&mut self, block: BlockId, before: Link, tokens: &[TokenId]) {
        let hash = hash(tokens);
        if !self.on || self.found.contains_key(&(before, hash)) || self.content(block).is_some() {
            return;
        }
        self.links += 1;
        let link = Link(self.links);
        self.found.insert((before, hash), block);
        let place = block.0 as usize;
        if self.contents.len() <= place {
            self.contents.resize_with(place + 1, || None);
        }
        let tokens = Box::from(tokens);
        self.contents[place] = Some(Content { before, link, hash, tokens, rests_since: None });
    }

    /// Nobody holds the block any more. False: it cannot be found, so it is not kept.
    pub(crate) fn rest(&mut self, block: BlockId) -> bool {
        let Some(content) = self.contents.get_mut(block.0 as usize).and_then(Option::as_mut) else {
            return false;
        };
        self.moments += 1;
        content.rests_since = Some(self.moments);
        self.resting.insert(self.moments, block);
        true
    }

    /// Somebody holds the block again. False: it was not kept.
    pub(crate) fn wake(&mut self, block: BlockId) -> bool {
        let content = self.contents.get_mut(block.0 as usize).and_then(Option::as_mut);
        let since = content.and_then(|content| content.rests_since.take());
        since.is_some_and(|since| self.resting.remove(&since).is_some())
    }

    /// Gives up the block that has been unused the longest.
    pub(crate) fn evict(&mut self) -> Option<BlockId> {
        let (_, block) = self.resting.pop_first()?;
        self.forget(block);
        Some(block)
    }

    /// The block cannot be found any more. Those that come after it cannot either, and go in time.
    pub(crate) fn forget(&mut self, block: BlockId) {
        let content = self.contents.get_mut(block.0 as usize).and_then(Option::take);
        if let Some(content) = content {
            self.found.remove(&(content.before, content.hash));
        }
    }

    /// Nothing can be found any more. Gives the blocks that nobody holds.
    pub(crate) fn forget_all(&mut self) -> Vec<BlockId> {
        self.found.clear();
        self.contents.clear();
        std::mem::take(&mut self.resting).into_values().collect()
    }

    fn content(&self, block: BlockId) -> Option<&Content> {
        self.contents.get(block.0 as usize)?.as_ref()
    }

    /// What can be found is what is known, and what rests says so.
    pub(crate) fn check(&self) {
        let known = self.contents.iter().flatten().count();
        assert_eq!(known, self.found.len(), "a block is found where it says");
        for (since, block) in &self.resting {
            let rests = self.content(*block).and_then(|content| content.rests_since);
            assert_eq!(rests, Some(*since), "what rests can be found");
        }
    }
}

/// FNV-1a over the tokens. Whoever makes hashes collide makes their own requests slower.
fn hash(tokens: &[TokenId]) -> u64 {
    let bytes = tokens.iter().flat_map(|token| token.0.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
