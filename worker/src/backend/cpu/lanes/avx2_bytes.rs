//! Bytes multiplied in registers of eight rows: by pairs (AVX2) or by fours (AVX-VNNI).

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_sign_epi8, _mm256_xor_si256,
};

use crate::backend::cpu::lanes::avx2::{Avx2, AvxVnni, with_avx2};
use crate::backend::cpu::tensor::Group;

/// The part of [`super::Dots`] in which CPUs with registers of eight rows differ.
pub(crate) trait Bytes: Copy + Send + Sync + 'static {
    /// See [`super::Dots::EXACT`].
    const EXACT: bool;
    /// See [`super::Dots::UNCENTRED`].
    const UNCENTRED: f32;

    /// See [`super::Dots::mac_rows`].
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R];
    /// See [`super::Dots::widen`].
    fn widen(self, sum: __m256i, narrow: __m256i) -> __m256i;
    /// See [`super::Dots::mac_centred_rows`].
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R];
}

/// By fours.
impl Bytes for AvxVnni {
    const EXACT: bool = true;
    const UNCENTRED: f32 = 128.0;

    #[inline(always)]
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        mut sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        for r in 0..R {
            let x = eight_times(x[r].step::<STEP>());
            sums[r] = with_avx2!(_mm256_dpbusd_avx_epi32(sums[r], a, x));
        }
        sums
    }

    #[inline(always)]
    fn widen(self, sum: __m256i, narrow: __m256i) -> __m256i {
        with_avx2!(_mm256_add_epi32(sum, narrow))
    }

    #[inline(always)]
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        self.mac_rows::<R, STEP>(sums, a, x)
    }
}

/// By pairs, in i16.
impl Bytes for Avx2 {
    const EXACT: bool = false;
    const UNCENTRED: f32 = 0.0;

    #[inline(always)]
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        mut sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        if let ([s0, s1, s2, s3], [x0, x1, x2, x3]) = (&mut sums[..], &x[..]) {
            let four = [*s0, *s1, *s2, *s3];
            [*s0, *s1, *s2, *s3] = with_avx2!(mac_four::<STEP>(four, a, [x0, x1, x2, x3]));
            return sums;
        }
        for r in 0..R {
            let x = eight_times(x[r].step::<STEP>());
            sums[r] = with_avx2!(_mm256_add_epi16(sums[r], _mm256_maddubs_epi16(a, x)));
        }
        sums
    }

    #[inline(always)]
    fn widen(self, sum: __m256i, narrow: __m256i) -> __m256i {
        with_avx2!(_mm256_add_epi32(sum, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1))))
    }

    /// The sign of the weight goes to the activation; 128 × 127 × 2 still fits an i16.
    #[inline(always)]
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        mut sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        let a = with_avx2!(_mm256_xor_si256(a, _mm256_set1_epi8(-128)));
        let size = with_avx2!(_mm256_abs_epi8(a));
        if let ([s0, s1, s2, s3], [x0, x1, x2, x3]) = (&mut sums[..], &x[..]) {
            let four = [*s0, *s1, *s2, *s3];
            let x = [*x0, *x1, *x2, *x3];
            [*s0, *s1, *s2, *s3] = with_avx2!(mac_four_signed::<STEP>(four, (a, size), x));
            return sums;
        }
        for r in 0..R {
            let x = with_avx2!(_mm256_sign_epi8(eight_times(x[r].step::<STEP>()), a));
            sums[r] = self.widen(sums[r], with_avx2!(_mm256_maddubs_epi16(size, x)));
        }
        sums
    }
}

