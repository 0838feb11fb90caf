//! Rows of x times a packed matrix: all of a decoder's multiplications by weights.
//!
//! A block of up to [`Dots::BLOCK_ROWS`] rows of x shares each load of weights. However many rows there are,
//! a row's sums are made by the same operations in the same order, so its result is the same.

use std::ops::Range;

use checkpoint::Activation;

use crate::backend::cpu::disjoint::Disjoint;
use crate::backend::cpu::function::activate;
use crate::backend::cpu::lanes::{Dots, LANES, Lanes};
use crate::backend::cpu::path::{Isa, Product};
use crate::backend::cpu::strip::{CodeBits, Minima, Packed, Plain, Scales, Strip};
use crate::backend::cpu::team::Team;
use crate::backend::cpu::tensor::{Group, RowBlock};
use crate::backend::cpu::weight::{Section, Weight, with_tiles};

/// How far ahead of itself a row alone asks for weights, bytes: units that fetch by themselves stop at
/// the end of a 4 KiB page.
const AHEAD_BYTES: usize = 4096;
/// What is fetched at a time, bytes.
const LINE_BYTES: usize = 64;
/// Rows of x that an item covers, so that they stay in the second-level cache while all tiles of the
/// item pass by.
const ITEM_ROWS: usize = 64;
/// Items a thread, so that a slow one is not waited for long.
const ITEMS_A_THREAD: usize = 4;

/// Rows of x, plain and quantised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) rows: usize,
    pub(crate) plain: &'a [f32],
    /// Empty where the weight has no use for it.
    pub(crate) quantised: &'a [Group],
    /// The same, 16 rows at a time; empty on paths that have no use for it.
    pub(crate) blocks: &'a [RowBlock],
}

/// Where results go: a row for each row of x.
#[derive(Debug)]
pub(crate) enum Output<'a> {
    /// `x · weightᵀ + bias`
    Plain(Disjoint<'a, f32>),
    /// `activation(x · gateᵀ) × (x · upᵀ)`
    Gated(Disjoint<'a, f32>, Activation),
    /// `x · weightᵀ`: segments rounded to a grid and added in f64.
    Grid(Disjoint<'a, f64>),
    /// The same, rounded once to f32.
    Rounded(Disjoint<'a, f32>),
}

impl Output<'_> {
    /// Whether segments are added up on the grid.
    #[inline(always)]
    pub(crate) fn has_totals(&self) -> bool {
        matches!(self, Self::Grid(_) | Self::Rounded(_))
    }
}

/// Multiplies all rows of `input` by `weight`.
pub(crate) fn linear(
    isa: Isa,
    team: &Team,
    input: &Input<'_>,
    weight: &Weight,
    output: &Output<'_>,
) {
    if input.rows == 0 {
        return;
    }
    for section in &weight.sections {
        with_tiles!(&section.tiles, |strips| {
            section_of(isa, team, &Job::new(input, weight, section, strips, output));
        });
    }
}

fn section_of<S: Operand>(isa: Isa, team: &Team, job: &Job<'_, S>) {
    let tiles = job.section.rows.div_ceil(LANES);
    let row_items = job.rows.div_ceil(ITEM_ROWS);
    let tile_items = (team.threads() * ITEMS_A_THREAD).div_ceil(row_items);
    let tiles_an_item = tiles.div_ceil(tile_items);
    let tile_items = tiles.div_ceil(tiles_an_item);
    team.run(row_items * tile_items, &|item| {
        let (row, tile) = (item / tile_items * ITEM_ROWS, item % tile_items * tiles_an_item);
        let rows = row..job.rows.min(row + ITEM_ROWS);
        let tiles = tile..tiles.min(tile + tiles_an_item);
        let done = S::multiply_blocks(isa, job, rows.clone(), tiles.clone());
        isa.multiply(Span { job, rows: rows.start + done..rows.end, tiles });
    });
}

/// Which side of an input a strip is multiplied with, and how.
pub(crate) trait Operand: Strip {
    fn of<'a>(input: &Input<'a>) -> &'a [Self::X];

    /// Multiplies whole blocks of rows, where there are tile registers that can; how many rows it did.
    fn multiply_blocks(
        _isa: Isa,
        _job: &Job<'_, Self>,
        _rows: Range<usize>,
        _tiles: Range<usize>,
    ) -> usize {
        0
    }
}

impl<W: Scales> Operand for Plain<W> {
    fn of<'a>(input: &Input<'a>) -> &'a [f32] {
        input.plain
    }
}

