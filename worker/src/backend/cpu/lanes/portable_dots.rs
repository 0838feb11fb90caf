//! Dot products for any CPU, and the definition of what the others compute.

use half::{bf16, f16};

use crate::backend::cpu::lanes::{BYTES, Dots, LANES, Portable};
use crate::backend::cpu::tensor::Group;

/// 1.5 × 2²⁸: an f64 of this size is spaced by [`crate::backend::SUM_GRID`], so adding it rounds.
pub(crate) const GRID_MAGIC: f64 = 402_653_184.0;

impl Dots for Portable {
    const WIDTH: usize = LANES;
    const EXACT: bool = true;
    type F = [f32; LANES];
    type I = [i32; LANES];
    type U = [u8; BYTES];
    type H = [i32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES], _part: usize) -> Self::F {
        *x
    }

    #[inline(never)]
    fn load_f16(self, x: &[f16; LANES], _part: usize) -> Self::F {
        x.map(f16::to_f32)
    }

    #[inline(never)]
    fn load_bf16(self, x: &[bf16; LANES], _part: usize) -> Self::F {
        x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES], _part: usize) {
        *to = x;
    }

    #[inline(never)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(never)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(never)]
    fn add_on_grid(self, x: Self::F, totals: &mut [f64; LANES], _part: usize) {
        for (total, x) in totals.iter_mut().zip(x) {
            *total += (f64::from(x) + GRID_MAGIC) - GRID_MAGIC;
        }
    }

    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn zero(self) -> Self::I {
        [0; LANES]
    }

    #[inline(never)]
    #[expect(clippy::cast_precision_loss, reason = "sums stay below 2^24")]
    fn float(self, x: Self::I) -> Self::F {
        x.map(|x| x as f32)
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; BYTES], _part: usize) -> Self::U {
        *x
    }

    #[inline(never)]
    fn low(self, x: Self::U) -> Self::U {
        x.map(|byte| byte & 15)
    }

    #[inline(never)]
    fn high(self, x: Self::U) -> Self::U {
        x.map(|byte| byte >> 4)
    }

    #[inline(never)]
    fn shifted<const BITS: i32>(self, x: Self::U, mask: u8) -> Self::U {
        x.map(|byte| if BITS < 0 { byte >> -BITS } else { byte << BITS } & mask)
    }

    #[inline(never)]
    fn or(self, a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn none(self) -> Self::H {
        [0; LANES]
    }

    #[inline(always)]
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        sums: [Self::H; R],
        a: Self::U,
        x: [&Group; R],
    ) -> [Self::H; R] {
        std::array::from_fn(|r| mac(&sums[r], &a, 0, x[r].step::<STEP>()))
    }

    #[inline(never)]
    fn widen(self, sum: Self::I, narrow: Self::H) -> Self::I {
        std::array::from_fn(|i| sum[i] + narrow[i])
    }

    #[inline(always)]
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [Self::I; R],
        a: Self::U,
        x: [&Group; R],
    ) -> [Self::I; R] {
        std::array::from_fn(|r| mac(&sums[r], &a, 128, x[r].step::<STEP>()))
    }
}

/// Adds the dot products of `a`, less a zero, with `x`.
#[inline(never)]
fn mac(sums: &[i32; LANES], a: &[u8; BYTES], zero: i32, x: [i8; 4]) -> [i32; LANES] {
    std::array::from_fn(|i| {
        (0..4).fold(sums[i], |sum, j| sum + (i32::from(a[4 * i + j]) - zero) * i32::from(x[j]))
    })
}
