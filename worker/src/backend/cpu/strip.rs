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

#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::amx::{Integers, Sums, Unpacked};
use crate::backend::cpu::blocks::Codes;
use crate::backend::cpu::codes::{Eight, Five, Four, Six};
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::lanes::Avx512;
use crate::backend::cpu::lanes::{Dots, LANES};
use crate::backend::cpu::tensor::{GROUP, Group, RowBlock};

/// Columns of a step: the bytes of a lane.
pub(crate) const STEP: usize = 4;
/// Steps of a group.
pub(crate) const STEPS: usize = GROUP / STEP;

/// Calls a macro with every step: which one it is has to be known when it is compiled.
macro_rules! each_step {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
    };
}

/// A tile's share of a few columns.
pub(crate) trait Strip: Zeroable + Copy + Send + Sync + 'static {
    /// What it is multiplied with: the same columns of a row of x.
    type X: Sync + Copy;
    /// Columns of a strip.
    const COLUMNS: usize;

    /// Adds its share of the dot products of a part of its rows with `R` rows of x to `sums`.
    fn add<D: Dots, const R: usize>(
        &self,
        d: D,
        part: usize,
        x: [&Self::X; R],
        sums: &mut [D::F; R],
    );
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

    /// Packs the codes of 16 rows; what was there before is gone.
    fn put(&mut self, rows: &[Codes; LANES]);

    /// The codes of columns `4 × STEP..`, of a part of the rows.
    fn at<D: Dots, const STEP: usize>(&self, d: D, part: usize) -> D::U;
}

/// Scales of 16 rows.
pub(crate) trait Scales: Zeroable + Copy + Send + Sync + 'static {
    /// How many a group has: 1, or 2 for its halves.
    const HALVES: usize;

    fn put(&mut self, row: usize, scales: [f32; 2]);

    fn at<D: Dots>(&self, d: D, part: usize, half: usize) -> D::F;
}

/// What makes a number of a code, besides the scale: something added, or a zero taken off the code.
pub(crate) trait Minima: Zeroable + Copy + Send + Sync + 'static {
    /// Taken off each code.
    const ZERO: f32;

    fn put(&mut self, row: usize, minimum: f32);

    fn at<D: Dots>(&self, d: D, part: usize) -> Option<D::F>;
}

impl<C: CodeBits, S: Scales, M: Minima> Packed<C, S, M> {
    /// Packs a group of each of 16 rows.
    pub(crate) fn put(&mut self, rows: &[Codes; LANES]) {
        self.codes.put(rows);
        for (row, group) in rows.iter().enumerate() {
            self.scales.put(row, group.scales);
            self.minima.put(row, group.minimum);
        }
    }

    /// Exact dot products of steps `FROM..TO`.
    #[inline(always)]
    fn dot<D: Dots, const R: usize, const FROM: usize, const TO: usize>(
        &self,
        d: D,
        part: usize,
        x: [&Group; R],
    ) -> [D::I; R] {
        let mut wide = [d.zero(); R];
        let mut narrow = [d.none(); R];
        let run = if D::EXACT { usize::MAX } else { C::RUN };
        macro_rules! step {
            ($step:literal) => {
                if FROM <= $step && $step < TO {
                    let codes = self.codes.at::<D, $step>(d, part);
                    if C::RUN == 0 {
                        wide = d.mac_centred_rows::<R, $step>(wide, codes, x);
                    } else {
                        narrow = d.mac_rows::<R, $step>(narrow, codes, x);
                    }
                    if C::RUN != 0 && (($step + 1 - FROM) % run == 0 || $step + 1 == TO) {
                        for r in 0..R {
                            wide[r] = d.widen(wide[r], narrow[r]);
                            narrow[r] = d.none();
                        }
                    }
                }
            };
        }
        each_step!(step);
        wide
    }

    /// Adds dot products less the zero, scaled.
    #[inline(always)]
    fn scale<D: Dots, const R: usize>(
        d: D,
        (dots, scales): ([D::I; R], D::F),
        x: [&Group; R],
        code_sum: impl Fn(&Group) -> f32,
        sums: &mut [D::F; R],
    ) {
        for r in 0..R {
            let mut dot = d.float(dots[r]);
            let zero = M::ZERO + if C::RUN == 0 { D::UNCENTRED } else { 0.0 };
            if zero != 0.0 {
                // Exact: both are whole numbers under 2^24.
                dot = d.fma(d.splat(code_sum(x[r])), d.splat(-zero), dot);
            }
            sums[r] = d.fma(dot, d.mul(scales, d.splat(x[r].scale)), sums[r]);
        }
    }
}

impl<C: CodeBits, S: Scales, M: Minima> Strip for Packed<C, S, M> {
    type X = Group;
    const COLUMNS: usize = GROUP;

