//! Any world gives the same bits.

use fixture::{Architecture, Toy};
use worker::BackendChoice;

use crate::group::{Group, backends, odd, open, prompt};

#[test]
fn every_world_gives_the_same_bits_for_every_architecture() {
    let tokens = prompt(30, 5);
    for choice in backends() {
        for toy in Architecture::ALL.map(odd) {
            let checkpoint = open(&toy);
            let alone = Group::solo(choice, &checkpoint).logits(&tokens);
            for world in 2..=4 {
                let together = Group::new(choice, &checkpoint, &vec![1; world]).logits(&tokens);
                assert!(same_bits(&alone, &together), "{choice:?}, world {world}, {toy:?}");
            }
        }
    }
}

#[test]
fn unequal_shares_give_the_same_bits() {
    let tokens = prompt(30, 6);
    for choice in backends() {
        let checkpoint = open(&odd(Architecture::Gemma3));
        let alone = Group::solo(choice, &checkpoint).logits(&tokens);
        for shares in [vec![3, 1], vec![1, 2, 9], vec![1, 1, 1, 30, 1]] {
            let together = Group::new(choice, &checkpoint, &shares).logits(&tokens);
            assert!(same_bits(&alone, &together), "{choice:?}, shares {shares:?}");
        }
    }
}

#[test]
fn ranks_without_heads_or_columns_take_part_all_the_same() {
    let tokens = prompt(20, 7);
    for choice in backends() {
        // 4 query heads and 2 segments of the feed-forward over 6 ranks
        let checkpoint = open(&Toy::new(Architecture::Qwen3));
        let alone = Group::solo(choice, &checkpoint).logits(&tokens);
        let together = Group::new(choice, &checkpoint, &[1; 6]).logits(&tokens);
        assert!(same_bits(&alone, &together), "{choice:?}");
    }
}

#[test]
fn heads_that_cut_blocks_of_the_file_give_the_same_bits() {
    let tokens = prompt(20, 8);
    // the reference serves any head; the fast backends ask for multiples of 32
    for head_size in [16, 48, 80] {
        let checkpoint = open(&Toy { head_size, ..odd(Architecture::Llama) });
        let alone = Group::solo(BackendChoice::Candle, &checkpoint).logits(&tokens);
        let together = Group::new(BackendChoice::Candle, &checkpoint, &[1; 4]).logits(&tokens);
        assert!(same_bits(&alone, &together), "heads of {head_size}");
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
