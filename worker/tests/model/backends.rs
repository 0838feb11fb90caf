//! The fast backends against the reference.

use checkpoint::BlockKind;
use fixture::{Architecture, Toy};
use worker::BackendChoice;

use crate::group::{Group, odd, open, opencl, prompt};

/// Largest distance of a logit from the reference's, over the largest logit. A fast backend may round
/// what it multiplies to 8 bits, which is half a hundredth at most each time.
const TOLERANCE: f32 = 0.05;

fn assert_near(toy: &Toy) {
    let checkpoint = open(toy);
    let mut reference = Group::solo(BackendChoice::Candle, &checkpoint);
    let mut fast = Group::solo(BackendChoice::Cpu, &checkpoint);
    let mut clear = 0;
    for seed in 0..12 {
        let tokens = prompt(20, seed);
        let (exact, logits) = (reference.logits(&tokens), fast.logits(&tokens));
        let size = exact.iter().fold(0.0, |size: f32, logit| size.max(logit.abs()));
        let far = exact.iter().zip(&logits).map(|(a, b)| (a - b).abs());
        let farthest = far.fold(0.0, f32::max) / size;
        assert!(farthest < TOLERANCE, "{farthest} away: {toy:?}");
        let first = likeliest(&exact, None);
        let second = likeliest(&exact, Some(first));
        if exact[first] - exact[second] > 2.0 * TOLERANCE * size {
            assert_eq!(likeliest(&logits, None), first, "{toy:?}");
            clear += 1;
        }
    }
    assert!(clear >= 4, "only {clear} prompts of 12 have a clear answer: {toy:?}");
}

fn likeliest(logits: &[f32], but: Option<usize>) -> usize {
    let others = (0..logits.len()).filter(|&id| Some(id) != but);
    others.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn the_cpu_backend_is_near_the_reference_for_every_architecture() {
    for architecture in Architecture::ALL {
        assert_near(&Toy::new(architecture));
        assert_near(&odd(architecture));
    }
}

#[test]
fn the_cpu_backend_is_near_the_reference_for_every_kind_of_block() {
    use BlockKind::{Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for kind in [F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
        let toy = Toy {
            kind,
            hidden: 256,
            intermediate: 512,
            head_size: 64,
            ..Toy::new(Architecture::Llama)
        };
        assert_near(&toy);
    }
}

#[test]
fn an_opencl_device_has_the_cpu_s_bits_for_every_architecture_and_world() {
    for choice in opencl() {
        for architecture in Architecture::ALL {
            let checkpoint = open(&odd(architecture));
            let tokens = prompt(20, 5);
            let exact = Group::solo(BackendChoice::Cpu, &checkpoint).logits(&tokens);
            for shares in [&[1][..], &[1, 1, 1]] {
                let logits = Group::new(choice, &checkpoint, shares).logits(&tokens);
                assert!(logits == exact, "{architecture:?} over {} ranks", shares.len());
            }
        }
    }
}
