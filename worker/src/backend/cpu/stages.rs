//! The two multiplications of attention, for several query vectors that share each load.

use std::ops::Range;

use half::f16;

use crate::backend::cpu::attend::{SPLIT, VECTORS};
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::Kernel;
use crate::backend::cpu::short::GROUP;

macro_rules! widths {
    ($d:tt $($w:literal)*) => {
        /// Numbers of vectors for which there are kernels: all small ones, and what divides common groups.
        const WIDTHS: &[usize] = &[$($w),*];

        /// Evaluates an expression with the constant `$R`, which is `$width`, one of [`WIDTHS`].
        macro_rules! of_width {
            ($d width:expr, $d R:ident => $d run:expr) => {
                match $d width {
                    $($w => { const $d R: usize = $w; $d run })*
                    width => unreachable!("{width} is one of WIDTHS"),
                }
            };
        }
    };
}
widths!($ 24 12 8 6 5 4 3 2 1);
pub(crate) use of_width;

/// Vectors of the next kernel where `left` are to do and sums of `widest` fit in registers.
pub(crate) fn width(left: usize, widest: usize) -> Option<usize> {
    WIDTHS.iter().copied().find(|&width| width <= left.min(widest))
}

/// [`Lanes::VECTORS`] of a path.
pub(crate) struct Widest;

impl Kernel for Widest {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> usize {
        L::VECTORS
    }
}

/// What numbers of a page are.
pub(crate) trait Number: Copy {
    fn load<L: Lanes>(l: L, x: &[Self; LANES]) -> L::F;
}

impl Number for f16 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[Self; LANES]) -> L::F {
        l.load_f16(x)
    }
}

impl Number for f32 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, x: &[Self; LANES]) -> L::F {
        l.load(x)
    }
}

/// Scores of `R` queries at all positions of the pages.
pub(crate) struct Score<'a, const R: usize, N> {
    /// `(head size, VECTORS)`
    pub(crate) q: &'a [f32],
    /// The first of the queries.
    pub(crate) from: usize,
    pub(crate) pages: &'a [&'a [N]],
    /// Where scores go. `(R, SPLIT)`
    pub(crate) weights: &'a mut [[f32; SPLIT]],
}

impl<const R: usize, N: Number> Kernel for Score<'_, R, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        // Known when this is compiled, so that kernels too wide for the path come to nothing.
        if R > L::VECTORS {
            unreachable!("as many as fit in registers");
        }
        let weights = self.weights.first_chunk_mut::<R>().expect("a row for each query");
        let (q, _) = self.q.as_chunks::<VECTORS>();
        assert!(self.from + R <= VECTORS, "queries of one item");
        for (at, page) in self.pages.iter().enumerate() {
            let keys = page.as_chunks::<LANES>().0.chunks(GROUP);
            for (group, (q, keys)) in q.chunks(GROUP).zip(keys).enumerate() {
                let (q, keys) = (q.as_chunks::<2>().0, keys.as_chunks::<2>().0);
                let (mut even, mut odd) = ([l.splat(0.0); R], [l.splat(0.0); R]);
                macro_rules! add {
                    ($sums:ident, $side:literal, $q:ident, $keys:ident) => {
                        let keys = N::load(l, &$keys[$side]);
                        for r in 0..R {
                            $sums[r] = l.fma(l.splat($q[$side][self.from + r]), keys, $sums[r]);
                        }
                    };
                }
                if both::<L>(R) {
                    for (q, keys) in q.iter().zip(keys) {
                        add!(even, 0, q, keys);
                        add!(odd, 1, q, keys);
                    }
                } else {
                    for (q, keys) in q.iter().zip(keys) {
                        add!(even, 0, q, keys);
                    }
                    for (q, keys) in q.iter().zip(keys) {
                        add!(odd, 1, q, keys);
                    }
                }
                for r in 0..R {
                    if let Some(to) = weights[r][at * LANES..].first_chunk_mut() {
                        finish(l, (even[r], odd[r]), group == 0, to);
                    }
                }
            }
        }
    }
}

/// Whether both sums of a group, of even products and of odd ones, are made at once, for `queries`:
/// if that leaves them in registers.
#[inline(always)]
fn both<L: Lanes>(queries: usize) -> bool {
    2 * queries <= L::VECTORS
}

/// Adds a group's sums to `to`.
#[inline(always)]
fn finish<L: Lanes>(l: L, (even, odd): (L::F, L::F), first: bool, to: &mut [f32; LANES]) {
    let sum = l.add(even, odd);
    l.store(if first { sum } else { l.add(l.load(to), sum) }, to);
}

/// Weighted sums of the values at positions `inside` of the pages, for `R` queries.
pub(crate) struct Weigh<'a, const R: usize, N> {
    /// `(R, SPLIT)`
    pub(crate) weights: &'a [[f32; SPLIT]],
    /// From the first of a group of positions on.
    pub(crate) pages: &'a [&'a [N]],
    pub(crate) value_size: usize,
    pub(crate) inside: Range<usize>,
    /// `(R, value size)`
    pub(crate) sums: &'a mut [f32],
}

impl<const R: usize, N: Number> Kernel for Weigh<'_, R, N> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { weights, pages, value_size, inside, sums: to } = self;
        // As in `Score`.
        if R > L::VECTORS {
            unreachable!("as many as fit in registers");
        }
        let weights = weights.first_chunk::<R>().expect("a row for each query");
        for column in (0..value_size).step_by(LANES) {
            for (group, pages) in pages.chunks(GROUP / LANES).enumerate() {
                let (mut even, mut odd) = ([l.splat(0.0); R], [l.splat(0.0); R]);
                macro_rules! add {
                    ($sums:ident, $side:literal, $values:ident, $first:ident, $at:expr) => {
                        let position = $first + 2 * $at + $side;
                        // Always so, but stated: then the loads need no checks.
                        if let Some(values) =
                            $values[(2 * $at + $side) * value_size..].first_chunk()
                            && position < SPLIT
                        {
                            let values = N::load(l, values);
                            for r in 0..R {
                                $sums[r] = l.fma(l.splat(weights[r][position]), values, $sums[r]);
                            }
                        }
                    };
                }
                macro_rules! add_pages {
                    ($($sums:ident, $side:literal);*) => {
                        for (at, page) in pages.iter().enumerate() {
                            let values = &page[page.len() - value_size * LANES + column..];
                            let first = group * GROUP + at * LANES;
                            if inside.start <= first && first + LANES <= inside.end {
                                for at in 0..LANES / 2 {
                                    $(add!($sums, $side, values, first, at);)*
                                }
                            } else {
                                // What nobody sees may be anything.
                                for at in 0..LANES / 2 {
                                    $(if inside.contains(&(first + 2 * at + $side)) {
                                        add!($sums, $side, values, first, at);
                                    })*
                                }
                            }
                        }
                    };
                }
                if both::<L>(R) {
                    add_pages!(even, 0; odd, 1);
                } else {
                    add_pages!(even, 0);
                    add_pages!(odd, 1);
                }
                for r in 0..R {
                    if let Some(to) = to[r * value_size + column..].first_chunk_mut() {
                        finish(l, (even[r], odd[r]), group == 0, to);
                    }
                }
            }
        }
    }
}
