//! Draws against what they should be.

use proptest::prelude::*;

use super::*;

fn sampling() -> Sampling {
    Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 7 }
}

fn sample(logits: &[f32], sampling: Sampling, position: u32) -> u32 {
    Sampler::default().sample(logits, &sampling, position).unwrap()
}

/// Logits that look like a model's: one hill, a long tail, ties among them.
fn hill(count: usize) -> Vec<f32> {
    (0..count).map(|id| 12.0 - ((id * 7919) % count) as f32 / 8.0).map(f32::floor).collect()
}

/// Whether the counts of many draws are near what they should be: the chi-square statistic, of
/// at most 4 degrees of freedom here, is above 20 once in two thousand honest trials.
fn assert_distributed(logits: &[f32], sampling: Sampling, expected: &[f64]) {
    let draws = 40_000;
    let mut counts = vec![0_u32; logits.len()];
    let mut sampler = Sampler::default();
    for position in 0..draws {
        counts[sampler.sample(logits, &sampling, position).unwrap() as usize] += 1;
    }
    let mut distance = 0.0;
    for (&count, &probability) in counts.iter().zip(expected) {
        let wanted = probability * f64::from(draws);
        if probability > 0.0 {
            distance += (f64::from(count) - wanted).powi(2) / wanted;
        } else {
            assert_eq!(count, 0, "drawn although cut off: {sampling:?}");
        }
    }
    assert!(distance < 20.0, "{distance}: {counts:?} for {expected:?}, {sampling:?}");
}

fn softmax(logits: &[f32], temperature: f64, kept: &[usize]) -> Vec<f64> {
    let weight = |id: usize| {
        if kept.contains(&id) { (f64::from(logits[id]) / temperature).exp() } else { 0.0 }
    };
    let total: f64 = (0..logits.len()).map(weight).sum();
    (0..logits.len()).map(|id| weight(id) / total).collect()
}

