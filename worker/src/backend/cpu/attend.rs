//! Attention over the cached positions: one kernel for decode and for prefill.
//!
//! Positions are dealt with in *splits* of [`SPLIT`], cut at fixed positions. Within a split a row's
//! scores, their softmax and the weighted sum of values are computed by themselves; then splits are
//! folded together in order. So a row's result depends neither on the rows beside it, nor on how its
//! sequence was cut into slices, nor on which blocks it has, nor on who computed which split.
//!
//! Query heads that read the same KV head, of several rows, share each load of keys and values.

#![expect(unsafe_code, reason = "threads write to parts of one slice")]

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use crate::backend::AttentionShape;
use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::disjoint::Disjoint;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::pages::pages;
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::plan::{HeadGroup, Item, Plan, RowTile};
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::softmax::{Folded, softmax};
use crate::backend::cpu::team::Team;
use crate::batch::Batch;

/// Positions of a split.
pub(crate) const SPLIT: usize = 256;
/// Query vectors (heads × rows) that an item handles.
pub(crate) const VECTORS: usize = 24;
/// Query vectors that share a load: as many as leave the sums in registers.
const BLOCK: usize = 6;

/// What one call of [`attend`] works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attend<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) shape: &'a AttentionShape,
    pub(crate) layout: &'a Layout,
    pub(crate) layer: &'a [f16],
    pub(crate) batch: &'a Batch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A thread's working memory.
#[derive(Debug, Default)]
struct Scratch {
    /// Queries, scaled: for each block of vectors, (head size, vectors).
    q: Vec<f32>,
    /// `(vectors, SPLIT)`: scores, then weights.
    weights: Vec<f32>,
    /// What the splits so far, and this one, come to.
    folded: Folded,
    split: Folded,
    /// Pages put together from small blocks.
    gathered: Vec<f16>,
}

/// Attention of all rows. `out` is `(T, query heads × head size)`.
pub(crate) fn attend(
    isa: Isa,
    team: &Team,
    (plan, pool): (&mut Plan, &Pool<f32>),
    attend: &Attend<'_>,
    kv_of_query: &[usize],
    out: &mut [f32],
) {
    plan.make(attend, kv_of_query, team.threads());
    let plan = &*plan;
    let out = Disjoint::new(out);
    let size = Folded::size(attend.layout.value_size());
    let cut = plan.items.iter().any(|item| item.split.is_some());
    let mut parts = pool.take(if cut { plan.items.len() * size } else { 0 });
    let parts_shared = Disjoint::new(&mut parts);
    team.run(plan.items.len(), &|at| {
        let item = plan.items[at];
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: each item has a part of its own, if it needs one.
            let part = item.split.map(|_| unsafe { parts_shared.part(at * size..(at + 1) * size) });
            isa.run(OneItem { attend, plan, item, scratch, part, out: &out });
        });
    });
    if !cut {
        return;
    }
    // Splits of the same rows and heads stand beside one another.
    SCRATCH.with_borrow_mut(|scratch| {
        let mut at = 0;
        for items in plan.items.chunk_by(|a, b| (a.tile, a.group) == (b.tile, b.group)) {
            let parts = &parts[at * size..(at + items.len()) * size];
            at += items.len();
            if items[0].split.is_some() {
                let item = items[0];
                isa.run(FoldParts { attend, plan, item, scratch, parts, out: &out });
            }
        }
    });
}

