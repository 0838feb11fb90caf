//! The draw: a point in the weights, from (seed, position).

/// The one of `tokens` in whose stretch of their weights, end to end, the point `at` of `0..1` falls.
pub(super) fn draw(tokens: impl Iterator<Item = u32> + Clone, weights: &[f32], at: f64) -> u32 {
    let weight_of = |id: u32| f64::from(weights[id as usize]);
    let target = at * tokens.clone().map(weight_of).sum::<f64>();
    let mut so_far = 0.0;
    let mut drawn = 0;
    for id in tokens {
        if weight_of(id) > 0.0 {
            so_far += weight_of(id);
            drawn = id;
            if target < so_far {
                break;
            }
        }
    }
    drawn
}

/// A number in `0..1` of 53 random bits: two rounds of the `SplitMix64` finaliser over seed and position.
pub(super) fn unit(seed: u64, position: u32) -> f64 {
    let bits = mix(mix(seed).wrapping_add(u64::from(position))) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let numerator = bits as f64;
    numerator / 9_007_199_254_740_992.0
}

/// One step of `SplitMix64`: every bit of the result depends on every bit of the seed.
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
