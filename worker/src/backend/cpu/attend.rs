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
use proto::worker::KvDtype;

use crate::backend::AttentionShape;
use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::disjoint::Disjoint;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::pages::{Dequantise, PAGES_MAX, pages};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::plan::{HeadGroup, Item, Plan, RowTile};
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::softmax::{Folded, Softmax};
use crate::backend::cpu::stages::{Number, Score, Weigh, Widest, of_width, width};
use crate::backend::cpu::team::Team;
use crate::batch::Batch;

/// Positions of a split.
pub(crate) const SPLIT: usize = 256;
/// Query vectors (heads × rows) that an item handles.
pub(crate) const VECTORS: usize = 24;

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
    /// Queries, scaled. `(head size, VECTORS)`
    q: Vec<f32>,
    /// `(vectors, SPLIT)`: scores, then weights.
    weights: Vec<f32>,
    /// What the splits so far, and this one, come to.
    folded: Folded,
    split: Folded,
    /// Pages put together from small blocks.
    gathered: Vec<f16>,
    /// Pages whose codes became numbers.
    numbers: Vec<f32>,
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
            one_item(isa, attend, (plan, item), scratch, part, &out);
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

/// Attends with an item's queries. `part` is where the result of a single split goes.
fn one_item(
    isa: Isa,
    attend: &Attend<'_>,
    (plan, item): (&Plan, Item),
    scratch: &mut Scratch,
    part: Option<&mut [f32]>,
    out: &Disjoint<'_, f32>,
) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let vectors = tile.rows.len() * group.heads.len();
    gather_queries(attend, plan, item, &mut scratch.q);
    scratch.weights.resize(VECTORS * SPLIT, 0.0);
    scratch.folded.clear(attend.layout.value_size());
    scratch.split.clear(attend.layout.value_size());
    if let (Some(split), Some(part)) = (item.split, part) {
        one_split(isa, attend, (tile, group), split, scratch);
        scratch.split.save(vectors, part);
        return;
    }
    for split in tile.splits(attend) {
        one_split(isa, attend, (tile, group), split, scratch);
        isa.run(Fold { vectors, split: &scratch.split, folded: &mut scratch.folded });
    }
    write_rows(attend, plan, item, &scratch.folded, out);
}

struct Fold<'a> {
    vectors: usize,
    split: &'a Folded,
    folded: &'a mut Folded,
}

impl Kernel for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        self.folded.fold(l, self.vectors, self.split);
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

/// Puts an item's queries beside one another, number by number.
fn gather_queries(attend: &Attend<'_>, plan: &Plan, item: Item, to: &mut Vec<f32>) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let AttentionShape { head_size, query_heads, scale, .. } = *attend.shape;
    let heads = &plan.heads[group.heads.clone()];
    to.resize(VECTORS * head_size, 0.0);
    let (to, _) = to.as_chunks_mut::<VECTORS>();
    for vector in 0..tile.rows.len() * heads.len() {
        let (row, head) = (tile.rows.start + vector / heads.len(), heads[vector % heads.len()]);
        let q = &attend.q[(row * query_heads + head) * head_size..][..head_size];
        for (to, q) in to.iter_mut().zip(q) {
            to[vector] = q * scale;
        }
    }
}

/// Scores, weights and weighted values of one split, to `scratch.split`.
fn one_split(
    isa: Isa,
    attend: &Attend<'_>,
    (tile, group): (&RowTile, &HeadGroup),
    split: usize,
    scratch: &mut Scratch,
) {
    let Scratch { q, weights, split: to, gathered, numbers, .. } = scratch;
    let layout = attend.layout;
    let seen = tile.seen_by_any(attend);
    let seen = seen.start.max(split * SPLIT)..seen.end.min((split + 1) * SPLIT);
    let count = seen.end.div_ceil(LANES) - seen.start / LANES;
    let stored = &pages(attend, tile, group.kv_head, &seen, gathered)[..count];
    let (weights, _) = weights.as_chunks_mut::<SPLIT>(); // (VECTORS, SPLIT)
    let work = Work { attend, tile, vectors: tile.rows.len() * group.heads.len(), seen };
    match layout.dtype {
        KvDtype::F16 => stages(isa, &work, (q, stored), weights, to),
        KvDtype::Q8 => {
            let size = layout.numbers();
            numbers.resize(PAGES_MAX * size, 0.0); // (pages, keys and values)
            isa.run(Dequantise { layout, pages: stored, numbers });
            let mut pages: [&[f32]; PAGES_MAX] = [&[]; PAGES_MAX];
            for (page, numbers) in pages.iter_mut().zip(numbers.chunks_exact(size)) {
                *page = numbers;
            }
            stages(isa, &work, (q, &pages[..count]), weights, to);
        }
    }
}

/// What the stages of a split have to do.
struct Work<'a> {
    attend: &'a Attend<'a>,
    tile: &'a RowTile,
    /// Queries of the item.
    vectors: usize,
    /// Positions of the split that any of them sees.
    seen: Range<usize>,
}

/// Each stage is a kernel of its own for each number of vectors: small functions keep their sums in
/// registers.
fn stages<N: Number>(
    isa: Isa,
    Work { attend, tile, vectors, seen }: &Work<'_>,
    (q, pages): (&[f32], &[&[N]]),
    weights: &mut [[f32; SPLIT]],
    to: &mut Folded,
) {
    let vectors = *vectors;
    let first = seen.start / LANES;
    let heads = vectors / tile.rows.len();
    let widest = isa.run(Widest);
    let mut from = 0;
    while let Some(width) = width(vectors - from, widest) {
        let weights = &mut weights[from..from + width];
        of_width!(width, R => isa.run(Score::<R, N> { q, from, pages, weights }));
        from += width;
    }
    for (vector, weights) in weights.iter_mut().enumerate().take(vectors) {
        let own = tile.seen(attend, tile.rows.start + vector / heads);
        let (weights, _) = weights[..pages.len() * LANES].as_chunks_mut::<LANES>();
        let softmax = Softmax { scores: weights, first: first * LANES, seen: own };
        to.set(vector, isa.run(softmax));
    }
    let inside = seen.start - first * LANES..seen.end - first * LANES;
    let value_size = attend.layout.value_size();
    let mut from = 0;
    while let Some(width) = width(vectors - from, widest) {
        let (weights, inside) = (&weights[from..from + width], inside.clone());
        let sums = &mut to.sums[from * value_size..][..width * value_size];
        of_width!(width, R => isa.run(Weigh::<R, N> { weights, pages, value_size, inside, sums }));
        from += width;
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
