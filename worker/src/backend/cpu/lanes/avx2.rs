//! The path for CPUs with AVX2, FMA and F16C: a vector is two registers.

#![expect(unsafe_code, reason = "instructions that not every CPU has")]

use std::arch::x86_64::{
    __m128i, __m256, __m256d, __m256i, _CMP_LT_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtsi32_si128,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_storeu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_pd,
    _mm256_add_ps, _mm256_and_si256, _mm256_andnot_ps, _mm256_blendv_ps, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_cvtps_pd, _mm256_cvtps_ph, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_loadu_pd, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256,
    _mm256_packs_epi16, _mm256_packs_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_pd, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_sll_epi16, _mm256_slli_epi32, _mm256_srl_epi16,
    _mm256_srli_epi16, _mm256_storeu_pd, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_pd,
    _mm256_sub_ps, _mm256_xor_si256,
};

use half::{bf16, f16};

use crate::backend::cpu::lanes::portable::GRID_MAGIC;
use crate::backend::cpu::lanes::{BYTES, LANES, Lanes};
use crate::backend::cpu::path::Kernel;

/// Exists only where the instructions do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The permission, if this CPU has what it takes.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }

    /// Runs a kernel compiled for these instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
            kernel.run(lanes)
        }
        with_avx2!(compiled(self, kernel))
    }
}

/// Calls instructions of AVX2, FMA and F16C.
macro_rules! with_avx2 {
    ($e:expr) => {{
        // SAFETY: there is a value of `Avx2`, so the CPU has the instructions; pointers are made of
        // references to arrays of the size that is read or written.
        unsafe { $e }
    }};
}
use with_avx2;

/// The two halves of an array of `f16` or `bf16`.
#[inline(always)]
fn halves<T>(x: &[T; LANES]) -> [*const __m128i; 2] {
    let (low, high) = x.split_at(LANES / 2);
    [low.as_ptr().cast(), high.as_ptr().cast()]
}

