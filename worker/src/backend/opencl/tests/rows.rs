//! Norms and choosing rows.

use super::{ROWS, assert_same, backends, numbers};
use crate::backend::cpu::tests::support::Random;
use crate::backend::{Backend, BackendError};

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

#[test]
fn memory_that_could_not_be_had_is_not_counted() {
    for mut device in backends().1 {
        let before = device.taken_bytes();
        // 8 GiB: no buffer may have as much.
        let x = device.tensor(1 << 16, 1 << 15);
        assert!(x.values.buffer().is_none());
        assert_eq!(device.taken_bytes(), before);
    }
}

#[test]
fn what_failed_is_told_where_data_comes_back_and_nothing_runs_after_it() {
    for mut device in backends().1 {
        // A row that no work-group can hold; the model's loader would have been told so before.
        let columns = 20_000;
        assert!(device.vector(&vec![1.0; columns]).is_err());
        let weight = device.vector(&[1.0; 8]).unwrap();
        let x = device.upload(&vec![1.0; columns], columns);
        let before = device.launches();
        let y = device.norm(&x, &weight, 1e-5);
        let y = device.norm(&y, &weight, 1e-5);
        assert_eq!(device.launches(), before, "the device was given nothing that it cannot do");
        let mut out = Vec::new();
        for _ in 0..2 {
            let error = device.rows(&y, &[0], &mut out).unwrap_err();
            assert!(matches!(error, BackendError::Device(_)), "{error}");
            assert!(error.to_string().contains("local memory"), "{error}");
        }
    }
}
