//! Attention over the cached positions: one kernel for decode and for prefill.
//!
//! Positions are dealt with in *splits* of [`SPLIT`], cut at fixed positions. Within a split a row's
//! scores, their softmax and the weighted sum of values are computed by themselves; then splits are
//! folded together in order. So a row's result depends neither on the rows beside it, nor on how its
//! sequence was cut into slices, nor on which blocks it has, nor on who computed which split.
//!
//! Query heads that read the same KV head, of several rows, share each load of keys and values.

#![expect(unsafe_code, reason = "threads write to parts of one slice")]

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use half::f16;
use proto::worker::KvDtype;

use crate::backend::AttentionShape;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::amx_attend::{self, PairUp, Paired};
use crate::backend::cpu::cache::Layout;
use crate::backend::cpu::disjoint::Disjoint;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::lanes::Avx512;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::pages::{Dequantise, PAGES_MAX, pages};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::plan::{HeadGroup, Item, Plan, RowTile};
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::queries::gather_queries;
use crate::backend::cpu::short::GROUP;
use crate::backend::cpu::softmax::{Folded, Softmax};
use crate::backend::cpu::stages::{Number, Score, Weigh, Widest, of_width, width};
use crate::backend::cpu::team::{self, Team};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::tensor::BLOCK;
use crate::batch::Batch;

/// Positions of a split.
pub(crate) const SPLIT: usize = 256;
/// Query vectors (heads × rows) that an item handles: as many as make it worth while to put a split's
/// keys and values together for them.
pub(crate) const VECTORS: usize = 96;
/// Vectors whose weights are worked on at a time, so that these stay in the first-level cache.
const VECTORS_AT_ONCE: usize = 24;
/// Rows of weights: in tile registers, 32 vectors are worked on.
const WEIGHT_ROWS: usize = 32;

/// What one call of [`attend`] works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attend<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) shape: &'a AttentionShape,
    pub(crate) layout: &'a Layout,
    pub(crate) layer: &'a [f16],
    pub(crate) batch: &'a Batch,
}

/// The working memory of each thread of a team, with room for any item before the first one is begun, but for
/// tile registers' operands: who computes what is chance, and a thread that comes late should not have to ask
/// for memory.
#[derive(Debug)]
pub(crate) struct Scratches(Vec<Mutex<Scratch>>);

impl Scratches {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Mutex::default()).collect())
    }

    /// Makes that room, for blocks of such a layout.
    pub(crate) fn reserve(&mut self, layout: &Layout) {
        for scratch in &mut self.0 {
            scratch.get_mut().unwrap_or_else(PoisonError::into_inner).reserve(layout);
        }
    }

    /// That of the thread that calls.
    fn own(&self) -> MutexGuard<'_, Scratch> {
        self.0[team::place()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's working memory, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Scratch {
    /// Queries, scaled and rounded. `(head size, VECTORS)`
    pub(crate) q: Vec<f32>,
    /// `(WEIGHT_ROWS, SPLIT)`: scores, then weights.
    weights: Vec<f32>,
    /// What the splits so far, and this one, come to.
    folded: Folded,
    split: Folded,
    /// Pages put together from small blocks.
    gathered: Vec<f16>,
    /// Pages whose codes became numbers.
    numbers: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(crate) paired: Paired,
}

impl Scratch {
    /// Room for any item of such a layout; what tile registers read grows as it is first used.
    fn reserve(&mut self, layout: &Layout) {
        let (Self { q, weights, folded, split, gathered, numbers, .. }, size) =
            (self, layout.value_size());
        reserve(q, VECTORS * layout.head_size);
        reserve(weights, WEIGHT_ROWS * SPLIT);
        folded.reserve(size);
        split.reserve(size);
        if !layout.block_size.is_multiple_of(LANES) {
            reserve(gathered, PAGES_MAX * layout.stored());
        }
        if layout.dtype == KvDtype::Q8 {
            reserve(numbers, PAGES_MAX * layout.numbers());
        }
    }
}