    #[inline(always)]
    fn add<D: Dots, const R: usize>(
        &self,
        d: D,
        part: usize,
        x: [&Group; R],
        sums: &mut [D::F; R],
    ) {
        if S::HALVES == 1 {
            let dots = self.dot::<D, R, 0, 8>(d, part, x);
            Self::scale(d, (dots, self.scales.at(d, part, 0)), x, |x| x.sum, sums);
        } else {
            let dots = self.dot::<D, R, 0, 4>(d, part, x);
            Self::scale(d, (dots, self.scales.at(d, part, 0)), x, |x| x.first_sum, sums);
            let dots = self.dot::<D, R, 4, 8>(d, part, x);
            Self::scale(d, (dots, self.scales.at(d, part, 1)), x, |x| x.sum - x.first_sum, sums);
        }
        if let Some(minima) = self.minima.at(d, part) {
            for r in 0..R {
                sums[r] = d.fma(minima, d.splat(x[r].scaled_sum), sums[r]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<C: CodeBits, S: Scales, M: Minima> Integers for Packed<C, S, M> {
    const PARTS: usize = S::HALVES;

    #[inline(always)]
    fn unpack(&self, d: Avx512, to: &mut Unpacked) {
        macro_rules! step {
            ($step:literal) => {
                let codes = self.codes.at::<Avx512, $step>(d, 0);
                let signed = if C::RUN == 0 { d.centre(codes) } else { codes };
                d.store_bytes(signed, &mut to.0[$step]);
            };
        }
        each_step!(step);
    }

    #[inline(always)]
    fn add_exact<const R: usize>(
        &self,
        d: Avx512,
        part: usize,
        (exact, x): (&Sums, &RowBlock),
        sums: &mut [<Avx512 as Dots>::F; R],
    ) {
        let scales = self.scales.at(d, 0, part);
        for (r, sum) in sums.iter_mut().enumerate() {
            let mut dot = d.float(d.load_i32(&exact.0[r]));
            if M::ZERO != 0.0 {
                let code_sum = match (S::HALVES, part) {
                    (1, _) => x.sum[r],
                    (_, 0) => x.first_sum[r],
                    _ => x.sum[r] - x.first_sum[r],
                };
                dot = Dots::fma(d, Dots::splat(d, code_sum), Dots::splat(d, -M::ZERO), dot);
            }
            *sum = Dots::fma(d, dot, Dots::mul(d, scales, Dots::splat(d, x.scale[r])), *sum);
        }
        if part + 1 == S::HALVES
            && let Some(minima) = self.minima.at(d, 0)
        {
            for (sum, scaled_sum) in sums.iter_mut().zip(&x.scaled_sum) {
                *sum = Dots::fma(d, minima, Dots::splat(d, *scaled_sum), *sum);
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
    fn add<D: Dots, const R: usize>(&self, d: D, part: usize, x: [&f32; R], sums: &mut [D::F; R]) {
        let weights = self.0.at(d, part, 0);
        for r in 0..R {
            sums[r] = d.fma(weights, d.splat(*x[r]), sums[r]);
        }
    }
}

impl Scales for [f16; LANES] {
    const HALVES: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = f16::from_f32(scales[0]);
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize, _half: usize) -> D::F {
        d.load_f16(self, part)
    }
}

impl Scales for [bf16; LANES] {
    const HALVES: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = bf16::from_f32(scales[0]);
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize, _half: usize) -> D::F {
        d.load_bf16(self, part)
    }
}

impl Scales for [f32; LANES] {
    const HALVES: usize = 1;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[row] = scales[0];
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize, _half: usize) -> D::F {
        d.load(self, part)
    }
}

impl Scales for [[f32; LANES]; 2] {
    const HALVES: usize = 2;

    fn put(&mut self, row: usize, scales: [f32; 2]) {
        self[0][row] = scales[0];
        self[1][row] = scales[1];
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize, half: usize) -> D::F {
        d.load(&self[half], part)
    }
}

/// Nothing is added; this is taken off each code.
#[derive(Debug, Clone, Copy, Zeroable)]
pub(crate) struct Zero<const N: u8>;

impl<const N: u8> Minima for Zero<N> {
    const ZERO: f32 = N as f32;

    fn put(&mut self, _row: usize, _minimum: f32) {}

    #[inline(always)]
    fn at<D: Dots>(&self, _d: D, _part: usize) -> Option<D::F> {
        None
    }
}

impl Minima for [f16; LANES] {
    const ZERO: f32 = 0.0;

    fn put(&mut self, row: usize, minimum: f32) {
        self[row] = f16::from_f32(minimum);
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize) -> Option<D::F> {
        Some(d.load_f16(self, part))
    }
}

impl Minima for [f32; LANES] {
    const ZERO: f32 = 0.0;

    fn put(&mut self, row: usize, minimum: f32) {
        self[row] = minimum;
    }

    #[inline(always)]
    fn at<D: Dots>(&self, d: D, part: usize) -> Option<D::F> {
        Some(d.load(self, part))
    }
}
