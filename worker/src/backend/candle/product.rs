//! Products in one fixed order of adding: a result depends on its own row and column alone.

use std::thread;

use crate::backend::SUM_GRID;

/// Running sums of a dot product; as many as make the loop vectorise.
const LANES: usize = 16;

/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 20;

/// `x · weightᵀ`: `(T, columns)` by `(rows, columns)` gives `(T, rows)`.
pub(super) fn product(x: &[f32], weight: &[f32], columns: usize, threads: usize) -> Vec<f32> {
    each_pair(x, weight, columns, threads, dot)
}

/// As [`product`], but added up in f32 only within each `segment` of columns; the segments' results
/// are rounded to [`SUM_GRID`] and added exactly.
pub(super) fn segment_sums(
    x: &[f32],
    weight: &[f32],
    columns: usize,
    segment: usize,
    threads: usize,
) -> Vec<f64> {
    each_pair(x, weight, columns, threads, |x, row| {
        let segments = x.chunks(segment).zip(row.chunks(segment));
        let on_grid = |sum: f32| (f64::from(sum) / SUM_GRID).round_ties_even() * SUM_GRID;
        segments.map(|(x, row)| on_grid(dot(x, row))).sum()
    })
}

/// `(T, rows)` of what `f` makes of every row of `x` and every row of `weight`. The rows of `weight`
/// are spread over threads, which does not change any result.
fn each_pair<N: Copy + Default + Send>(
    x: &[f32],
    weight: &[f32],
    columns: usize,
    threads: usize,
    f: impl Fn(&[f32], &[f32]) -> N + Sync,
) -> Vec<N> {
    let (tokens, rows) = (x.len() / columns, weight.len() / columns);
    let mut by_row = vec![N::default(); rows * tokens]; // (rows, T)
    let fill = |out: &mut [N], weight: &[f32]| {
        for (out, row) in out.chunks_exact_mut(tokens).zip(weight.chunks_exact(columns)) {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(columns)) {
                *out = f(x, row);
            }
        }
    };
    if threads == 1 || tokens * weight.len() < WORTH_A_THREAD {
        fill(&mut by_row, weight);
    } else {
        let share = rows.div_ceil(threads);
        let parts = by_row.chunks_mut(share * tokens).zip(weight.chunks(share * columns));
        thread::scope(|scope| {
            for (out, weight) in parts {
                scope.spawn(|| fill(out, weight));
            }
        });
    }
    let mut out = Vec::with_capacity(tokens * rows); // (T, rows)
    for token in 0..tokens {
        out.extend((0..rows).map(|row| by_row[row * tokens + token]));
    }
    out
}

/// The sum of products, always in the same order for the same length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(rest_a).zip(rest_b) {
        *lane += a * b;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_row_s_product_does_not_depend_on_its_neighbours_or_on_threads() {
        let columns = 1000;
        let (x, weight) = (noise(5 * columns, 1), noise(700 * columns, 2));
        let whole = product(&x, &weight, columns, 3);
        assert_eq!(whole, product(&x, &weight, columns, 1));
        for token in 0..5 {
            let alone = product(
                &x[token * columns..(token + 1) * columns],
                &weight[9 * columns..12 * columns],
                columns,
                2,
            );
            assert_eq!(alone, whole[token * 700 + 9..token * 700 + 12]);
        }
    }

    #[test]
    fn segments_add_up_to_the_same_bits_however_they_are_dealt() {
        let columns = 200;
        let (x, weight) = (noise(columns, 3), noise(columns, 4));
        let whole = segment_sums(&x, &weight, columns, 64, 1)[0];
        let first = segment_sums(&x[..128], &weight[..128], 128, 64, 1)[0];
        let second = segment_sums(&x[128..], &weight[128..], 72, 64, 1)[0];
        assert_eq!(whole.to_bits(), (first + second).to_bits());
        assert!((whole - f64::from(dot(&x, &weight))).abs() < 1e-5);
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        assert!(segment_sums(&[f32::NAN, 1.0], &[1.0, 1.0], 2, 1, 1)[0].is_nan());
    }
}
