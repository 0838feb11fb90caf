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
/// Query vectors that share a load at the end, where [`Lanes::VECTORS`] are no longer left.
const REST: usize = 6;

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
            one_item(isa, OneItem { attend, plan, item, scratch, part, out: &out });
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
                fold_parts(isa, FoldParts { attend, plan, item, scratch, parts, out: &out });
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

fn one_item(isa: Isa, job: OneItem<'_>) {
    let OneItem { attend, plan, item, scratch, part, out } = job;
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let vectors = tile.rows.len() * group.heads.len();
    let most = isa.run(Vectors);
    gather_queries(attend, plan, item, most, &mut scratch.q);
    scratch.weights.resize(VECTORS * SPLIT, 0.0);
    scratch.folded.clear(attend.layout.value_size());
    scratch.split.clear(attend.layout.value_size());
    let splits = item.split.map_or_else(|| tile.splits(attend), |split| split..split + 1);
    for split in splits {
        one_split(isa, attend, (tile, group), (split, most), scratch);
        if let Some(part) = part {
            scratch.split.save(vectors, part);
            return;
        }
        isa.run(Fold { vectors, folded: &mut scratch.folded, split: &scratch.split });
    }
    write_rows(attend, plan, item, &scratch.folded, out);
}

struct FoldParts<'a> {
    attend: &'a Attend<'a>,
    plan: &'a Plan,
    item: Item,
    scratch: &'a mut Scratch,
    parts: &'a [f32],
    out: &'a Disjoint<'a, f32>,
}

fn fold_parts(isa: Isa, job: FoldParts<'_>) {
    let FoldParts { attend, plan, item, scratch, parts, out } = job;
    let vectors = plan.tiles[item.tile].rows.len() * plan.groups[item.group].heads.len();
    let value_size = attend.layout.value_size();
    scratch.folded.clear(value_size);
    scratch.split.clear(value_size);
    for part in parts.chunks_exact(Folded::size(value_size)) {
        scratch.split.restore(vectors, part);
        isa.run(Fold { vectors, folded: &mut scratch.folded, split: &scratch.split });
    }
    write_rows(attend, plan, item, &scratch.folded, out);
}

// Each of these is compiled by itself: together, they would not leave one another enough registers.

/// How many query vectors share a load.
struct Vectors;

impl Kernel for Vectors {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _l: L) -> usize {
        L::VECTORS
    }
}

/// See [`Folded::fold`].
struct Fold<'a> {
    vectors: usize,
    folded: &'a mut Folded,
    split: &'a Folded,
}

impl Kernel for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        self.folded.fold(l, self.vectors, self.split);
    }
}

/// See [`softmax`].
struct Softmax<'a> {
    scores: &'a mut [[f32; LANES]],
    first: usize,
    seen: &'a Range<usize>,
}

impl Kernel for Softmax<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> (f32, f32) {
        softmax(l, self.scores, self.first, self.seen)
    }
}

/// The block of vectors that holds `vector`, of `vectors` in all: where it begins, and how many it has.
/// Blocks have `most` while there are so many left, then up to [`REST`].
fn block_of(vector: usize, vectors: usize, most: usize) -> (usize, usize) {
    let from = vector / most * most;
    if from + most <= vectors {
        return (from, most);
    }
    let from = from + (vector - from) / REST * REST;
    (from, REST.min(vectors - from))
}

/// All blocks.
fn blocks(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let next = move |&(from, width): &(usize, usize)| {
        let next = from + width;
        (next < vectors).then(|| block_of(next, vectors, most))
    };
    std::iter::successors((vectors > 0).then(|| block_of(0, vectors, most)), next)
}

/// Puts an item's queries in the order in which blocks of them are read.
fn gather_queries(
    attend: &Attend<'_>,
    plan: &Plan,
    item: Item,
    most: usize,
    to: &mut Vec<f32>,
) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let AttentionShape { head_size, query_heads, scale, .. } = *attend.shape;
    let heads = &plan.heads[group.heads.clone()];
    let vectors = tile.rows.len() * heads.len();
    to.resize(VECTORS * head_size, 0.0);
    for vector in 0..vectors {
        let (row, head) = (tile.rows.start + vector / heads.len(), heads[vector % heads.len()]);
        let q = &attend.q[(row * query_heads + head) * head_size..][..head_size];
        let (block, width) = block_of(vector, vectors, most);
        let to = &mut to[block * head_size..][..width * head_size];
        for (to, q) in to[vector - block..].iter_mut().step_by(width).zip(q) {
            *to = q * scale;
        }
    }
}

