//! The path for any CPU, and the definition of what the others compute. Its instructions are called,
//! not inlined: that costs this path speed and saves everyone compiling each kernel as plain Rust.

use half::f16;

use crate::backend::cpu::lanes::{LANES, Lanes};

/// Plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Lanes for Portable {
    type F = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        *to = x;
    }

    #[inline(never)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        each(|i| x[i].to_f32())
    }

    #[inline(never)]
    fn store_f16(self, x: Self::F, to: &mut [f16; LANES]) {
        *to = x.map(f16::from_f32);
    }

    #[inline(never)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }

    #[inline(never)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }

    #[inline(never)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }

    #[inline(never)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }

    #[inline(never)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(never)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(never)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(never)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    #[inline(never)]
    fn if_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers from -126 to 127")]
    #[expect(clippy::cast_sign_loss, reason = "127 was added")]
    fn exp2(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(never)]
    fn sum(self, mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }

    #[inline(never)]
    fn greatest(self, mut a: Self::F) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] = if a[i] > a[i + width] { a[i] } else { a[i + width] };
            }
        }
        a[0]
    }

    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers from -127 to 127")]
    fn store_i8(self, low: Self::F, high: Self::F, to: &mut [i8; 2 * LANES]) {
        for i in 0..LANES {
            to[i] = low[i] as i8;
            to[i + LANES] = high[i] as i8;
        }
    }
}
