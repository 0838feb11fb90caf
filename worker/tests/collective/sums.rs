//! What a group computes when everyone comes.

use worker::backend::SUM_GRID;
use worker::collective::Collective;
use worker::collective::solo::SoloCollective;

use crate::groups::{PATIENT, on_every_rank, with_all};

/// Lengths on both sides of every boundary: empty (a heartbeat), one, a token of a small model, cut into
/// slices, cut into slices that are cut into parts.
const LENGTHS: [usize; 6] = [0, 1, 577, 8_192, 20_001, 700_003];

/// What `rank` brings, in units of the grid.
fn units(rank: usize, length: usize, salt: u64) -> impl Iterator<Item = i64> {
    let mut state = (rank as u64 + 1) * 0x9e37_79b9 + salt;
    (0..length).map(move |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 20).cast_signed() - (1 << 43)
    })
}

#[expect(clippy::cast_precision_loss, reason = "units are below 2^53")]
fn on_grid(unit: i64) -> f64 {
    unit as f64 * SUM_GRID
}

#[test]
fn every_world_adds_to_the_exact_sum_on_every_rank() {
    for world in 1..=5 {
        with_all(world, |ends| {
            let sums = on_every_rank(ends, |end| {
                end.begin(1, PATIENT);
                LENGTHS.map(|length| {
                    let mut values: Vec<f64> = units(end.rank(), length, 7).map(on_grid).collect();
                    end.all_reduce(&mut values).unwrap();
                    values
                })
            });
            for (at, length) in LENGTHS.into_iter().enumerate() {
                let mut total = vec![0_i64; length];
                for rank in 0..world {
                    total
                        .iter_mut()
                        .zip(units(rank, length, 7))
                        .for_each(|(sum, unit)| *sum += unit);
                }
                let expected: Vec<f64> = total.into_iter().map(on_grid).collect();
                assert!(sums.iter().all(|of_rank| of_rank[at] == expected), "{world} × {length}");
            }
        });
    }
}

#[test]
fn a_gather_brings_every_part_to_rank_zero_in_order() {
    let part = |rank: usize, round: usize| -> Vec<f32> {
        let length = [3, 0, 700_001, 5, 12_345][rank] * (round % 2 + 1);
        (0..length).map(|i| (rank * 1_000 + round * 100 + i % 97) as f32).collect()
    };
    for world in 1..=5 {
        with_all(world, |ends| {
            // Several in a row: nobody but rank 0 waits, so the others run ahead.
            let gathered = on_every_rank(ends, |end| {
                end.begin(1, PATIENT);
                let mut rounds = Vec::new();
                for round in 0..4 {
                    let mut out = vec![vec![1.0]];
                    end.gather(&part(end.rank(), round), &mut out).unwrap();
                    rounds.push(out);
                }
                rounds
            });
            for (rank, rounds) in gathered.into_iter().enumerate() {
                for (round, out) in rounds.into_iter().enumerate() {
                    let all: Vec<Vec<f32>> = (0..world).map(|peer| part(peer, round)).collect();
                    assert_eq!(out, if rank == 0 { all } else { Vec::new() });
                }
            }
        });
    }
}

#[test]
fn steps_of_both_operations_follow_each_other() {
    with_all(3, |ends| {
        on_every_rank(ends, |end| {
            for step in 1..=50_u32 {
                end.begin(u64::from(step), PATIENT);
                let mut values = [f64::from(step), 1.0];
                end.all_reduce(&mut values).unwrap();
                assert_eq!(values, [f64::from(3 * step), 3.0]);
                let mut out = Vec::new();
                end.gather(&[step as f32], &mut out).unwrap();
                end.all_reduce(&mut values).unwrap();
                assert_eq!(values, [f64::from(9 * step), 9.0]);
            }
        });
    });
}

#[test]
fn payload_bytes_are_counted_and_begin_with_the_step() {
    with_all(2, |ends| {
        on_every_rank(ends, |end| {
            for step in 1..=2 {
                end.begin(step, PATIENT);
                end.all_reduce(&mut [0.0; 10]).unwrap();
                end.all_reduce(&mut [0.0; 5]).unwrap();
                let times = end.times();
                assert_eq!((times.bytes_sent, times.bytes_received), (120, 120));
            }
        });
    });
}

#[test]
fn a_group_of_one_changes_nothing() {
    let mut end = SoloCollective;
    end.begin(1, PATIENT);
    let mut values = [1.5, -2.0];
    end.all_reduce(&mut values).unwrap();
    assert_eq!(values, [1.5, -2.0]);
    let mut out = vec![vec![9.0], vec![9.0]];
    end.gather(&[4.0], &mut out).unwrap();
    assert_eq!(out, [[4.0]]);
}
