//! Dot products with AVX-512: a part is a whole tile, and bytes are multiplied by fours (VNNI).

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::x86_64::{
    __m512, __m512d, __m512i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_prefetch, _mm256_loadu_si256,
    _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_pd, _mm512_add_ps, _mm512_and_si512,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_cvtps_pd, _mm512_dpbusd_epi32, _mm512_extractf32x8_ps, _mm512_fmadd_ps,
    _mm512_loadu_pd, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_epi16, _mm512_max_ps,
    _mm512_mul_ps, _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_pd,
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_sll_epi16,
    _mm512_slli_epi32, _mm512_srl_epi16, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_pd,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_pd, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps, _mm512_xor_si512,
};

use half::{bf16, f16};

use crate::backend::cpu::lanes::avx512::{Avx512, with_avx512};
use crate::backend::cpu::lanes::portable_dots::GRID_MAGIC;
use crate::backend::cpu::lanes::{BYTES, Dots, LANES};
use crate::backend::cpu::tensor::Group;

/// Folds each of 16 vectors to a lane of one, all at once: neighbours are interleaved as they are halved.
macro_rules! fold_lanes {
    ($of:ident, $fold:ident) => {{
        let mut twos = [$of[0]; LANES / 2];
        for i in 0..LANES / 2 {
            let (a, b) = ($of[2 * i], $of[2 * i + 1]);
            twos[i] = with_avx512!($fold(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
        }
        let mut fours = [twos[0]; LANES / 4];
        for i in 0..LANES / 4 {
            fours[i] = with_avx512!({
                let (a, b) = (_mm512_castps_pd(twos[2 * i]), _mm512_castps_pd(twos[2 * i + 1]));
                let (even, odd) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                $fold(_mm512_castpd_ps(even), _mm512_castpd_ps(odd))
            });
        }
        with_avx512!({
            let [a, b, c, d] = fours;
            let low = $fold(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
            let high =
                $fold(_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d));
            $fold(_mm512_shuffle_f32x4::<0x88>(low, high), _mm512_shuffle_f32x4::<0xDD>(low, high))
        })
    }};
}

/// What only tile registers ask for.
impl Avx512 {
    #[inline(always)]
    pub(crate) fn store_bytes(self, x: __m512i, to: &mut [u8; BYTES]) {
        with_avx512!(_mm512_storeu_si512(to.as_mut_ptr().cast(), x));
    }

    #[inline(always)]
    pub(crate) fn load_i32(self, x: &[i32; LANES]) -> __m512i {
        with_avx512!(_mm512_loadu_si512(x.as_ptr().cast()))
    }

    /// Numbers of 8 bits as bf16, those of `even` in the lower halves.
    #[inline(always)]
    pub(crate) fn store_pairs(self, even: __m512, odd: __m512, to: &mut [u32; LANES]) {
        with_avx512!({
            let even = _mm512_srli_epi32::<16>(_mm512_castps_si512(even));
            let pairs = _mm512_mask_blend_epi16(0xAAAA_AAAA, even, _mm512_castps_si512(odd));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        });
    }

    /// Numbers of 8 bits as bf16, one after another.
    #[inline(always)]
    pub(crate) fn store_bf16(self, x: __m512, to: &mut [u32; LANES / 2]) {
        with_avx512!({
            let high = _mm512_srli_epi32::<16>(_mm512_castps_si512(x));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(high));
        });
    }

    /// The sum of each vector's lanes, in some order.
    #[inline(always)]
    pub(crate) fn sums_of(self, of: [__m512; LANES]) -> __m512 {
        fold_lanes!(of, _mm512_add_ps)
    }

    /// The greatest of each vector's lanes.
    #[inline(always)]
    pub(crate) fn greatest_of(self, of: [__m512; LANES]) -> __m512 {
        fold_lanes!(of, _mm512_max_ps)
    }

    /// Each byte less 128, as a signed one.
    #[inline(always)]
    pub(crate) fn centre(self, x: __m512i) -> __m512i {
        with_avx512!(_mm512_xor_si512(x, _mm512_set1_epi8(-128)))
    }
}

impl Dots for Avx512 {
    const WIDTH: usize = LANES;
    const EXACT: bool = true;
    const BLOCK_ROWS: usize = 8;
    const UNCENTRED: f32 = 128.0;
    type F = __m512;
    type I = __m512i;
    type U = __m512i;
    type H = __m512i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        with_avx512!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES], _part: usize) -> __m512 {
        with_avx512!(_mm512_loadu_ps(x.as_ptr()))
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES], _part: usize) -> __m512 {
        with_avx512!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES], _part: usize) -> __m512 {
        with_avx512!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; LANES], _part: usize) {
        with_avx512!(_mm512_storeu_ps(to.as_mut_ptr(), x));
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn add_on_grid(self, x: __m512, totals: &mut [f64; LANES], _part: usize) {
        let (low, high) = totals.split_at_mut(LANES / 2);
        with_avx512!({
            let first = on_grid(_mm512_cvtps_pd(_mm512_castps512_ps256(x)));
            let second = on_grid(_mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x)));
            let low_sum = _mm512_add_pd(_mm512_loadu_pd(low.as_ptr()), first);
            let high_sum = _mm512_add_pd(_mm512_loadu_pd(high.as_ptr()), second);
            _mm512_storeu_pd(low.as_mut_ptr(), low_sum);
            _mm512_storeu_pd(high.as_mut_ptr(), high_sum);
        });
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        with_avx512!(_mm_prefetch::<_MM_HINT_T0>(at.cast()));
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        with_avx512!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn float(self, x: __m512i) -> __m512 {
        with_avx512!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; BYTES], _part: usize) -> __m512i {
        with_avx512!(_mm512_loadu_si512(x.as_ptr().cast()))
    }

    #[inline(always)]
    fn low(self, x: __m512i) -> __m512i {
        with_avx512!(_mm512_and_si512(x, _mm512_set1_epi8(15)))
    }

    #[inline(always)]
    fn high(self, x: __m512i) -> __m512i {
        with_avx512!(_mm512_and_si512(_mm512_srli_epi16::<4>(x), _mm512_set1_epi8(15)))
    }

    #[inline(always)]
    fn shifted<const BITS: i32>(self, x: __m512i, mask: u8) -> __m512i {
        with_avx512!({
            // The count is known, so this becomes a shift by an immediate.
            let count = _mm_cvtsi32_si128(BITS.abs());
            let shifted =
                if BITS < 0 { _mm512_srl_epi16(x, count) } else { _mm512_sll_epi16(x, count) };
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask.cast_signed()))
        })
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        with_avx512!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn none(self) -> __m512i {
        self.zero()
    }

    #[inline(always)]
    fn mac_rows<const R: usize, const STEP: usize>(
        self,
        mut sums: [__m512i; R],
        a: __m512i,
        x: [&Group; R],
    ) -> [__m512i; R] {
        for r in 0..R {
            let x = i32::from_ne_bytes(x[r].step::<STEP>().map(i8::cast_unsigned));
            sums[r] = with_avx512!(_mm512_dpbusd_epi32(sums[r], a, _mm512_set1_epi32(x)));
        }
        sums
    }

    #[inline(always)]
    fn widen(self, sum: __m512i, narrow: __m512i) -> __m512i {
        with_avx512!(_mm512_add_epi32(sum, narrow))
    }

    #[inline(always)]
    fn mac_centred_rows<const R: usize, const STEP: usize>(
        self,
        sums: [__m512i; R],
        a: __m512i,
        x: [&Group; R],
    ) -> [__m512i; R] {
        self.mac_rows::<R, STEP>(sums, a, x)
    }
}

#[inline(always)]
fn on_grid(x: __m512d) -> __m512d {
    with_avx512!({
        let magic = _mm512_set1_pd(GRID_MAGIC);
        _mm512_sub_pd(_mm512_add_pd(x, magic), magic)
    })
}