struct OneItem<'a> {
    attend: &'a Attend<'a>,
    plan: &'a Plan,
    item: Item,
    scratch: &'a mut Scratch,
    /// Where the result of a single split goes.
    part: Option<&'a mut [f32]>,
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for OneItem<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { attend, plan, item, scratch, part, out } = self;
        let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
        let vectors = tile.rows.len() * group.heads.len();
        gather_queries(attend, plan, item, &mut scratch.q);
        scratch.weights.resize(VECTORS * SPLIT, 0.0);
        scratch.folded.clear(attend.layout.value_size());
        scratch.split.clear(attend.layout.value_size());
        let splits = item.split.map_or_else(|| tile.splits(attend), |split| split..split + 1);
        for split in splits {
            one_split(l, attend, (tile, group), split, scratch);
            if let Some(part) = part {
                scratch.split.save(vectors, part);
                return;
            }
            scratch.folded.fold(l, vectors, &scratch.split);
        }
        write_rows(attend, plan, item, &scratch.folded, out);
    }
}

struct FoldParts<'a> {
    attend: &'a Attend<'a>,
    plan: &'a Plan,
    item: Item,
    scratch: &'a mut Scratch,
    parts: &'a [f32],
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for FoldParts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { attend, plan, item, scratch, parts, out } = self;
        let vectors = plan.tiles[item.tile].rows.len() * plan.groups[item.group].heads.len();
        let value_size = attend.layout.value_size();
        scratch.folded.clear(value_size);
        scratch.split.clear(value_size);
        for part in parts.chunks_exact(Folded::size(value_size)) {
            scratch.split.restore(vectors, part);
            scratch.folded.fold(l, vectors, &scratch.split);
        }
        write_rows(attend, plan, item, &scratch.folded, out);
    }
}

/// Puts an item's queries in the order in which blocks of them are read.
#[inline(always)]
fn gather_queries(attend: &Attend<'_>, plan: &Plan, item: Item, to: &mut Vec<f32>) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let AttentionShape { head_size, query_heads, scale, .. } = *attend.shape;
    let heads = &plan.heads[group.heads.clone()];
    let vectors = tile.rows.len() * heads.len();
    to.resize(VECTORS * head_size, 0.0);
    for vector in 0..vectors {
        let (row, head) = (tile.rows.start + vector / heads.len(), heads[vector % heads.len()]);
        let q = &attend.q[(row * query_heads + head) * head_size..][..head_size];
        let block = vector / BLOCK * BLOCK;
        let width = BLOCK.min(vectors - block);
        let to = &mut to[block * head_size..][..width * head_size];
        for (to, q) in to[vector - block..].iter_mut().step_by(width).zip(q) {
            *to = q * scale;
        }
    }
}

/// Scores, weights and weighted values of one split, to `scratch.split`.
#[inline(always)]
fn one_split<L: Lanes>(
    l: L,
    attend: &Attend<'_>,
    (tile, group): (&RowTile, &HeadGroup),
    split: usize,
    scratch: &mut Scratch,
) {
    let seen = tile.seen_by_any(attend);
    let seen = seen.start.max(split * SPLIT)..seen.end.min((split + 1) * SPLIT);
    let first = seen.start / LANES;
    let pages = pages(attend, tile, group.kv_head, &seen, &mut scratch.gathered);
    let pages = &pages[..seen.end.div_ceil(LANES) - first];
    let vectors = tile.rows.len() * group.heads.len();
    let size = attend.shape.head_size;
    for from in (0..vectors).step_by(BLOCK) {
        let width = BLOCK.min(vectors - from);
        let q = &scratch.q[from * size..][..width * size];
        let scores = &mut scratch.weights[from * SPLIT..][..width * SPLIT];
        match width {
            1 => score::<L, 1>(l, q, pages, scores),
            2 => score::<L, 2>(l, q, pages, scores),
            3 => score::<L, 3>(l, q, pages, scores),
            4 => score::<L, 4>(l, q, pages, scores),
            5 => score::<L, 5>(l, q, pages, scores),
            _ => score::<L, BLOCK>(l, q, pages, scores),
        }
    }
    for vector in 0..vectors {
        let own = tile.seen(attend, tile.rows.start + vector / group.heads.len());
        let weights = &mut scratch.weights[vector * SPLIT..][..pages.len() * LANES];
        let (weights, []) = weights.as_chunks_mut::<LANES>() else { unreachable!("whole pages") };
        scratch.split.set(vector, softmax(l, weights, first * LANES, &own));
    }
    let inside = seen.start - first * LANES..seen.end - first * LANES;
    for from in (0..vectors).step_by(BLOCK) {
        let width = BLOCK.min(vectors - from);
        let weights = &scratch.weights[from * SPLIT..][..width * SPLIT];
        let value_size = attend.layout.value_size();
        let sums = &mut scratch.split.sums[from * value_size..][..width * value_size];
        let values = (pages, value_size, &inside);
        match width {
            1 => weigh::<L, 1>(l, weights, values, sums),
            2 => weigh::<L, 2>(l, weights, values, sums),
            3 => weigh::<L, 3>(l, weights, values, sums),
            4 => weigh::<L, 4>(l, weights, values, sums),
            5 => weigh::<L, 5>(l, weights, values, sums),
            _ => weigh::<L, BLOCK>(l, weights, values, sums),
        }
    }
}