/// Scores, weights and weighted values of one split, to `scratch.split`.
fn one_split(
    isa: Isa,
    attend: &Attend<'_>,
    (tile, group): (&RowTile, &HeadGroup),
    (split, most): (usize, usize),
    scratch: &mut Scratch,
) {
    let seen = tile.seen_by_any(attend);
    let seen = seen.start.max(split * SPLIT)..seen.end.min((split + 1) * SPLIT);
    let first = seen.start / LANES;
    let pages = pages(attend, tile, group.kv_head, &seen, &mut scratch.gathered);
    let pages = &pages[..seen.end.div_ceil(LANES) - first];
    let vectors = tile.rows.len() * group.heads.len();
    let size = attend.shape.head_size;
    for (from, width) in blocks(vectors, most) {
        let q = &scratch.q[from * size..][..width * size];
        let scores = &mut scratch.weights[from * SPLIT..][..width * SPLIT];
        isa.run(Score { width, q, pages, scores });
    }
    for vector in 0..vectors {
        let own = tile.seen(attend, tile.rows.start + vector / group.heads.len());
        let weights = &mut scratch.weights[vector * SPLIT..][..pages.len() * LANES];
        let (weights, []) = weights.as_chunks_mut::<LANES>() else { unreachable!("whole pages") };
        let softmax = Softmax { scores: weights, first: first * LANES, seen: &own };
        scratch.split.set(vector, isa.run(softmax));
    }
    for (from, width) in blocks(vectors, most) {
        let weights = &scratch.weights[from * SPLIT..][..width * SPLIT];
        let value_size = attend.layout.value_size();
        let sums = &mut scratch.split.sums[from * value_size..][..width * value_size];
        isa.run(Weigh { width, weights, pages, value_size, sums });
    }
}

/// See [`score`].
struct Score<'a> {
    width: usize,
    q: &'a [f32],
    pages: &'a [&'a [f16]],
    scores: &'a mut [f32],
}

impl Kernel for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { width, q, pages, scores } = self;
        match width {
            1 => score::<L, 1>(l, q, pages, scores),
            2 => score::<L, 2>(l, q, pages, scores),
            3 => score::<L, 3>(l, q, pages, scores),
            4 => score::<L, 4>(l, q, pages, scores),
            5 => score::<L, 5>(l, q, pages, scores),
            REST => score::<L, REST>(l, q, pages, scores),
            _ if L::VECTORS == 12 => score::<L, 12>(l, q, pages, scores),
            _ => unreachable!("a block has 1 to {REST} vectors, or all"),
        }
    }
}

/// See [`weigh`].
struct Weigh<'a> {
    width: usize,
    weights: &'a [f32],
    pages: &'a [&'a [f16]],
    value_size: usize,
    sums: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { width, weights, pages, value_size, sums } = self;
        let values = (pages, value_size);
        match width {
            1 => weigh::<L, 1>(l, weights, values, sums),
            2 => weigh::<L, 2>(l, weights, values, sums),
            3 => weigh::<L, 3>(l, weights, values, sums),
            4 => weigh::<L, 4>(l, weights, values, sums),
            5 => weigh::<L, 5>(l, weights, values, sums),
            REST => weigh::<L, REST>(l, weights, values, sums),
            _ if L::VECTORS == 12 => weigh::<L, 12>(l, weights, values, sums),
            _ => unreachable!("a block has 1 to {REST} vectors, or all"),
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

/// Weighted sums of the values at all positions of the pages; those not seen have the weight 0 and
/// some finite value, so they add nothing. `weights` is `(R, SPLIT)`, `sums` `(R, value size)`.
#[inline(always)]
fn weigh<L: Lanes, const R: usize>(
    l: L,
    weights: &[f32],
    (pages, value_size): (&[&[f16]], usize),
    sums: &mut [f32],
) {
    let (weights, []) = weights.as_chunks::<LANES>() else { unreachable!("a split is whole pages") };
    for column in 0..value_size / LANES {
        let mut sum = [l.splat(0.0); R];
        for (at, page) in pages.iter().enumerate() {
            let values = page[page.len() - value_size * LANES..].as_chunks::<LANES>().0;
            let weights: [&[f32; LANES]; R] =
                std::array::from_fn(|r| &weights[r * (SPLIT / LANES) + at]);
            for (i, values) in values.iter().skip(column).step_by(value_size / LANES).enumerate() {
                let values = l.load_f16(values);
                for r in 0..R {
                    sum[r] = l.fma(l.splat(weights[r][i % LANES]), values, sum[r]);
                }
            }
        }
        for r in 0..R {
            if let Some(to) = sums[r * value_size + column * LANES..].first_chunk_mut() {
                l.store(sum[r], to);
            }
        }
    }
}

/// Writes what an item's rows attended to.
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
