//! The numbers are right.

use fixture::{Architecture, Stretch, Toy};
use worker::BackendChoice;

use crate::group::{Group, odd, open, prompt};
use crate::reference;

/// Largest distance of a logit from the reference, which is exact.
const TOLERANCE: f64 = 1e-4;

fn assert_right(toy: &Toy) {
    let checkpoint = open(toy);
    let tokens = prompt(41, 1);
    let exact = reference::logits(&checkpoint, &tokens);
    let logits = Group::solo(BackendChoice::Candle, &checkpoint).logits(&tokens);
    let far = logits.iter().zip(&exact).map(|(got, want)| (f64::from(*got) - want).abs());
    let farthest = far.fold(0.0, f64::max);
    let size = exact.iter().fold(0.0, |size: f64, logit| size.max(logit.abs()));
    assert_eq!(logits.len(), exact.len());
    assert!(size > 0.1, "a toy whose logits are nothing shows nothing");
    assert!(farthest < TOLERANCE, "{farthest} of {size} away: {toy:?}");
}

#[test]
fn every_architecture_computes_what_its_paper_says() {
    for architecture in Architecture::ALL {
        assert_right(&Toy::new(architecture));
        assert_right(&odd(architecture));
    }
}

#[test]
fn stretched_rotary_embeddings_reach_the_heads() {
    for stretch in [Stretch::Linear, Stretch::Llama3, Stretch::Yarn] {
        assert_right(&Toy { stretch, ..Toy::new(Architecture::Llama) });
    }
    assert_right(&Toy { stretch: Stretch::Linear, ..Toy::new(Architecture::Gemma3) });
}

#[test]
fn a_head_of_its_own_is_used() {
    assert_right(&Toy { tied: false, ..odd(Architecture::Qwen3) });
}
