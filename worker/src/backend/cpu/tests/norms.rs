//! Norms, and the functions under activations.

use super::support::{Random, backends, bits, numbers};
use crate::backend::Backend;
use crate::backend::cpu::function::exp;
use crate::backend::cpu::lanes::{LANES, Lanes};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::{CpuBackend, Path};

fn plain_norm(x: &[f32], weight: &[f32], epsilon: f64) -> Vec<f64> {
    let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + epsilon).sqrt();
    x.iter().zip(weight).map(|(&x, &w)| f64::from(x) * scale * f64::from(w)).collect()
}

fn close(out: &[f32], wanted: &[f64]) {
    assert_eq!(out.len(), wanted.len());
    for (out, wanted) in out.iter().zip(wanted) {
        assert!((f64::from(*out) - wanted).abs() <= 1e-5 * wanted.abs() + 1e-7, "{out} {wanted}");
    }
}

#[test]
fn a_norm_divides_each_row_by_its_root_mean_square() {
    let mut random = Random::new(1);
    for columns in [8, 16, 30, 576, 641] {
        for rows in [1, 2, 33] {
            let (x, weight) = (random.numbers(rows * columns), random.numbers(columns));
            let mut results = Vec::new();
            for backend in &mut backends() {
                let tensor = backend.upload(&x, columns);
                let out = backend.norm(&tensor, &weight, 1e-5);
                results.push(numbers(backend, &out));
            }
            let wanted: Vec<f64> =
                x.chunks(columns).flat_map(|x| plain_norm(x, &weight, 1e-5)).collect();
            close(&results[0], &wanted);
            assert!(results.iter().all(|result| bits(result) == bits(&results[0])));
        }
    }
}

#[test]
fn what_is_added_is_normed_before_and_the_sum_after() {
    let mut random = Random::new(2);
    for (columns, rows) in [(40, 1), (576, 3), (640, 70)] {
        let (x, sum) = (random.numbers(rows * columns), random.numbers(rows * columns));
        let (post, weight) = (random.numbers(columns), random.numbers(columns));
        for post in [None, Some(&post)] {
            let mut results = Vec::new();
            for backend in &mut backends() {
                let mut residual = backend.upload(&x, columns);
                let sum = backend.upload(&sum, columns);
                let out = backend.add_norm(&mut residual, sum, post, &weight, 1e-6);
                results.push((numbers(backend, &residual), numbers(backend, &out)));
            }
            let (residual, out) = &results[0];
            for (row, x) in x.chunks(columns).enumerate() {
                let range = row * columns..(row + 1) * columns;
                let sum = &sum[range.clone()];
                let added: Vec<f64> = match post {
                    Some(post) => plain_norm(sum, post, 1e-6),
                    None => sum.iter().map(|&sum| f64::from(sum)).collect(),
                };
                let total: Vec<f64> =
                    x.iter().zip(added).map(|(&x, added)| f64::from(x) + added).collect();
                let rounded: Vec<f32> = total.iter().map(|&total| total as f32).collect();
                for (residual, total) in residual[range.clone()].iter().zip(&total) {
                    assert!((f64::from(*residual) - total).abs() < 1e-5);
                }
                for (out, wanted) in out[range].iter().zip(plain_norm(&rounded, &weight, 1e-6)) {
                    assert!((f64::from(*out) - wanted).abs() < 1e-5);
                }
            }
            for (other_residual, other) in &results {
                assert_eq!(bits(other_residual), bits(residual));
                assert_eq!(bits(other), bits(out));
            }
        }
    }
}

struct Exp<'a>(&'a mut [[f32; LANES]]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for x in self.0 {
            l.store(exp(l, l.load(x)), x);
        }
    }
}

#[test]
fn the_exponential_is_right_to_a_few_units_and_the_same_on_every_path() {
    let mut x: Vec<f32> = (-8800..8800).map(|i| i as f32 * 0.01 + 0.003).collect();
    let edges = [0.0, -0.0, f32::NEG_INFINITY, -87.0, -87.1, -1e30, 88.0, 100.0, f32::INFINITY];
    x.extend(edges);
    x.resize(x.len().next_multiple_of(LANES), 1.0);
    let mut results = Vec::new();
    for path in Path::ALL.into_iter().filter(|path| path.available()) {
        let mut y = x.clone();
        Isa::new(path).unwrap().run(Exp(y.as_chunks_mut().0));
        results.push(y);
    }
    for (x, y) in x.iter().zip(&results[0]) {
        let wanted = if *x < -87.0 { 0.0 } else { f64::from(x.min(88.0)).exp() };
        assert!((f64::from(*y) - wanted).abs() <= 3e-7 * wanted, "exp({x}) = {y}");
        assert!(*x != 0.0 || *y == 1.0);
    }
    assert!(results.iter().all(|result| bits(result) == bits(&results[0])));
}

#[test]
fn numbers_that_are_none_harm_nobody_else() {
    let mut backend = CpuBackend::new(2).unwrap();
    let mut x = Random::new(3).numbers(3 * 64);
    let clean = backend.upload(&x, 64);
    let weight = vec![1.0; 64];
    let clean = backend.norm(&clean, &weight, 1e-5);
    let clean = numbers(&mut backend, &clean);
    x[64] = f32::NAN;
    x[65] = f32::INFINITY;
    let dirty = backend.upload(&x, 64);
    let dirty = backend.norm(&dirty, &weight, 1e-5);
    let dirty = numbers(&mut backend, &dirty);
    assert_eq!(bits(&dirty[..64]), bits(&clean[..64]));
    assert_eq!(bits(&dirty[128..]), bits(&clean[128..]));
}