impl<C: CodeBits, S: Scales, M: Minima> Operand for Packed<C, S, M> {
    fn of<'a>(input: &Input<'a>) -> &'a [Group] {
        input.quantised
    }

    fn multiply_blocks(
        isa: Isa,
        job: &Job<'_, Self>,
        rows: Range<usize>,
        tiles: Range<usize>,
    ) -> usize {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) => crate::backend::cpu::amx::multiply(amx, job, rows, tiles),
            _ => 0,
        }
    }
}

/// Everything about one section.
pub(crate) struct Job<'a, S: Strip> {
    section: &'a Section,
    pub(crate) strips: &'a [S],
    /// Strips of a tile, and elements of a row of x.
    pub(crate) depth: usize,
    /// Strips of a segment.
    pub(crate) segment: usize,
    /// Tiles that make one tile of results: gate and up, or just one.
    pub(crate) tiles: usize,
    /// Output columns of the whole matrix.
    width: usize,
    pub(crate) rows: usize,
    x: &'a [S::X],
    /// `(blocks, depth)`, see [`Input::blocks`].
    pub(crate) blocks: &'a [RowBlock],
    pub(crate) output: &'a Output<'a>,
}

impl<'a, S: Operand> Job<'a, S> {
    fn new(
        input: &Input<'a>,
        weight: &Weight,
        section: &'a Section,
        strips: &'a [S],
        output: &'a Output<'a>,
    ) -> Self {
        let depth = weight.columns.div_ceil(S::COLUMNS);
        let segment = weight.segment.map_or(depth, |columns| columns / S::COLUMNS);
        let x = S::of(input);
        assert_eq!(x.len(), input.rows * depth, "x has as many columns as the matrix");
        assert_eq!(weight.gated, matches!(output, Output::Gated(..)), "gate and up go together");
        let (tiles, width) = (if weight.gated { 2 } else { 1 }, weight.rows);
        let (rows, blocks) = (input.rows, input.blocks);
        Self { section, strips, depth, segment, tiles, width, rows, x, blocks, output }
    }
}

/// Some rows times some tiles, on one thread.
struct Span<'a, S: Strip> {
    job: &'a Job<'a, S>,
    rows: Range<usize>,
    tiles: Range<usize>,
}

impl<S: Strip> Product for Span<'_, S> {
    #[inline(always)]
    fn run<L: Lanes, D: Dots>(self, l: L, d: D) {
        for tile in self.tiles {
            let mut row = self.rows.start;
            while D::BLOCK_ROWS >= 8 && row + 8 <= self.rows.end {
                block::<L, D, S, 8, 1>((l, d), self.job, row, tile);
                row += 8;
            }
            while row + 4 <= self.rows.end {
                if S::COLUMNS == 1 {
                    // Nothing but additions, one after another: more sums at a time hide their time.
                    block::<L, D, S, 4, 2>((l, d), self.job, row, tile);
                } else {
                    block::<L, D, S, 4, 1>((l, d), self.job, row, tile);
                }
                row += 4;
            }
            if row + 2 <= self.rows.end {
                block::<L, D, S, 2, 2>((l, d), self.job, row, tile);
                row += 2;
            }
            if row < self.rows.end {
                block::<L, D, S, 1, 2>((l, d), self.job, row, tile);
            }
        }
    }
}

/// `R` rows times one tile (gated: a tile of each), `P` parts of the tile at a time.
#[inline(always)]
fn block<L: Lanes, D: Dots, S: Strip, const R: usize, const P: usize>(
    (l, d): (L, D),
    job: &Job<'_, S>,
    row: usize,
    tile: usize,
) {
    let depth = job.depth;
    let x: [&[S::X]; R] = std::array::from_fn(|r| &job.x[(row + r) * depth..][..depth]);
    let strips = &job.strips[tile * job.tiles * depth..][..job.tiles * depth];
    // For each row its total, or in the same place its sums of gate and of up.
    let mut kept = [[0.0; LANES]; R];
    for part in (0..D::PARTS).step_by(P) {
        for (turn, strips) in strips.chunks_exact(depth).enumerate() {
            for (at, strips) in strips.chunks(job.segment).enumerate() {
                let from = at * job.segment;
                let x: [&[S::X]; R] = std::array::from_fn(|r| &x[r][from..][..strips.len()]);
                let sums = sum::<D, S, R, P>(d, strips, x, part);
                for (p, sums) in sums.iter().enumerate().take(D::PARTS) {
                    for (sum, kept) in sums.iter().zip(&mut kept) {
                        if job.output.has_totals() {
                            d.add_on_grid(*sum, kept, part + p);
                        } else {
                            d.store(*sum, &mut pair_mut(kept)[turn], part + p);
                        }
                    }
                }
            }
        }
    }
    for (r, kept) in kept.iter().enumerate() {
        if job.output.has_totals() {
            finish_totals(job, (row + r, tile), kept);
        } else {
            let [sums, others]: &[[f32; LANES]; 2] = bytemuck::cast_ref(kept);
            finish_sums(l, job, (row + r, tile), [sums, others]);
        }
    }
}