impl Lanes for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type U = [__m256i; 2];
    type H = [__m256i; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [with_avx2!(_mm256_set1_ps(x)); 2]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        let (low, high) = x.split_at(LANES / 2);
        with_avx2!([_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())])
    }

    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        let (low, high) = to.split_at_mut(LANES / 2);
        with_avx2!({
            _mm256_storeu_ps(low.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(high.as_mut_ptr(), x[1]);
        });
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        halves(x).map(|half| with_avx2!(_mm256_cvtph_ps(_mm_loadu_si128(half))))
    }

    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [f16; LANES]) {
        let (low, high) = to.split_at_mut(LANES / 2);
        with_avx2!({
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_cvtps_ph::<0>(x[0]));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_cvtps_ph::<0>(x[1]));
        });
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        halves(x).map(|half| {
            with_avx2!({
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(half));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            })
        })
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        with_avx2!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        with_avx2!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        let sign = with_avx2!(_mm256_set1_ps(-0.0));
        with_avx2!([_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])])
    }

    #[inline(always)]
    fn if_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        with_avx2!([
            _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
            _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
        ])
    }

    #[inline(always)]
    fn exp2(self, n: Self::F) -> Self::F {
        n.map(|n| {
            with_avx2!({
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            })
        })
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        with_avx2!({
            let eight = _mm256_add_ps(a[0], a[1]);
            let high = _mm256_extractf128_ps::<1>(eight);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn greatest(self, a: Self::F) -> f32 {
        with_avx2!({
            let eight = _mm256_max_ps(a[0], a[1]);
            let high = _mm256_extractf128_ps::<1>(eight);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        })
    }

    #[inline(always)]
    fn store_i8(self, low: Self::F, high: Self::F, to: &mut [i8; 2 * LANES]) {
        with_avx2!({
            let low = _mm256_packs_epi32(_mm256_cvtps_epi32(low[0]), _mm256_cvtps_epi32(low[1]));
            let high = _mm256_packs_epi32(_mm256_cvtps_epi32(high[0]), _mm256_cvtps_epi32(high[1]));
            // Packing works within each half of a register; this puts the quarters in order.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes);
        });
    }

    #[inline(always)]
    fn add_on_grid(self, sums: &mut [f64; LANES], x: Self::F) {
        let (low, high) = sums.split_at_mut(LANES / 2);
        for (sums, x) in [low, high].into_iter().zip(x) {
            with_avx2!({
                let first = on_grid(_mm256_cvtps_pd(_mm256_castps256_ps128(x)));
                let second = on_grid(_mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x)));
                let to = sums.as_mut_ptr();
                _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), first));
                let to = to.add(LANES / 4);
                _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), second));
            });
        }
    }

    #[inline(always)]
    fn zero(self) -> Self::I {
        [with_avx2!(_mm256_setzero_si256()); 2]
    }

    #[inline(always)]
    fn float(self, x: Self::I) -> Self::F {
        with_avx2!([_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])])
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; BYTES]) -> Self::U {
        let (low, high) = x.split_at(BYTES / 2);
        with_avx2!([
            _mm256_loadu_si256(low.as_ptr().cast()),
            _mm256_loadu_si256(high.as_ptr().cast()),
        ])
    }

    #[inline(always)]
    fn low(self, x: Self::U) -> Self::U {
        let mask = with_avx2!(_mm256_set1_epi8(15));
        with_avx2!([_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)])
    }

    #[inline(always)]
    fn high(self, x: Self::U) -> Self::U {
        self.low(with_avx2!([_mm256_srli_epi16::<4>(x[0]), _mm256_srli_epi16::<4>(x[1])]))
    }

    #[inline(always)]
    fn shifted<const BITS: i32>(self, x: Self::U, mask: u8) -> Self::U {
        with_avx2!({
            let mask = _mm256_set1_epi8(mask.cast_signed());
            // The count is known, so this becomes a shift by an immediate.
            let count = _mm_cvtsi32_si128(BITS.abs());
            let shifted = if BITS < 0 {
                [_mm256_srl_epi16(x[0], count), _mm256_srl_epi16(x[1], count)]
            } else {
                [_mm256_sll_epi16(x[0], count), _mm256_sll_epi16(x[1], count)]
            };
            [_mm256_and_si256(shifted[0], mask), _mm256_and_si256(shifted[1], mask)]
        })
    }

    #[inline(always)]
    fn or(self, a: Self::U, b: Self::U) -> Self::U {
        with_avx2!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }

    #[inline(always)]
    fn none(self) -> Self::H {
        self.zero()
    }

    #[inline(always)]
    fn mac(self, sum: Self::H, a: Self::U, x: [i8; 4]) -> Self::H {
        with_avx2!({
            let x = four(x);
            [
                _mm256_add_epi16(sum[0], _mm256_maddubs_epi16(a[0], x)),
                _mm256_add_epi16(sum[1], _mm256_maddubs_epi16(a[1], x)),
            ]
        })
    }

    #[inline(always)]
    fn widen(self, sum: Self::I, narrow: Self::H) -> Self::I {
        with_avx2!({
            let ones = _mm256_set1_epi16(1);
            [
                _mm256_add_epi32(sum[0], _mm256_madd_epi16(narrow[0], ones)),
                _mm256_add_epi32(sum[1], _mm256_madd_epi16(narrow[1], ones)),
            ]
        })
    }

    /// The sign of the weight goes to the activation; 128 × 127 × 2 still fits an i16.
    #[inline(always)]
    fn mac_centred(self, sum: Self::I, a: Self::U, x: [i8; 4]) -> Self::I {
        with_avx2!({
            let x = four(x);
            let bias = _mm256_set1_epi8(-128);
            let a = [_mm256_xor_si256(a[0], bias), _mm256_xor_si256(a[1], bias)];
            let pairs = [
                _mm256_maddubs_epi16(_mm256_abs_epi8(a[0]), _mm256_sign_epi8(x, a[0])),
                _mm256_maddubs_epi16(_mm256_abs_epi8(a[1]), _mm256_sign_epi8(x, a[1])),
            ];
            self.widen(sum, pairs)
        })
    }
}

/// Four bytes, eight times.
#[inline(always)]
fn four(x: [i8; 4]) -> __m256i {
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
