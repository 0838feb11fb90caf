//! Exponential and activations, the same bits on every path.

use checkpoint::Activation;

use crate::backend::cpu::lanes::Lanes;
use crate::backend::cpu::short::shortened;

/// 1.5 × 2²³: adding it rounds an f32 to a whole number, ties to even.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few bits, so that whole multiples of it are exact.
const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
/// (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2, lowest power first; least greatest error: 3.1e-9 of eʳ.
const TERMS: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717, 0.001_381_46];
/// Below this the exponential is 0, above the other it stays what it is there.
const RANGE: (f32, f32) = (-87.0, 88.0);

/// (2ʳ − 1) / r for |r| ≤ 1/2, lowest power first; least greatest error: 2.8e-6 of 2ʳ.
const TERMS_OF_2: [f32; 4] = [0.693_124_2, 0.240_240_99, 0.055_906_43, 0.009_582_85];
/// The logarithm of the least weight, 2⁻⁶⁰.
const LEAST: f32 = -41.588_83;

/// eˣ to about 1e-7 of itself; exactly 1 for 0, and 0 below -87.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(l: L, x: L::F) -> L::F {
    let low = l.splat(RANGE.0);
    let inside = l.min(l.max(x, low), l.splat(RANGE.1));
    let round = l.splat(ROUND);
    let n = l.sub(l.fma(inside, l.splat(std::f32::consts::LOG2_E), round), round);
    let r = l.fma(n, l.splat(-LN_2.0), inside);
    let r = l.fma(n, l.splat(-LN_2.1), r);
    let mut terms = l.splat(TERMS[4]);
    terms = l.fma(terms, r, l.splat(TERMS[3]));
    terms = l.fma(terms, r, l.splat(TERMS[2]));
    terms = l.fma(terms, r, l.splat(TERMS[1]));
    terms = l.fma(terms, r, l.splat(TERMS[0]));
    let beyond_one = l.fma(l.mul(r, r), terms, r);
    let y = l.times_exp2(l.add(beyond_one, l.splat(1.0)), n);
    l.if_less(x, low, l.splat(0.0), y)
}

/// eˣ for x ≤ 0, rounded to what attention multiplies ([`shortened`]); exactly 1 for 0, and 0 below 2⁻⁶⁰.
#[inline(always)]
pub(crate) fn weight<L: Lanes>(l: L, x: L::F) -> L::F {
    let round = l.splat(ROUND);
    let power = l.mul(x, l.splat(std::f32::consts::LOG2_E));
    let n = l.sub(l.add(power, round), round);
    let rest = l.sub(power, n);
    let mut terms = l.splat(TERMS_OF_2[3]);
    terms = l.fma(terms, rest, l.splat(TERMS_OF_2[2]));
    terms = l.fma(terms, rest, l.splat(TERMS_OF_2[1]));
    terms = l.fma(terms, rest, l.splat(TERMS_OF_2[0]));
    let y = l.times_exp2(l.fma(terms, rest, l.splat(1.0)), n);
    // Where x is not finite, nor is any of this; but then the weight is 0.
    l.if_less(x, l.splat(LEAST), l.splat(0.0), shortened(l, y))
}

/// The activation of a feed-forward's gate.
#[inline(always)]
pub(crate) fn activate<L: Lanes>(l: L, activation: Activation, x: L::F) -> L::F {
    // Both are x × sigmoid(u): GELU's tanh is (1 − e⁻²ᵘ) / (1 + e⁻²ᵘ).
    let minus_u = match activation {
        Activation::Silu => l.sub(l.splat(0.0), x),
        Activation::GeluTanh => {
            let cubic = l.fma(l.mul(l.mul(x, x), l.splat(0.044_715)), x, x);
            l.mul(cubic, l.splat(-2.0 * 0.797_884_6)) // √(2/π)
        }
    };
    l.div(x, l.add(l.splat(1.0), exp(l, minus_u)))
}
