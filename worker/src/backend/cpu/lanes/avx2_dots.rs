//! Dot products with AVX2: a part is a register of eight rows.

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::asm;
use std::arch::x86_64::{
    __m256, __m256d, __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_add_pd, _mm256_and_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_cvtps_pd, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_pd, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_pd, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_sll_epi16, _mm256_slli_epi32, _mm256_srl_epi16,
    _mm256_srli_epi16, _mm256_storeu_pd, _mm256_storeu_ps, _mm256_sub_pd, _mm256_xor_si256,
};

use half::{bf16, f16};

use crate::backend::cpu::lanes::avx2::{Avx2, with_avx2};
use crate::backend::cpu::lanes::portable_dots::GRID_MAGIC;
use crate::backend::cpu::lanes::{BYTES, Dots, LANES};
use crate::backend::cpu::tensor::Group;

/// Rows of a part.
const EIGHT: usize = 8;

/// The part of 16 things.
#[inline(always)]
fn part_of<T>(x: &[T; LANES], part: usize) -> &[T; EIGHT] {
    &x.as_chunks().0[part]
}

impl Dots for Avx2 {
    const WIDTH: usize = EIGHT;
    type F = __m256;
    type I = __m256i;
    type U = __m256i;
    /// Two i16 a row.
    type H = __m256i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        with_avx2!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES], part: usize) -> __m256 {
        with_avx2!(_mm256_loadu_ps(part_of(x, part).as_ptr()))
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES], part: usize) -> __m256 {
        with_avx2!(_mm256_cvtph_ps(_mm_loadu_si128(part_of(x, part).as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES], part: usize) -> __m256 {
        with_avx2!({
            let narrow = _mm_loadu_si128(part_of(x, part).as_ptr().cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow)))
        })
    }

    #[inline(always)]
    fn store(self, x: __m256, to: &mut [f32; LANES], part: usize) {
        let to: &mut [f32; EIGHT] = &mut to.as_chunks_mut().0[part];
        with_avx2!(_mm256_storeu_ps(to.as_mut_ptr(), x));
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        with_avx2!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        with_avx2!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn add_on_grid(self, x: __m256, totals: &mut [f64; LANES], part: usize) {
        let totals: &mut [f64; EIGHT] = &mut totals.as_chunks_mut().0[part];
        let (low, high) = totals.split_at_mut(EIGHT / 2);
        with_avx2!({
            let first = on_grid(_mm256_cvtps_pd(_mm256_castps256_ps128(x)));
            let second = on_grid(_mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)));
            let low_sum = _mm256_add_pd(_mm256_loadu_pd(low.as_ptr()), first);
            let high_sum = _mm256_add_pd(_mm256_loadu_pd(high.as_ptr()), second);
            _mm256_storeu_pd(low.as_mut_ptr(), low_sum);
            _mm256_storeu_pd(high.as_mut_ptr(), high_sum);
        });
    }

    #[inline(always)]
    fn zero(self) -> __m256i {
        with_avx2!(_mm256_setzero_si256())
    }

    #[inline(always)]
    fn float(self, x: __m256i) -> __m256 {
        with_avx2!(_mm256_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; BYTES], part: usize) -> __m256i {
        let x: &[u8; 4 * EIGHT] = &x.as_chunks().0[part];
        with_avx2!(_mm256_loadu_si256(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn low(self, x: __m256i) -> __m256i {
        with_avx2!(_mm256_and_si256(x, _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn high(self, x: __m256i) -> __m256i {
        with_avx2!(_mm256_and_si256(_mm256_srli_epi16::<4>(x), _mm256_set1_epi8(15)))
    }

    #[inline(always)]
    fn shifted<const BITS: i32>(self, x: __m256i, mask: u8) -> __m256i {
        with_avx2!({
            // The count is known, so this becomes a shift by an immediate.
            let count = _mm_cvtsi32_si128(BITS.abs());
            let shifted =
                if BITS < 0 { _mm256_srl_epi16(x, count) } else { _mm256_sll_epi16(x, count) };
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
        })
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        with_avx2!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn none(self) -> __m256i {
        self.zero()
    }

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

/// [`Dots::mac`] for four rows of x, in an order that compilers do not find: multiplications and
/// additions that alternate leave a quarter of the ports idle.
#[inline]
#[target_feature(enable = "avx2")]
fn mac_four<const STEP: usize>(
    [mut s0, mut s1, mut s2, mut s3]: [__m256i; 4],
    a: __m256i,
    x: [&Group; 4],
) -> [__m256i; 4] {
    // SAFETY: reads four codes of each group.
    unsafe {
        asm!(
            "vpbroadcastd {t0}, dword ptr [{x0} + {at}]",
            "vpbroadcastd {t1}, dword ptr [{x1} + {at}]",
            "vpbroadcastd {t2}, dword ptr [{x2} + {at}]",
            "vpbroadcastd {t3}, dword ptr [{x3} + {at}]",
            "vpmaddubsw {t0}, {a}, {t0}",
            "vpmaddubsw {t1}, {a}, {t1}",
            "vpmaddubsw {t2}, {a}, {t2}",
            "vpmaddubsw {t3}, {a}, {t3}",
            "vpaddw {s0}, {s0}, {t0}",
            "vpaddw {s1}, {s1}, {t1}",
            "vpaddw {s2}, {s2}, {t2}",
            "vpaddw {s3}, {s3}, {t3}",
            a = in(ymm_reg) a,
            at = const 4 * STEP,
            x0 = in(reg) x[0].codes.as_ptr(),
            x1 = in(reg) x[1].codes.as_ptr(),
            x2 = in(reg) x[2].codes.as_ptr(),
            x3 = in(reg) x[3].codes.as_ptr(),
            s0 = inout(ymm_reg) s0,
            s1 = inout(ymm_reg) s1,
            s2 = inout(ymm_reg) s2,
            s3 = inout(ymm_reg) s3,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            t2 = out(ymm_reg) _,
            t3 = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        );
    }
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
    let ones = _mm256_set1_epi16(1);
    // SAFETY: reads four codes of each group.
    unsafe {
        asm!(
            "vpbroadcastd {t0}, dword ptr [{x0} + {at}]",
            "vpbroadcastd {t1}, dword ptr [{x1} + {at}]",
            "vpbroadcastd {t2}, dword ptr [{x2} + {at}]",
            "vpbroadcastd {t3}, dword ptr [{x3} + {at}]",
            "vpsignb {t0}, {t0}, {a}",
            "vpsignb {t1}, {t1}, {a}",
            "vpsignb {t2}, {t2}, {a}",
            "vpsignb {t3}, {t3}, {a}",
            "vpmaddubsw {t0}, {size}, {t0}",
            "vpmaddubsw {t1}, {size}, {t1}",
            "vpmaddubsw {t2}, {size}, {t2}",
            "vpmaddubsw {t3}, {size}, {t3}",
            "vpmaddwd {t0}, {t0}, {ones}",
            "vpmaddwd {t1}, {t1}, {ones}",
            "vpmaddwd {t2}, {t2}, {ones}",
            "vpmaddwd {t3}, {t3}, {ones}",
            "vpaddd {s0}, {s0}, {t0}",
            "vpaddd {s1}, {s1}, {t1}",
            "vpaddd {s2}, {s2}, {t2}",
            "vpaddd {s3}, {s3}, {t3}",
            a = in(ymm_reg) a,
            size = in(ymm_reg) size,
            ones = in(ymm_reg) ones,
            at = const 4 * STEP,
            x0 = in(reg) x[0].codes.as_ptr(),
            x1 = in(reg) x[1].codes.as_ptr(),
            x2 = in(reg) x[2].codes.as_ptr(),
            x3 = in(reg) x[3].codes.as_ptr(),
            s0 = inout(ymm_reg) s0,
            s1 = inout(ymm_reg) s1,
            s2 = inout(ymm_reg) s2,
            s3 = inout(ymm_reg) s3,
            t0 = out(ymm_reg) _,
            t1 = out(ymm_reg) _,
            t2 = out(ymm_reg) _,
            t3 = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        );
    }
    [s0, s1, s2, s3]
}

#[inline(always)]
fn eight_times(x: [i8; 4]) -> __m256i {
    let x = i32::from_ne_bytes(x.map(i8::cast_unsigned));
    with_avx2!(_mm256_set1_epi32(x))
}

#[inline(always)]
fn on_grid(x: __m256d) -> __m256d {
    with_avx2!({
        let magic = _mm256_set1_pd(GRID_MAGIC);
        _mm256_sub_pd(_mm256_add_pd(x, magic), magic)
    })
}
