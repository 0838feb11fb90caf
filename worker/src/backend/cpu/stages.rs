//! The two multiplications of attention, for several query vectors that share each load.

use std::ops::Range;

use half::f16;

use crate::backend::cpu::attend::{SPLIT, VECTORS};
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::Kernel;

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
            let mut sums = [l.splat(0.0); R];
            for (q, keys) in q.iter().zip(page.as_chunks::<LANES>().0) {
                let keys = N::load(l, keys);
                for r in 0..R {
                    sums[r] = l.fma(l.splat(q[self.from + r]), keys, sums[r]);
                }
            }
            for r in 0..R {
                if let Some(to) = weights[r][at * LANES..].first_chunk_mut() {
                    l.store(sums[r], to);
                }
            }
        }
    }
}

/// Weighted sums of the values at positions `inside` of the pages, for `R` queries.
pub(crate) struct Weigh<'a, const R: usize, N> {
    /// `(R, SPLIT)`
    pub(crate) weights: &'a [[f32; SPLIT]],
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
        let Self { weights, pages, value_size, inside, sums } = self;
        // As in `Score`.
        if R > L::VECTORS {
            unreachable!("as many as fit in registers");
        }
        let weights = weights.first_chunk::<R>().expect("a row for each query");
        for column in (0..value_size).step_by(LANES) {
            let mut sum = [l.splat(0.0); R];
            for (at, page) in pages.iter().enumerate() {
                let values = &page[page.len() - value_size * LANES..];
                let from = inside.start.saturating_sub(at * LANES);
                let to = (inside.end - at * LANES).min(LANES);
                for i in from..to {
                    // Always below, but stated: so the loads of weights need no checks.
                    let position = at * LANES + i;
                    if let Some(values) = values[i * value_size + column..].first_chunk()
                        && position < SPLIT
                    {
                        let values = N::load(l, values);
                        for r in 0..R {
                            sum[r] = l.fma(l.splat(weights[r][position]), values, sum[r]);
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
}