/// The room of 16 totals as that of two times 16 sums.
#[inline(always)]
fn pair_mut(kept: &mut [f64; LANES]) -> &mut [[f32; LANES]; 2] {
    bytemuck::cast_mut(kept)
}

/// Sums over strips, of some parts of a tile.
#[inline(always)]
fn sum<D: Dots, S: Strip, const R: usize, const P: usize>(
    d: D,
    strips: &[S],
    x: [&[S::X]; R],
    part: usize,
) -> [[D::F; R]; P] {
    let mut sums = [[d.splat(0.0); R]; P];
    for (at, strip) in strips.iter().enumerate() {
        if R <= 2 && part == 0 {
            let ahead = std::ptr::from_ref(strip).cast::<u8>().wrapping_add(AHEAD_BYTES);
            for line in 0..size_of::<S>().div_ceil(LINE_BYTES) {
                d.prefetch(ahead.wrapping_add(line * LINE_BYTES));
            }
        }
        let x = std::array::from_fn(|r| &x[r][at]);
        for (p, sums) in sums.iter_mut().enumerate().take(D::PARTS) {
            strip.add(d, part + p, x, sums);
        }
    }
    sums
}

/// What becomes of the sums of a row and tile; gated: of gate and of up.
#[inline(always)]
pub(crate) fn finish_sums<L: Lanes, S: Strip>(
    l: L,
    job: &Job<'_, S>,
    (row, tile): (usize, usize),
    [sums, others]: [&[f32; LANES]; 2],
) {
    match job.output {
        Output::Plain(out) => match &job.section.bias {
            Some(bias) => {
                let sums = l.add(l.load(sums), l.load(&bias[tile]));
                write(job, out, row, tile, &lanes(l, sums));
            }
            None => write(job, out, row, tile, sums),
        },
        Output::Gated(out, activation) => {
            let gate = activate(l, *activation, l.load(sums));
            write(job, out, row, tile, &lanes(l, l.mul(gate, l.load(others))));
        }
        Output::Grid(_) | Output::Rounded(_) => unreachable!("a grid has totals"),
    }
}

/// What becomes of the totals of a row and tile.
#[inline(always)]
pub(crate) fn finish_totals<S: Strip>(
    job: &Job<'_, S>,
    (row, tile): (usize, usize),
    totals: &[f64; LANES],
) {
    match job.output {
        Output::Grid(out) => write(job, out, row, tile, totals),
        Output::Rounded(out) => write(job, out, row, tile, &totals.map(rounded)),
        Output::Plain(_) | Output::Gated(..) => unreachable!("only a grid has totals"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the point")]
#[inline(always)]
fn rounded(total: f64) -> f32 {
    total as f32
}

#[inline(always)]
fn lanes<L: Lanes>(l: L, x: L::F) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    l.store(x, &mut lanes);
    lanes
}

/// Writes the lanes of a tile that are rows of the matrix.
#[inline(always)]
#[expect(unsafe_code, reason = "threads write to parts of one slice")]
fn write<S: Strip, T: Copy>(
    job: &Job<'_, S>,
    out: &Disjoint<'_, T>,
    row: usize,
    tile: usize,
    values: &[T; LANES],
) {
    let first = row * job.width + job.section.first + tile * LANES;
    let filled = LANES.min(job.section.rows - tile * LANES);
    // SAFETY: each row and tile is computed by one item, once.
    let to = unsafe { out.part(first..first + filled) };
    if let Ok(to) = <&mut [T; LANES]>::try_from(&mut *to) {
        *to = *values;
    } else {
        to.copy_from_slice(&values[..filled]);
    }
}