/// Room for so many numbers in all.
pub(crate) fn reserve<T>(numbers: &mut Vec<T>, count: usize) {
    numbers.reserve_exact(count.saturating_sub(numbers.len()));
}

/// Attention of all rows. `out` is `(T, query heads × head size)`.
pub(crate) fn attend(
    isa: Isa,
    team: &Team,
    (plan, pool, scratches): (&mut Plan, &Pool<f32>, &Scratches),
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
        // SAFETY: each item has a part of its own, if it needs one.
        let part = item.split.map(|_| unsafe { parts_shared.part(at * size..(at + 1) * size) });
        one_item(isa, attend, (plan, item), &mut scratches.own(), part, &out);
    });
    if !cut {
        return;
    }
    // Splits of the same rows and heads stand beside one another.
    let scratch = &mut *scratches.own();
    let mut at = 0;
    for items in plan.items.chunk_by(|a, b| (a.tile, a.group) == (b.tile, b.group)) {
        let parts = &parts[at * size..(at + items.len()) * size];
        at += items.len();
        if items[0].split.is_some() {
            let item = items[0];
            isa.run(FoldParts { attend, plan, item, scratch, parts, out: &out });
        }
    }
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
    gather_queries(isa, attend, (plan, item), scratch);
    scratch.weights.resize(WEIGHT_ROWS * SPLIT, 0.0);
    scratch.folded.room(vectors, attend.layout.value_size());
    scratch.split.room(vectors, attend.layout.value_size());
    if let (Some(split), Some(part)) = (item.split, part) {
        one_split(isa, attend, (tile, group), split, scratch);
        scratch.split.save(vectors, part);
        return;
    }
    for (at, split) in tile.splits(attend).enumerate() {
        one_split(isa, attend, (tile, group), split, scratch);
        if at == 0 {
            std::mem::swap(&mut scratch.split, &mut scratch.folded);
        } else {
            isa.run(Fold { vectors, split: &scratch.split, folded: &mut scratch.folded });
        }
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
        scratch.folded.room(vectors, value_size);
        scratch.split.room(vectors, value_size);
        for (at, part) in parts.chunks_exact(Folded::size(value_size)).enumerate() {
            if at == 0 {
                scratch.folded.restore(vectors, part);
            } else {
                scratch.split.restore(vectors, part);
                scratch.folded.fold(l, vectors, &scratch.split);
            }
        }
        write_rows(attend, plan, item, &scratch.folded, out);
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
    let layout = attend.layout;
    let seen = tile.seen_by_any(attend);
    let seen = seen.start.max(split * SPLIT)..seen.end.min((split + 1) * SPLIT);
    // Groups of positions begin where they always do.
    let first = seen.start / GROUP * GROUP;
    let count = (seen.end - first).div_ceil(LANES);
    let work = Work { attend, tile, vectors: tile.rows.len() * group.heads.len(), first, seen };
    let (mut gathered, mut numbers) =
        (std::mem::take(&mut scratch.gathered), std::mem::take(&mut scratch.numbers));
    let stored =
        &pages(attend, tile, group.kv_head, &(first..work.seen.end), &mut gathered)[..count];
    match layout.dtype {
        KvDtype::F16 => stages(isa, &work, stored, scratch),
        KvDtype::Q8 => {
            let size = layout.numbers();
            numbers.resize(PAGES_MAX * size, 0.0); // (pages, keys and values)
            isa.run(Dequantise { layout, pages: stored, numbers: &mut numbers });
            let mut pages: [&[f32]; PAGES_MAX] = [&[]; PAGES_MAX];
            for (page, numbers) in pages.iter_mut().zip(numbers.chunks_exact(size)) {
                *page = numbers;
            }
            stages(isa, &work, &pages[..count], scratch);
        }
    }
    (scratch.gathered, scratch.numbers) = (gathered, numbers);
}

