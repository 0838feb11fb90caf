//! Every operation on every OpenCL device that there is to test with, against the `cpu` backend: the
//! same bits, whatever the number of rows.

mod attention;
mod launches;
mod linear;
mod rows;

use opencl::DeviceChoice;

use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::backend::opencl::{OpenClBackend, OpenClConfig};

/// Numbers of rows that meet every kernel, and every rest.
const ROWS: [usize; 8] = [1, 2, 7, 8, 9, 32, 33, 512];

/// A backend on every device that there is to test with; and the one that says what is right.
fn backends() -> (CpuBackend, Vec<OpenClBackend>) {
    let cpu = CpuBackend::new(2).unwrap();
    let config = |library| OpenClConfig {
        library: Some(library),
        device: DeviceChoice::Cpu,
        programs: Some(std::env::temp_dir().join("arcmesh-test-programs")),
    };
    let devices = fixture::device::opencl().into_iter();
    (cpu, devices.map(|(_, path)| OpenClBackend::new(&config(path), (0, 1)).unwrap()).collect())
}

/// The numbers of all rows of a tensor.
fn numbers<B: Backend>(backend: &mut B, x: &B::Tensor, rows: usize) -> Vec<f32> {
    let (rows, mut out) = ((0..rows).collect::<Vec<_>>(), Vec::new());
    backend.rows(x, &rows, &mut out).unwrap();
    out
}

/// Which of two lists of numbers differ first, and how.
#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{what:?}");
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    let first = found.iter().zip(expected).position(differs);
    let first = first.map(|at| (at, found[at], expected[at]));
    assert_eq!(first, None, "index, found, expected: {what:?}");
}
