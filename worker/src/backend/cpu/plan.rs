//! Who computes which part of attention.

use std::ops::Range;

use crate::backend::cpu::attend::{Attend, SPLIT, VECTORS};

/// Fewer items a thread than this are cut further, at splits.
const ITEMS_A_THREAD: usize = 4;

/// Rows of one slice whose queries go together.
#[derive(Debug, Clone)]
pub(crate) struct RowTile {
    pub(crate) slice: usize,
    pub(crate) rows: Range<usize>,
}

/// Query heads that read the same KV head.
#[derive(Debug, Clone)]
pub(crate) struct HeadGroup {
    pub(crate) kv_head: usize,
    /// Within [`Plan::heads`].
    pub(crate) heads: Range<usize>,
}

/// A tile's rows, a group's heads, and one split or all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) tile: usize,
    pub(crate) group: usize,
    pub(crate) split: Option<usize>,
}

/// Who computes what; kept between calls for its memory.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) tiles: Vec<RowTile>,
    pub(crate) groups: Vec<HeadGroup>,
    /// Query heads, ordered by KV head.
    pub(crate) heads: Vec<usize>,
    pub(crate) items: Vec<Item>,
}

impl Plan {
    /// Plans a call; `threads` may cut it finer, but never changes a bit.
    pub(crate) fn make(&mut self, attend: &Attend<'_>, kv_of_query: &[usize], threads: usize) {
        self.heads.clear();
        self.groups.clear();
        for kv_head in 0..attend.shape.kv_heads {
            let first = self.heads.len();
            self.heads.extend((0..kv_of_query.len()).filter(|&head| kv_of_query[head] == kv_head));
            let last = self.heads.len();
            for from in (first..last).step_by(VECTORS) {
                let heads = from..last.min(from + VECTORS);
                self.groups.push(HeadGroup { kv_head, heads });
            }
        }
        let widest = self.groups.iter().map(|group| group.heads.len()).max().unwrap_or(1);
        let rows_a_tile = VECTORS / widest;
        self.tiles.clear();
        for (slice, it) in attend.batch.slices.iter().enumerate() {
            for from in it.rows.clone().step_by(rows_a_tile) {
                let rows = from..it.rows.end.min(from + rows_a_tile);
                self.tiles.push(RowTile { slice, rows });
            }
        }
        let few = threads > 1 && self.tiles.len() * self.groups.len() < ITEMS_A_THREAD * threads;
        self.items.clear();
        // In the order of rows, as everywhere: so a thread finds its rows in its cache.
        for (tile, rows) in self.tiles.iter().enumerate() {
            let splits = rows.splits(attend);
            for group in 0..self.groups.len() {
                if few && splits.len() > 1 {
                    let each = splits.clone().map(|split| Item { tile, group, split: Some(split) });
                    self.items.extend(each);
                } else {
                    self.items.push(Item { tile, group, split: None });
                }
            }
        }
    }
}

impl RowTile {
    fn position(&self, attend: &Attend<'_>, row: usize) -> usize {
        let slice = &attend.batch.slices[self.slice];
        slice.start + (row - slice.rows.start)
    }

    /// Positions that a row sees.
    pub(crate) fn seen(&self, attend: &Attend<'_>, row: usize) -> Range<usize> {
        let end = self.position(attend, row) + 1;
        attend.shape.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// Positions that any row sees.
    pub(crate) fn seen_by_any(&self, attend: &Attend<'_>) -> Range<usize> {
        self.seen(attend, self.rows.start).start..self.seen(attend, self.rows.end - 1).end
    }

    pub(crate) fn splits(&self, attend: &Attend<'_>) -> Range<usize> {
        let seen = self.seen_by_any(attend);
        seen.start / SPLIT..seen.end.div_ceil(SPLIT)
    }
}
