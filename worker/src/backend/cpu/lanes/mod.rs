//! The instructions that kernels are written in.
//!
//! Each kernel is written once, over [`Lanes`] and [`Dots`]; a path supplies the instructions. All
//! paths give the same bits: integer arithmetic is exact however it is grouped, and every f32
//! operation is one IEEE operation in each path (`fma` rounds once, everywhere). Where lanes are added
//! up, the order is that of [`Lanes::sum`]. AMX, which multiplies whole tiles, has a module of its own.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_bytes;
#[cfg(target_arch = "x86_64")]
mod avx2_dots;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_dots;
mod portable;
mod portable_dots;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

use half::{bf16, f16};

use crate::backend::cpu::tensor::Group;

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;
/// Bytes in a vector of bytes: 4 for each lane.
pub(crate) const BYTES: usize = 64;

/// The first numbers of `x`; 0 beyond its end.
#[inline(always)]
pub(crate) fn padded<const N: usize>(x: &[f32]) -> [f32; N] {
    if let Some(first) = x.first_chunk() {
        return *first;
    }
    let mut padded = [0.0; N];
    padded[..x.len()].copy_from_slice(x);
    padded
}

/// Sixteen numbers at a time. A value of this type is the permission to use the instructions.
pub(crate) trait Lanes: Copy + Send + Sync + 'static {
    /// Query vectors that share a load of keys or values: as many as leave the sums in registers.
    const VECTORS: usize = 6;

    /// Sixteen f32.
    type F: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; LANES]);
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    /// Rounds to nearest, ties to even; beyond the range of f16 is infinite.
    fn store_f16(self, x: Self::F, to: &mut [f16; LANES]);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a × b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a < b ? a : b`, so `b` if either is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a > b ? a : b`, so `b` if either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// `a < b ? yes : no`
    fn if_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// 2ⁿ for whole `n` from -126 to 127.
    fn exp2(self, n: Self::F) -> Self::F;
    /// `a × 2ⁿ` for whole `n` from -126 to 127.
    #[inline(always)]
    fn times_exp2(self, a: Self::F, n: Self::F) -> Self::F {
        self.mul(a, self.exp2(n))
    }
    /// Lane `i` plus lane `i + 8`; of these eight, `i` plus `i + 4`; and so on.
    fn sum(self, a: Self::F) -> f32;
    /// The greatest lane.
    fn greatest(self, a: Self::F) -> f32;
    /// Whole numbers from -127 to 127, as bytes.
    fn store_i8(self, low: Self::F, high: Self::F, to: &mut [i8; 2 * LANES]);
}

/// Dot products of a *part* of a tile's 16 rows: as many as one register has lanes, so that a block of
/// several rows of x has all its sums in registers. Part `i` of 16 things are those from `i × WIDTH`.
pub(crate) trait Dots: Copy + Send + Sync + 'static {
    /// Rows of a part.
    const WIDTH: usize;
    /// Parts of a tile.
    const PARTS: usize = LANES / Self::WIDTH;
    /// Rows of x that share a load of weights: as many as leave the sums in registers.
    const BLOCK_ROWS: usize = 4;
    /// Bytes are multiplied straight to i32, without the limits of [`Dots::mac_rows`].
    const EXACT: bool;
    /// What [`Dots::mac_centred_rows`] leaves to be taken off each byte: 0, or all of the 128.
    const UNCENTRED: f32 = 0.0;

    /// An f32 a row.
    type F: Copy;
    /// An i32 a row.
    type I: Copy;
    /// Four bytes a row.
    type U: Copy;
    /// A sum a row on its way to i32, perhaps in narrower pieces; see [`Dots::mac_rows`].
    type H: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES], part: usize) -> Self::F;
    fn load_f16(self, x: &[f16; LANES], part: usize) -> Self::F;
    fn load_bf16(self, x: &[bf16; LANES], part: usize) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; LANES], part: usize);
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a × b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Adds each sum, rounded to [`crate::backend::SUM_GRID`], to `totals`.
    fn add_on_grid(self, x: Self::F, totals: &mut [f64; LANES], part: usize);

    /// Asks for the cache line at `at`, which may lie anywhere.
    fn prefetch(self, at: *const u8);

    fn zero(self) -> Self::I;
    fn float(self, x: Self::I) -> Self::F;

    fn load_bytes(self, x: &[u8; BYTES], part: usize) -> Self::U;
    /// The low half of each byte.
    fn low(self, x: Self::U) -> Self::U;
    /// The high half of each byte.
    fn high(self, x: Self::U) -> Self::U;
    /// Each byte shifted by `BITS` (positive: left, to higher bits), then masked. Bits that would
    /// cross into the next byte must be masked away.
    fn shifted<const BITS: i32>(self, x: Self::U, mask: u8) -> Self::U;
    fn or(self, a: Self::U, b: Self::U) -> Self::U;

    fn none(self) -> Self::H;
    /// Step `STEP` for several rows of x: adds to each sum the dot product of four bytes of `a`
    /// (unsigned) and four codes of x. A path that is not [`Dots::EXACT`] keeps two i16 a row, so with
    /// `a ≤ m` only `32767 / (254 × m)` steps may follow one another before [`Dots::widen`].
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        sums: [Self::H; R],
        a: Self::U,
        x: [&Group; R],
    ) -> [Self::H; R];
    fn widen(self, sum: Self::I, narrow: Self::H) -> Self::I;
    /// As [`Dots::mac_rows`], for bytes of any value with 128 taken off (or not, see
    /// [`Dots::UNCENTRED`]): exact at once.
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [Self::I; R],
        a: Self::U,
        x: [&Group; R],
    ) -> [Self::I; R];
}
