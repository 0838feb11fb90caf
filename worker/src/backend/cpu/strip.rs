//! Packed weights: [`LANES`] output rows side by side, a few columns at a time.
//!
//! A *tile* is 16 rows of a matrix; a *strip* is what a tile holds of [`GROUP`] columns (quantised)
//! or of one column (plain numbers). Strips of a tile follow one another in memory, and so do tiles,
//! so that a step reads each matrix as one stream. Within a strip the bytes of 16 rows × 4 columns
//! make a vector: lane `i` holds four neighbouring columns of row `i`. That is what a byte dot
//! product wants (and, eight or sixteen such vectors at a time, what AMX wants as a tile).
//!
//! Nothing is lost: codes, scales and minima are those of the file. A row's sum runs over its strips
//! in order, by one and the same sequence of f32 operations whatever the number of rows of x.

use bytemuck::Zeroable;
use half::{bf16, f16};

use crate::backend::cpu::blocks::Codes;
use crate::backend::cpu::codes::{Eight, Five, Four, Six};
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::tensor::{GROUP, Group};

/// Columns of a step: the bytes of a lane.
pub(crate) const STEP: usize = 4;

/// A tile's share of a few columns.
pub(crate) trait Strip: Zeroable + Copy + Send + Sync + 'static {
    /// What it is multiplied with: the same columns of a row of x.
    type X: Sync + Copy;
    /// Columns of a strip.
    const COLUMNS: usize;

    /// Adds its share of the dot products of its 16 rows with `R` rows of x to `sums`.
    fn add<L: Lanes, const R: usize>(&self, l: L, x: [&Self::X; R], sums: &mut [L::F; R]);
}

/// A strip of a quantised matrix.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(C)]
pub(crate) struct Packed<C, S, M> {
    codes: C,
    scales: S,
    minima: M,
}

pub(crate) type Q4_0 = Packed<Four, [f16; LANES], Zero<8>>;
pub(crate) type Q4_1 = Packed<Four, [f16; LANES], [f16; LANES]>;
pub(crate) type Q5_0 = Packed<Five, [f16; LANES], Zero<16>>;
pub(crate) type Q5_1 = Packed<Five, [f16; LANES], [f16; LANES]>;
pub(crate) type Q8_0 = Packed<Eight, [f16; LANES], Zero<0>>;
pub(crate) type Q4K = Packed<Four, [f32; LANES], [f32; LANES]>;
pub(crate) type Q5K = Packed<Five, [f32; LANES], [f32; LANES]>;
pub(crate) type Q6K = Packed<Six, [[f32; LANES]; 2], Zero<32>>;

/// Codes of 16 rows × [`GROUP`] columns, packed.
pub(crate) trait CodeBits: Zeroable + Copy + Send + Sync + 'static {
    /// Steps whose pairs fit an i16 together: `32767 / (254 × greatest code)`; 0: not even one, and
    /// the codes are centred by 128 as they are multiplied.
    const RUN: usize;

    /// Puts the code of a row and column in its place, which holds 0.
    fn put(&mut self, row: usize, column: usize, code: u8);

    /// The codes of columns `4 × STEP..`.
    fn at<L: Lanes, const STEP: usize>(&self, l: L) -> L::U;
}

/// Scales of 16 rows.
pub(crate) trait Scales: Zeroable + Copy + Send + Sync + 'static {
    /// In how many parts a group has them: 1 or 2.
    const PARTS: usize;

    fn put(&mut self, row: usize, scales: [f32; 2]);

    fn at<L: Lanes>(&self, l: L, part: usize) -> L::F;
}

/// What makes a number of a code, besides the scale: something added, or a zero taken off the code.
pub(crate) trait Minima: Zeroable + Copy + Send + Sync + 'static {
    /// Taken off each code.
    const ZERO: f32;

    fn put(&mut self, row: usize, minimum: f32);

    fn at<L: Lanes>(&self, l: L) -> Option<L::F>;
}

impl<C: CodeBits, S: Scales, M: Minima> Packed<C, S, M> {
    /// Puts a group of a row in its place, which is empty.
    pub(crate) fn put(&mut self, row: usize, group: &Codes) {
        for (column, &code) in group.codes.iter().enumerate() {
            self.codes.put(row, column, code);
        }
        self.scales.put(row, group.scales);
        self.minima.put(row, group.minimum);
    }

    /// Exact dot products of steps `FROM..TO`.
    #[inline(always)]
    fn dot<L: Lanes, const R: usize, const FROM: usize, const TO: usize>(
        &self,
        l: L,
        x: [&Group; R],
    ) -> [L::I; R] {
        let mut wide = [l.zero(); R];
        let mut narrow = [l.none(); R];
        macro_rules! step {
            ($step:literal) => {
                if FROM <= $step && $step < TO {
                    let codes = self.codes.at::<L, $step>(l);
                    for r in 0..R {
                        let x = &x[r].codes;
                        let at = STEP * $step;
                        let x = [x[at], x[at + 1], x[at + 2], x[at + 3]];
                        if C::RUN == 0 {
                            wide[r] = l.mac_centred(wide[r], codes, x);
                        } else {
                            narrow[r] = l.mac(narrow[r], codes, x);
                        }
                    }
                    if C::RUN != 0 && (($step + 1 - FROM) % C::RUN == 0 || $step + 1 == TO) {
                        for r in 0..R {
                            wide[r] = l.widen(wide[r], narrow[r]);
                            narrow[r] = l.none();
                        }
                    }
                }
            };
        }
        step!(0);
        step!(1);
        step!(2);
        step!(3);
        step!(4);
        step!(5);
        step!(6);
        step!(7);
        wide
    }

