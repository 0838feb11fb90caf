//! Dot products with registers of eight rows: all but how bytes are multiplied.

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::x86_64::{
    __m256, __m256d, __m256i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_prefetch,
    _mm256_add_pd, _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_pd,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_pd, _mm256_set1_ps,
    _mm256_setzero_si256, _mm256_sll_epi16, _mm256_slli_epi32, _mm256_srl_epi16, _mm256_srli_epi16,
    _mm256_storeu_pd, _mm256_storeu_ps, _mm256_sub_pd,
};

use half::{bf16, f16};

use crate::backend::cpu::lanes::avx2::with_avx2;
use crate::backend::cpu::lanes::avx2_bytes::Bytes;
use crate::backend::cpu::lanes::portable_dots::GRID_MAGIC;
use crate::backend::cpu::lanes::{BYTES, Dots, LANES};
use crate::backend::cpu::tensor::Group;

/// Rows of a part.
const EIGHT: usize = 8;

/// [`Dots`] with AVX2, FMA and F16C, and with bytes multiplied in the way of `B`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Eights<B>(pub(crate) B);

/// The part of 16 things.
#[inline(always)]
fn part_of<T>(x: &[T; LANES], part: usize) -> &[T; EIGHT] {
    &x.as_chunks().0[part]
}

impl<B: Bytes> Dots for Eights<B> {
    const WIDTH: usize = EIGHT;
    const EXACT: bool = B::EXACT;
    const UNCENTRED: f32 = B::UNCENTRED;
    type F = __m256;
    type I = __m256i;
    type U = __m256i;
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
    fn prefetch(self, at: *const u8) {
        with_avx2!(_mm_prefetch::<_MM_HINT_T0>(at.cast()));
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
        sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        self.0.mac_rows::<R, STEP>(sums, a, x)
    }

    #[inline(always)]
    fn widen(self, sum: __m256i, narrow: __m256i) -> __m256i {
        self.0.widen(sum, narrow)
    }

    #[inline(always)]
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [__m256i; R],
        a: __m256i,
        x: [&Group; R],
    ) -> [__m256i; R] {
        self.0.mac_centred_rows::<R, STEP>(sums, a, x)
    }
}

#[inline(always)]
fn on_grid(x: __m256d) -> __m256d {
    with_avx2!({
        let magic = _mm256_set1_pd(GRID_MAGIC);
        _mm256_sub_pd(_mm256_add_pd(x, magic), magic)
    })
}