#[test]
fn draws_are_distributed_as_the_softmax_says() {
    let logits = [0.5, -1.0, 2.0, 0.0, 1.5];
    for seed in 0..4 {
        let with = Sampling { seed, ..sampling() };
        assert_distributed(&logits, with, &softmax(&logits, 1.0, &[0, 1, 2, 3, 4]));
        let warm = Sampling { temperature: 1.7, ..with };
        assert_distributed(&logits, warm, &softmax(&logits, 1.7, &[0, 1, 2, 3, 4]));
        let three = Sampling { top_k: 3, ..with };
        assert_distributed(&logits, three, &softmax(&logits, 1.0, &[0, 2, 4]));
        // probabilities 0.12 0.03 0.52 0.07 0.32 (of 1.06): 2 and 4 come to 0.79
        let nucleus = Sampling { top_p: 0.75, ..with };
        assert_distributed(&logits, nucleus, &softmax(&logits, 1.0, &[2, 4]));
        // at least a fifth as likely as token 2: within ln 5 = 1.61 of its logit
        let near = Sampling { min_p: 0.2, ..with };
        assert_distributed(&logits, near, &softmax(&logits, 1.0, &[0, 2, 4]));
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_only() {
    let logits = hill(5000);
    let mut sampler = Sampler::default();
    let with = Sampling { top_p: 0.9, ..sampling() };
    let first: Vec<u32> = (0..50).map(|at| sampler.sample(&logits, &with, at).unwrap()).collect();
    let backwards: Vec<u32> = (0..50).rev().map(|at| sample(&logits, with, at)).collect::<Vec<_>>();
    assert!(first.iter().eq(backwards.iter().rev()));
    let other: Vec<u32> =
        (0..50).map(|at| sample(&logits, Sampling { seed: 8, ..with }, at)).collect();
    assert_ne!(first, other);
}

#[test]
fn every_extreme_that_means_greedy_is_greedy() {
    let mut logits = hill(3000);
    logits[1234] = 40.0;
    for extreme in [
        Sampling { temperature: 0.0, ..sampling() },
        Sampling { temperature: 1e-6, ..sampling() },
        Sampling { temperature: f32::from_bits(1), ..sampling() },
        Sampling { top_k: 1, temperature: 5.0, ..sampling() },
        Sampling { top_p: 1e-30, temperature: 5.0, ..sampling() },
        Sampling { min_p: 1.0, temperature: 5.0, ..sampling() },
    ] {
        for position in 0..20 {
            assert_eq!(sample(&logits, extreme, position), 1234, "{extreme:?}");
        }
    }
}

#[test]
fn of_equals_the_lowest_id_is_the_likeliest() {
    assert_eq!(sample(&[1.0, 3.0, 3.0], Sampling { temperature: 0.0, ..sampling() }, 0), 1);
    assert_eq!(sample(&[-0.0, 0.0], Sampling { temperature: 0.0, ..sampling() }, 0), 0);
    let even = vec![2.0; 700];
    for position in 0..50 {
        let five = Sampling { top_k: 5, ..sampling() };
        assert!(sample(&even, five, position) < 5);
        // two thousandths of 700 equals are the first two
        let two = Sampling { top_p: 0.0021, ..sampling() };
        assert!(sample(&even, two, position) < 2);
    }
}

#[test]
fn a_nucleus_of_half_the_vocabulary_is_half_the_vocabulary() {
    let even = vec![0.0; 4000];
    let half = Sampling { top_p: 0.5, ..sampling() };
    let drawn: Vec<u32> = (0..500).map(|at| sample(&even, half, at)).collect();
    assert!(drawn.iter().all(|&id| id < 2000));
    assert!(drawn.iter().any(|&id| id > 1500));
}

#[test]
fn a_token_of_minus_infinity_is_never_drawn() {
    let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0];
    for with in [sampling(), Sampling { top_k: 4, ..sampling() }] {
        for position in 0..200 {
            assert!(matches!(sample(&logits, with, position), 1 | 3));
        }
    }
}

#[test]
fn what_is_not_a_number_gives_no_token() {
    for logits in [
        vec![0.0, f32::NAN],
        vec![f32::NAN, 0.0],
        vec![f32::INFINITY, 0.0],
        vec![f32::NEG_INFINITY; 3],
        vec![],
    ] {
        for temperature in [0.0, 1.0] {
            let with = Sampling { temperature, ..sampling() };
            assert_eq!(Sampler::default().sample(&logits, &with, 0), Err(NotANumber));
        }
    }
}

/// The same by sorting everything.
fn kept_by_sorting(weights: &[f32], sampling: &Sampling) -> Vec<u32> {
    let weight_of = |id: &u32| weights[*id as usize];
    let mut order: Vec<u32> = (0..token(weights.len())).collect();
    order.sort_by(|a, b| weight_of(b).total_cmp(&weight_of(a)).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let total: f64 = order.iter().map(|id| f64::from(weight_of(id))).sum();
    let mut sum = 0.0;
    let mut count = 0;
    while count < order.len() && (count == 0 || sum / total < f64::from(sampling.top_p)) {
        sum += f64::from(weight_of(&order[count]));
        count += 1;
    }
    if sampling.top_p < 1.0 {
        order.truncate(count);
    }
    order.retain(|id| weight_of(id) >= sampling.min_p);
    order.sort_unstable();
    order
}

proptest! {
    #[test]
    fn buckets_cut_where_sorting_would(
        logits in prop::collection::vec(prop_oneof![-20_f32..0.0, Just(-1.5)], 1..400),
        temperature in 0.2_f32..3.0,
        top_p in prop_oneof![0.01_f32..1.0, Just(1.0)],
        top_k in 0_u32..50,
        min_p in prop_oneof![0.0_f32..1.0, Just(0.0)],
    ) {
        let with = Sampling { temperature, top_p, top_k, min_p, seed: 1 };
        let mut sampler = Sampler::default();
        let largest = largest(&logits).unwrap();
        sampler.weights = logits.iter().map(|l| exp((l - largest) / temperature)).collect();
        let last = sampler.keep(&with);
        let kept: Vec<u32> = (0..)
            .zip(&sampler.weights)
            .filter(|&(id, &weight)| last.keeps(id, weight))
            .map(|(id, _)| id)
            .collect();
        prop_assert_eq!(kept, kept_by_sorting(&sampler.weights, &with));
    }
}
