//! Exponential and logarithm that have the same bits on every machine.

/// `eˣ` for x ≤ 0, of additions and multiplications only: the same bits on every machine, and a loop
/// over it vectorises. Within 3 units in the last place; 0 below −87, where f32 has no room left.
pub(super) fn exp(x: f32) -> f32 {
    /// Added to a small number, leaves it rounded to an integer in the lowest bits: 1.5 × 2²³.
    const ROUND: f32 = 12_582_912.0;
    let small = if x > -87.0 { x } else { -87.0 };
    let shifted = small * std::f32::consts::LOG2_E + ROUND;
    let twos = shifted - ROUND;
    // ln 2 in two parts, so that the rest keeps its low bits
    let rest = (small - twos * 0.693_359_4) - twos * -2.121_944_4e-4;
    let mut power = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power * rest + coefficient;
    }
    // 2 to that integer: its low bits, moved to where f32 has its exponent
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { power * scale }
}

/// The natural logarithm of a number of at least 1, of basic operations only: the same bits on every
/// machine. Within 1e-15, or that part of itself.
pub(super) fn ln(x: f64) -> f64 {
    debug_assert!(x >= 1.0 && x.is_finite(), "totals hold the likeliest token, whose weight is 1");
    let bits = x.to_bits();
    let twos = i32::try_from(bits >> 52).expect("11 bits") - 1023;
    // 1 ≤ m < 2, and ln m = 2 artanh((m − 1) / (m + 1)), whose argument is at most a third
    let m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let z = (m - 1.0) / (m + 1.0);
    let mut series = 0.0;
    for power in (0..18).rev() {
        series = series * (z * z) + 1.0 / f64::from(2 * power + 1);
    }
    f64::from(twos) * std::f64::consts::LN_2 + 2.0 * z * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close() {
        for step in 0..8600_u16 {
            let x = -f32::from(step) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 4e-7, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn the_logarithm_is_close() {
        for step in 0..5000_u16 {
            let x = 1.0 + f64::from(step) * f64::from(step) / 37.0;
            assert!((ln(x) - x.ln()).abs() <= 2e-15 * x.ln().max(1.0), "ln({x})");
        }
        assert_eq!(ln(1.0), 0.0);
    }
}