/// Four sums and the codes of four rows of x, broadcast to `t0` to `t3`, under some instructions.
macro_rules! four_rows {
    ($step:expr, [$s0:ident, $s1:ident, $s2:ident, $s3:ident], $x:ident, [$($instruction:literal)*], $($name:ident = $value:expr),*) => {
        // SAFETY: reads four codes of each group.
        unsafe {
            asm!(
                "vpbroadcastd {t0}, dword ptr [{x0} + {at}]",
                "vpbroadcastd {t1}, dword ptr [{x1} + {at}]",
                "vpbroadcastd {t2}, dword ptr [{x2} + {at}]",
                "vpbroadcastd {t3}, dword ptr [{x3} + {at}]",
                $($instruction,)*
                $($name = in(ymm_reg) $value,)*
                at = const 4 * $step,
                x0 = in(reg) $x[0].codes.as_ptr(),
                x1 = in(reg) $x[1].codes.as_ptr(),
                x2 = in(reg) $x[2].codes.as_ptr(),
                x3 = in(reg) $x[3].codes.as_ptr(),
                s0 = inout(ymm_reg) $s0,
                s1 = inout(ymm_reg) $s1,
                s2 = inout(ymm_reg) $s2,
                s3 = inout(ymm_reg) $s3,
                t0 = out(ymm_reg) _,
                t1 = out(ymm_reg) _,
                t2 = out(ymm_reg) _,
                t3 = out(ymm_reg) _,
                options(readonly, nostack, preserves_flags)
            );
        }
    };
}

/// [`Bytes::mac_rows`] for four rows of x, in an order that compilers do not find: multiplications and
/// additions that alternate leave a quarter of the ports idle.
#[inline]
#[target_feature(enable = "avx2")]
fn mac_four<const STEP: usize>(
    [mut s0, mut s1, mut s2, mut s3]: [__m256i; 4],
    a: __m256i,
    x: [&Group; 4],
) -> [__m256i; 4] {
    four_rows!(STEP, [s0, s1, s2, s3], x, [
        "vpmaddubsw {t0}, {a}, {t0}"
        "vpmaddubsw {t1}, {a}, {t1}"
        "vpmaddubsw {t2}, {a}, {t2}"
        "vpmaddubsw {t3}, {a}, {t3}"
        "vpaddw {s0}, {s0}, {t0}"
        "vpaddw {s1}, {s1}, {t1}"
        "vpaddw {s2}, {s2}, {t2}"
        "vpaddw {s3}, {s3}, {t3}"
    ], a = a);
    [s0, s1, s2, s3]
}

/// The same for signed weights `a` of magnitude `size`.
#[inline]
#[target_feature(enable = "avx2")]
fn mac_four_signed<const STEP: usize>(
    [mut s0, mut s1, mut s2, mut s3]: [__m256i; 4],
    (a, size): (__m256i, __m256i),
    x: [&Group; 4],
) -> [__m256i; 4] {
    four_rows!(STEP, [s0, s1, s2, s3], x, [
        "vpsignb {t0}, {t0}, {a}"
        "vpsignb {t1}, {t1}, {a}"
        "vpsignb {t2}, {t2}, {a}"
        "vpsignb {t3}, {t3}, {a}"
        "vpmaddubsw {t0}, {size}, {t0}"
        "vpmaddubsw {t1}, {size}, {t1}"
        "vpmaddubsw {t2}, {size}, {t2}"
        "vpmaddubsw {t3}, {size}, {t3}"
        "vpmaddwd {t0}, {t0}, {ones}"
        "vpmaddwd {t1}, {t1}, {ones}"
        "vpmaddwd {t2}, {t2}, {ones}"
        "vpmaddwd {t3}, {t3}, {ones}"
        "vpaddd {s0}, {s0}, {t0}"
        "vpaddd {s1}, {s1}, {t1}"
        "vpaddd {s2}, {s2}, {t2}"
        "vpaddd {s3}, {s3}, {t3}"
    ], a = a, size = size, ones = _mm256_set1_epi16(1));
    [s0, s1, s2, s3]
}

#[inline(always)]
fn eight_times(x: [i8; 4]) -> __m256i {
    let x = i32::from_ne_bytes(x.map(i8::cast_unsigned));
    with_avx2!(_mm256_set1_epi32(x))
}
