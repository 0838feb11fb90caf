//! The `cpu` backend, one operation at a time, in the shapes of SmolLM2-135M.
//!
//! What bounds it: with one row, the weights' bytes over the read bandwidth, which is measured first
//! (over 96 MiB in huge pages: as much as such a model's weights, and as they lie). With many rows,
//! multiplications of bytes: a 256-bit unit multiplies 32 pairs at a time, 8 of these and one to widen
//! make 256 multiply-adds of 4-bit weights, and a core with two such units (Zen 3, Skylake and later)
//! does these 9 in 4.5 cycles at best: 57 multiply-adds a cycle, 190 thousand million a second at
//! 3.35 GHz. That is the multipliers alone; what else needs their ports leaves about 165. 8-bit weights
//! take twice the multiplications.
//!
//! With byte dot products (VNNI) in 512-bit registers, 8 instructions multiply 16 rows × 32 columns and 4
//! scale the sums: at two a cycle 85 multiply-adds a cycle, 324 thousand million a second at 3.8 GHz.
//! Tile registers (AMX) multiply 16 × 16 × 32 numbers in 16 cycles, take another 14 to give the sums away,
//! and leave 64 vector instructions to scale them, 32 cycles at two a cycle. These do not overlap on the
//! CPU that we measured (any tile instruction among them halves the rate of vector instructions), so the
//! limit is 132 multiply-adds a cycle, 500 thousand million a second at 3.8 GHz.
//!
//! `cargo bench -p worker --bench cpu -- [threads …] [path …] [operation …]`; a path is named as in
//! [`worker::backend::cpu::Path`], in lower case.

#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::time::Instant;

use checkpoint::{Activation, BlockKind, Matrix};
use proto::worker::KvDtype;
use worker::backend::cpu::{CpuBackend, Path, Tensor, Weight, read_bandwidth};
use worker::backend::{AttentionShape, Backend, CacheShape, MatrixPart, SEGMENT_COLUMNS};
use worker::batch::{Batch, BatchSlice};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const LAYERS: usize = 30;
const RUNS: usize = 15;
/// What the bandwidth is measured over: as much as the weights of such a model.
const READ_BYTES: usize = 96 << 20;

fn main() {
    let threads: Vec<usize> = std::env::args().filter_map(|it| it.parse().ok()).collect();
    let threads = if threads.is_empty() { vec![1, 2] } else { threads };
    for threads in threads {
        for path in paths() {
            let mut backend = CpuBackend::with_path(threads, path).unwrap();
            println!("\n{threads} threads, {path:?}, on {}", backend.capabilities().device);
            let bandwidth = read_bandwidth(threads, READ_BYTES).unwrap();
            println!("read bandwidth {:.1} GB/s", bandwidth / 1e9);
            linears(&mut backend);
            attention(&mut backend);
        }
    }
}

/// The paths asked for, or the best.
fn paths() -> Vec<Path> {
    let named = |path: &Path| std::env::args().any(|it| it == format!("{path:?}").to_lowercase());
    let paths: Vec<Path> = Path::ALL.into_iter().filter(named).collect();
    if paths.is_empty() { vec![Path::best()] } else { paths }
}

/// Whether an operation was asked for: by name, or with all others.
fn wanted(name: &str) -> bool {
    let all = ["qkv", "square", "head", "o", "down", "glu", "attend"];
    let mut asked = std::env::args().filter(|it| all.contains(&it.as_str())).peekable();
    asked.peek().is_none() || asked.any(|it| it == name)
}

/// Seconds of the fastest of a few runs: what others do on the machine only ever adds.
fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let times = (0..RUNS).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Valid blocks; what the numbers are is all the same.
fn blocks(kind: BlockKind, rows: usize, columns: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes = vec![0u8; rows * columns / kind.block_numbers() * kind.block_bytes()];
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for byte in &mut *block {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
        let scale = [0x00, 0x20]; // 2⁻⁷
        block[..2].copy_from_slice(&scale);
        if kind == BlockKind::Q4_1 || kind == BlockKind::Q4K {
            block[2..4].copy_from_slice(&scale);
        }
        if kind == BlockKind::Q6K {
            block[208..].copy_from_slice(&scale);
        }
    }
    bytes
}