    /// Adds dot products less the zero, scaled.
    #[inline(always)]
    fn scale<L: Lanes, const R: usize>(
        l: L,
        (dots, scales): ([L::I; R], L::F),
        x: [&Group; R],
        code_sum: impl Fn(&Group) -> f32,
        sums: &mut [L::F; R],
    ) {
        for r in 0..R {
            let mut dot = l.float(dots[r]);
            if M::ZERO != 0.0 {
                // Exact: both are whole numbers under 2^24.
                dot = l.fma(l.splat(code_sum(x[r])), l.splat(-M::ZERO), dot);
            }
            sums[r] = l.fma(dot, l.mul(scales, l.splat(x[r].scale)), sums[r]);
        }
    }
}

impl<C: CodeBits, S: Scales, M: Minima> Strip for Packed<C, S, M> {
    type X = Group;
    const COLUMNS: usize = GROUP;

    #[inline(always)]
    fn add<L: Lanes, const R: usize>(&self, l: L, x: [&Group; R], sums: &mut [L::F; R]) {
        if S::PARTS == 1 {
            let dots = self.dot::<L, R, 0, 8>(l, x);
            Self::scale(l, (dots, self.scales.at(l, 0)), x, |x| x.sum, sums);
        } else {
            let dots = self.dot::<L, R, 0, 4>(l, x);
            Self::scale(l, (dots, self.scales.at(l, 0)), x, |x| x.first_sum, sums);
            let dots = self.dot::<L, R, 4, 8>(l, x);
            Self::scale(l, (dots, self.scales.at(l, 1)), x, |x| x.sum - x.first_sum, sums);
        }
        if let Some(minima) = self.minima.at(l) {
            for r in 0..R {
                sums[r] = l.fma(minima, l.splat(x[r].scaled_sum), sums[r]);
            }
        }
    }
}

/// A strip of a matrix of plain numbers: one column.
#[derive(Debug, Clone, Copy, Zeroable)]
#[repr(transparent)]
pub(crate) struct Plain<W>(pub(crate) W);

pub(crate) type F32 = Plain<[f32; LANES]>;
pub(crate) type F16 = Plain<[f16; LANES]>;
pub(crate) type Bf16 = Plain<[bf16; LANES]>;

impl<W: Scales> Strip for Plain<W> {
    type X = f32;
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn add<L: Lanes, const R: usize>(&self, l: L, x: [&f32; R], sums: &mut [L::F; R]) {
        let weights = self.0.at(l, 0);
        for r in 0..R {
            sums[r] = l.fma(weights, l.splat(*x[r]), sums[r]);
        }
    }
}

impl Scales for [f16; LANES] {
    const PARTS: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = f16::from_f32(scales[0]);
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L, _part: usize) -> L::F {
        l.load_f16(self)
    }
}

impl Scales for [bf16; LANES] {
    const PARTS: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = bf16::from_f32(scales[0]);
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L, _part: usize) -> L::F {
        l.load_bf16(self)
    }
}

impl Scales for [f32; LANES] {
    const PARTS: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = scales[0];
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L, _part: usize) -> L::F {
        l.load(self)
    }
}

impl Scales for [[f32; LANES]; 2] {
    const PARTS: usize = 2;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[0][row] = scales[0];
        self[1][row] = scales[1];
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L, part: usize) -> L::F {
        l.load(&self[part])
    }
}

/// Nothing is added; this is taken off each code.
#[derive(Debug, Clone, Copy, Zeroable)]
pub(crate) struct Zero<const N: u8>;

impl<const N: u8> Minima for Zero<N> {
    const ZERO: f32 = N as f32;

    fn put(&mut self, _row: usize, _minimum: f32) {}

    #[inline(always)]
    fn at<L: Lanes>(&self, _l: L) -> Option<L::F> {
        None
    }
}

impl Minima for [f16; LANES] {
    const ZERO: f32 = 0.0;

    fn put(&mut self, row: usize, minimum: f32) {
        self[row] = f16::from_f32(minimum);
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L) -> Option<L::F> {
        Some(l.load_f16(self))
    }
}

impl Minima for [f32; LANES] {
    const ZERO: f32 = 0.0;

    fn put(&mut self, row: usize, minimum: f32) {
        self[row] = minimum;
    }

    #[inline(always)]
    fn at<L: Lanes>(&self, l: L) -> Option<L::F> {
        Some(l.load(self))
    }
}