/// What the stages of a split have to do.
struct Work<'a> {
    attend: &'a Attend<'a>,
    tile: &'a RowTile,
    /// Queries of the item.
    vectors: usize,
    /// The position that the pages begin with.
    first: usize,
    /// Positions of the split that any of them sees.
    seen: Range<usize>,
}

impl Work<'_> {
    /// What is seen, counted from the first page on.
    fn inside(&self) -> Range<usize> {
        self.seen.start - self.first..self.seen.end - self.first
    }

    /// Turns scores of the queries from `from` on into weights.
    fn softmax(&self, isa: Isa, from: usize, scores: &mut [[f32; SPLIT]], to: &mut Folded) {
        let heads = self.vectors / self.tile.rows.len();
        let positions = (self.seen.end - self.first).next_multiple_of(LANES);
        for (vector, scores) in (from..self.vectors).zip(scores) {
            let seen = self.tile.seen(self.attend, self.tile.rows.start + vector / heads);
            let (scores, _) = scores[..positions].as_chunks_mut::<LANES>();
            to.set(vector, isa.run(Softmax { scores, first: self.first, seen }));
        }
    }
}

/// Each stage is a kernel of its own for each number of vectors: small functions keep their sums in
/// registers.
fn stages<N: Number>(isa: Isa, work: &Work<'_>, pages: &[&[N]], scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = isa.attends_in_tiles(work.vectors) {
        return in_tiles(isa, (&amx.for_bf16(), amx.lanes()), work, pages, scratch);
    }
    let Scratch { q, weights, split: to, .. } = scratch;
    let (weights, _) = weights.as_chunks_mut::<SPLIT>(); // (WEIGHT_ROWS, SPLIT)
    let value_size = work.attend.layout.value_size();
    let widest = isa.run(Widest);
    for first in (0..work.vectors).step_by(VECTORS_AT_ONCE) {
        let end = work.vectors.min(first + VECTORS_AT_ONCE);
        let mut from = first;
        while let Some(width) = width(end - from, widest) {
            let weights = &mut weights[from - first..][..width];
            of_width!(width, R => isa.run(Score::<R, N> { q, from, pages, weights }));
            from += width;
        }
        work.softmax(isa, first, weights, to);
        let mut from = first;
        while let Some(width) = width(end - from, widest) {
            let (weights, inside) = (&weights[from - first..][..width], work.inside());
            let sums = &mut to.sums[from * value_size..][..width * value_size];
            of_width!(width, R => isa.run(Weigh::<R, N> { weights, pages, value_size, inside, sums }));
            from += width;
        }
    }
}

/// The same in tile registers.
#[cfg(target_arch = "x86_64")]
fn in_tiles<N: Number>(
    isa: Isa,
    (tiles, avx512): (&Tiles, Avx512),
    work: &Work<'_>,
    pages: &[&[N]],
    scratch: &mut Scratch,
) {
    let Scratch { weights, split: to, paired, .. } = scratch;
    let AttentionShape { head_size, .. } = *work.attend.shape;
    let value_size = work.attend.layout.value_size();
    let inside = work.inside();
    let positions = inside.end;
    avx512.run(PairUp { paired, avx512, pages, head_size, value_size, inside });
    let (weights, _) = weights.as_chunks_mut::<SPLIT>(); // (WEIGHT_ROWS, SPLIT)
    macro_rules! blocks {
        ($count:literal, $from:expr) => {
            let weights = &mut weights[..$count * BLOCK];
            amx_attend::score::<$count>(tiles, paired, $from, weights);
            work.softmax(isa, $from, weights, to);
            let sums = (&mut to.sums[$from * value_size..], value_size);
            amx_attend::weigh::<$count>((tiles, avx512), paired, (weights, positions), sums);
        };
    }
    for from in (0..work.vectors).step_by(2 * BLOCK) {
        if work.vectors - from > BLOCK {
            blocks!(2, from);
        } else {
            blocks!(1, from);
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
