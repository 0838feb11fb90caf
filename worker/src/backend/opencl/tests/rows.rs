//! Norms and choosing rows.

use super::{ROWS, assert_same, backends, numbers};
use crate::backend::Backend;
use crate::backend::cpu::tests::support::Random;

/// A norm, and one of a sum, with and without a norm of the sum.
fn norms<B: Backend>(backend: &mut B, columns: usize, rows: usize, post: bool) -> Vec<f32> {
    let mut random = Random::new(columns as u64);
    let weight = backend.vector(&random.numbers(columns)).unwrap();
    let post_weight = backend.vector(&random.numbers(columns)).unwrap();
    let x = random.numbers(rows * columns);
    let mut residual = backend.upload(&x, columns);
    let sum = backend.norm(&residual, &weight, 1e-5);
    let mut all = numbers(backend, &sum, rows);
    let post = post.then_some(&post_weight);
    let out = backend.add_norm(&mut residual, sum, post, &weight, 1e-6);
    all.extend(numbers(backend, &residual, rows));
    all.extend(numbers(backend, &out, rows));
    let chosen = backend.select(&out, &[rows - 1, 0]);
    all.extend(numbers(backend, &chosen, 2));
    all
}

#[test]
fn norms_have_the_cpu_s_bits() {
    let (mut cpu, devices) = backends();
    for mut device in devices {
        for (at, rows) in ROWS.into_iter().enumerate() {
            let columns = [576, 33, 640, 5120, 31, 1152, 16, 100][at];
            for post in [false, true] {
                let expected = norms(&mut cpu, columns, rows, post);
                assert_same(&norms(&mut device, columns, rows, post), &expected, &(columns, rows));
            }
        }
    }
}