fn part(matrix: Matrix<'_>) -> MatrixPart<'_> {
    MatrixPart { matrix, rows: 0..matrix.rows, columns: 0..matrix.columns, bias: None }
}

/// Runs one operation with the weights of every layer in turn, as a step does.
fn each_layer(
    backend: &mut CpuBackend,
    name: &str,
    (kind, rows, columns): (BlockKind, usize, usize),
    make: impl Fn(&mut CpuBackend, &[u8]) -> Weight,
    compute: impl Fn(&mut CpuBackend, &Tensor, &Weight),
) {
    if !wanted(name) {
        return;
    }
    let bytes = blocks(kind, rows, columns);
    let layers = if rows > 10_000 { 1 } else { LAYERS };
    let weights: Vec<Weight> = (0..layers).map(|_| make(backend, &bytes)).collect();
    let row_counts: &[usize] = if rows > 10_000 { &[1, 16] } else { &[1, 4, 16, 64, 512] };
    for &count in row_counts {
        let values: Vec<f32> = (0..count * columns).map(|at| (at % 37) as f32 - 18.0).collect();
        let seconds = seconds(|| {
            for weight in &weights {
                let x = backend.upload(&values, columns);
                compute(backend, &x, weight);
            }
        }) / layers as f64;
        let multiplications = (count * rows * columns) as f64;
        println!(
            "{name:>12} {kind:?} {rows:>6}×{columns:<5} {count:>4} rows {:>9.1} µs {:>7.1} GB/s {:>7.1} GMAC/s",
            seconds * 1e6,
            bytes.len() as f64 / seconds / 1e9,
            multiplications / seconds / 1e9,
        );
    }
}

fn linears(backend: &mut CpuBackend) {
    let linear = |backend: &mut CpuBackend, x: &Tensor, weight: &Weight| {
        backend.linear(x, weight);
    };
    for (name, kind, rows, columns) in [
        ("qkv", BlockKind::Q4_1, 960, HIDDEN),
        ("square", BlockKind::Q8_0, 1024, 1024),
        ("square", BlockKind::Q5_0, 1024, 1024),
        ("square", BlockKind::Q4K, 1024, 1024),
        ("square", BlockKind::Q6K, 1024, 1024),
        ("square", BlockKind::F16, 1024, 1024),
        ("head", BlockKind::Q8_0, 49_152, HIDDEN),
    ] {
        let make = |backend: &mut CpuBackend, bytes: &[u8]| {
            backend.matrix(&[part(Matrix::new(rows, columns, kind, bytes))]).unwrap()
        };
        each_layer(backend, name, (kind, rows, columns), make, linear);
    }
    for (name, columns) in [("o", HIDDEN), ("down", INTERMEDIATE)] {
        let make = |backend: &mut CpuBackend, bytes: &[u8]| {
            let matrix = Matrix::new(HIDDEN, columns, BlockKind::Q4_1, bytes);
            let segment = if columns == INTERMEDIATE { SEGMENT_COLUMNS } else { 64 };
            backend.segmented(&part(matrix), segment).unwrap()
        };
        let mut out = std::cell::RefCell::new(Vec::new());
        let partial = |backend: &mut CpuBackend, x: &Tensor, weight: &Weight| {
            backend.partial(x, weight, &mut out.borrow_mut()).unwrap();
        };
        each_layer(backend, name, (BlockKind::Q4_1, HIDDEN, columns), make, partial);
        out.get_mut().clear();
    }
    let make = |backend: &mut CpuBackend, bytes: &[u8]| {
        let (gate, up) = bytes.split_at(bytes.len() / 2);
        let half = |bytes| part(Matrix::new(INTERMEDIATE, HIDDEN, BlockKind::Q4_1, bytes));
        backend.gated(&half(gate), &half(up)).unwrap()
    };
    let glu = |backend: &mut CpuBackend, x: &Tensor, weight: &Weight| {
        backend.glu(x, weight, Activation::Silu);
    };
    each_layer(backend, "glu", (BlockKind::Q4_1, 2 * INTERMEDIATE, HIDDEN), make, glu);
}

fn attention(backend: &mut CpuBackend) {
    if !wanted("attend") {
        return;
    }
    let (query_heads, kv_heads, head_size, block_size) = (9, 3, 64, 16);
    let kv_of_query: Vec<usize> = (0..query_heads).map(|head| head / 3).collect();
    for (start, rows) in [(511_usize, 1_usize), (2047, 1), (0, 512), (1536, 512)] {
        let dtype = KvDtype::F16;
        let blocks = (start + rows).div_ceil(block_size);
        let shape = CacheShape {
            layers: 1,
            kv_heads,
            head_size,
            block_size,
            blocks,
            swap_blocks: 0,
            dtype,
            queries_per_kv_head: query_heads / kv_heads,
        };
        let cache = backend.cache(&shape).unwrap();
        let window = None;
        let shape =
            AttentionShape { layer: 0, query_heads, kv_heads, head_size, scale: 0.125, window };
        let batch = Batch {
            slices: vec![BatchSlice { rows: 0..rows, start, blocks: 0..blocks }],
            blocks: (0..u32::try_from(blocks).unwrap()).collect(),
            block_size,
            ..Batch::default()
        };
        let q = backend.upload(&vec![0.5; rows * query_heads * head_size], query_heads * head_size);
        let seconds = seconds(|| {
            backend.attend(&q, &shape, &kv_of_query, &cache, &batch);
        });
        let positions: usize = (start..start + rows).map(|position| position + 1).sum();
        let multiplications = (2 * positions * query_heads * head_size) as f64;
        let bytes = (4 * (start + rows) * kv_heads * head_size) as f64;
        println!(
            "attend {rows:>4} rows up to {:>4} {:>9.1} µs {:>7.1} GB/s {:>7.1} GMAC/s",
            start + rows,
            seconds * 1e6,
            bytes / seconds / 1e9,
            multiplications / seconds / 1e9,
        );
    }
}