/// Scores of `R` queries at all positions of the pages. `q` is `(head size, R)`, `scores` `(R, SPLIT)`.
#[inline(always)]
fn score<L: Lanes, const R: usize>(l: L, q: &[f32], pages: &[&[f16]], scores: &mut [f32]) {
    for (at, page) in pages.iter().enumerate() {
        let mut sums = [l.splat(0.0); R];
        for (q, keys) in q.as_chunks::<R>().0.iter().zip(page.as_chunks::<LANES>().0) {
            let keys = l.load_f16(keys);
            for r in 0..R {
                sums[r] = l.fma(l.splat(q[r]), keys, sums[r]);
            }
        }
        for r in 0..R {
            if let Some(to) = scores[r * SPLIT + at * LANES..].first_chunk_mut() {
                l.store(sums[r], to);
            }
        }
    }
}

/// Weighted sums of the values at positions `inside` of the pages. `weights` is `(R, SPLIT)`, `sums`
/// `(R, value size)`.
#[inline(always)]
fn weigh<L: Lanes, const R: usize>(
    l: L,
    weights: &[f32],
    (pages, value_size, inside): (&[&[f16]], usize, &Range<usize>),
    sums: &mut [f32],
) {
    for column in (0..value_size).step_by(LANES) {
        let mut sum = [l.splat(0.0); R];
        for (at, page) in pages.iter().enumerate() {
            let values = &page[page.len() - value_size * LANES..];
            let from = inside.start.saturating_sub(at * LANES);
            let to = (inside.end - at * LANES).min(LANES);
            let weights: [&[f32]; R] =
                std::array::from_fn(|r| &weights[r * SPLIT + at * LANES..][..to]);
            for i in from..to {
                if let Some(values) = values[i * value_size + column..].first_chunk() {
                    let values = l.load_f16(values);
                    for r in 0..R {
                        sum[r] = l.fma(l.splat(weights[r][i]), values, sum[r]);
                    }
                }
            }
        }
        for r in 0..R {
            if let Some(to) = sums[r * value_size + column..].first_chunk_mut() {
                l.store(sum[r], to);
            }
        }
    }
}

/// Writes what an item's rows attended to.
#[inline(always)]
fn write_rows(
    attend: &Attend<'_>,
    plan: &Plan,
    item: Item,
    folded: &Folded,
    out: &Disjoint<'_, f32>,
) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let AttentionShape { head_size, query_heads, .. } = *attend.shape;
    let heads = &plan.heads[group.heads.clone()];
    for (at, row) in tile.rows.clone().enumerate() {
        for (i, head) in heads.iter().enumerate() {
            let start = (row * query_heads + head) * head_size;
            // SAFETY: rows and heads of an item are its own.
            let to = unsafe { out.part(start..start + head_size) };
            folded.mean(at * heads.len() + i, head_size, to);
        }
    }
}
