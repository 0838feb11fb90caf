//! The fast backends against the reference.

use checkpoint::BlockKind;
use fixture::{Architecture, Toy};
use proto::worker::KvDtype;
use worker::backend::opencl::{LAUNCHES_PER_LAYER, LAUNCHES_PER_STEP};
use worker::{BackendChoice, Runner};

use crate::group::{Group, greedy, odd, open, opencl, prompt, slice, step_of};

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
            for dtype in [KvDtype::F16, KvDtype::Q8] {
                let logits = |choice, shares: &[u32]| {
                    Group::keeping(dtype, choice, &checkpoint, shares).logits(&tokens)
                };
                let exact = logits(BackendChoice::Cpu, &[1]);
                for shares in [&[1][..], &[1, 1], &[1, 1, 1]] {
                    let same = logits(choice, shares) == exact;
                    assert!(same, "{architecture:?}, {dtype:?}, {} ranks", shares.len());
                }
            }
        }
    }
}

#[test]
fn a_step_of_decode_is_as_many_launches_as_the_roofline_says() {
    let said = format!("{LAUNCHES_PER_LAYER} kernels a layer and {LAUNCHES_PER_STEP} more");
    assert!(include_str!("../../../docs/roofline.md").contains(&said), "{said}");
    let toy = Toy { kind: BlockKind::Q4_0, ..odd(Architecture::Qwen2) };
    let layers = u64::try_from(toy.layers).unwrap();
    let expected = layers * u64::from(LAUNCHES_PER_LAYER) + u64::from(LAUNCHES_PER_STEP);
    for choice in opencl() {
        for shares in [&[1][..], &[1, 1]] {
            let mut group = Group::new(choice, &open(&toy), shares);
            let count = |group: &Group| -> Vec<u64> {
                group.runners.iter().map(Runner::launches).collect()
            };
            let tokens = prompt(9, 1);
            group.step(step_of(vec![slice(&tokens[..8], 0, &[3, 1], None)]));
            let before = count(&group);
            group.step(step_of(vec![slice(&tokens[8..], 8, &[3, 1], Some(greedy()))]));
            for (rank, (before, after)) in before.iter().zip(count(&group)).enumerate() {
                assert_eq!(after - before, expected, "rank {rank} of {}", shares.len());
            }
        }
    }
    let mut cpu = Group::solo(BackendChoice::Cpu, &open(&toy));
    cpu.logits(&prompt(3, 1));
    assert_eq!(cpu.runners[0].launches(), 0, "a processor has no queue");
}
