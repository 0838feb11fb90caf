//! The operations of a layer, timed and counted.

use std::time::{Duration, Instant};

use anyhow::ensure;
use checkpoint::{Activation, BlockKind, Matrix};
use proto::worker::KvDtype;
use serde::Serialize;
use worker::backend::{
    AttentionShape, Backend, BackendError, CacheShape, MatrixPart, SEGMENT_COLUMNS,
};
use worker::batch::{Batch, BatchSlice};

/// Rows of x: one sequence that decodes, and a batch.
const ROWS: [usize; 2] = [1, 32];
/// Qwen2.5-32B on four cards.
const HIDDEN: usize = 5120;
const QUERY_HEADS: usize = 10;
const KV_HEADS: usize = 2;
const HEAD_SIZE: usize = 128;
const COLUMNS: usize = 6912;
const VOCABULARY: usize = 38016;
const ATTENTION: AttentionShape = AttentionShape {
    layer: 0,
    query_heads: QUERY_HEADS,
    kv_heads: KV_HEADS,
    head_size: HEAD_SIZE,
    scale: 0.088,
    window: None,
};
/// Tokens of each sequence.
const CONTEXT: usize = 1024;
const BLOCK_SIZE: usize = 16;
/// Both bytes of an f16 of about 0.05, and codes: whatever is computed stays finite.
const WEIGHT_BYTE: u8 = 0x2a;
const EPSILON: f32 = 1e-6;

/// How long an operation is repeated, and how often at most.
const TIMED: Duration = Duration::from_millis(200);
const TIMES_MAX: u32 = 50;

/// An operation and its limit. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Rows of x, each of a sequence of its own.
    pub(super) rows: usize,
    /// Kernels that the queue took for one.
    pub(super) launches: u64,
    /// Weights or KV that it has to read, once.
    pub(super) bytes: f64,
    /// What one takes, one behind another.
    pub(super) seconds: f64,
    /// What reading the bytes takes at the rate that was measured.
    pub(super) read_seconds: f64,
    /// The one ÷ the other: 1 is the limit.
    pub(super) ratio: f64,
}

/// Measures all of them. `rate` is how many bytes a second the device reads.
pub(super) fn measured<B: Backend>(b: &mut B, rate: f64) -> anyhow::Result<Vec<Operation>> {
    let mut found = Vec::new();
    let mut note = |name, rows, bytes: usize, once: Once| {
        let (bytes, Once { seconds, launches }) = (bytes as f64, once);
        let read_seconds = bytes / rate;
        let ratio = read_seconds / seconds;
        found.push(Operation { name, rows, launches, bytes, seconds, read_seconds, ratio });
    };
    let (qkv, qkv_bytes) = product(b, Product::Linear, "q, k, v", &mut note)?;
    let (output, output_bytes) =
        product(b, Product::Segmented(HEAD_SIZE), "attention output", &mut note)?;
    let (gate_up, gate_up_bytes) = product(b, Product::Gated, "gate, up", &mut note)?;
    let (down, down_bytes) = product(b, Product::Segmented(SEGMENT_COLUMNS), "down", &mut note)?;
    product(b, Product::Head, "head", &mut note)?;
    let norm = b.vector(&vec![1.0; HIDDEN])?;
    let rope = b.rope(&[0.5; HEAD_SIZE / 2], 1.0, CONTEXT)?;
    for rows in ROWS {
        let (mut cache, batch) = (sequences(b, rows)?, last_tokens(rows));
        let columns = QUERY_HEADS * HEAD_SIZE;
        let q = b.upload(&wave(rows * columns), columns); // (rows, query heads × head size)
        let once = each(b, |b| Ok(b.attend(&q, &ATTENTION, &kv_of_query(), &cache, &batch)))?;
        let kv_bytes = rows * CONTEXT * 2 * KV_HEADS * HEAD_SIZE * 2;
        note("attention", rows, kv_bytes, once);

        let x = b.upload(&wave(rows * HIDDEN), HIDDEN); // (rows, hidden)
        let once = each(b, |b| Ok(b.norm(&x, &norm, EPSILON)))?;
        note("norm", rows, rows * HIDDEN * size_of::<f32>(), once);

        // As the decoder goes through it, on a rank alone.
        let mut residual = b.upload(&wave(rows * HIDDEN), HIDDEN); // (rows, hidden)
        let x = b.norm(&residual, &norm, EPSILON); // (rows, hidden)
        let once = each(b, |b| {
            let q = b.linear(&x, &qkv); // (rows, (query heads + 2 × KV heads) × head size)
            let q = b.rope_append(q, None, &rope, &ATTENTION, &mut cache, &batch); // (rows, query heads × head size)
            let attended = b.attend(&q, &ATTENTION, &kv_of_query(), &cache, &batch); // (rows, query heads × head size)
            let sum = b.whole(&attended, &output, HIDDEN)?; // (rows, hidden)
            let x = b.add_norm(&mut residual, sum, None, &norm, EPSILON); // (rows, hidden)
            let gated = b.glu(&x, &gate_up, Activation::Silu); // (rows, columns)
            let sum = b.whole(&gated, &down, HIDDEN)?; // (rows, hidden)
            Ok(b.add_norm(&mut residual, sum, None, &norm, EPSILON)) // (rows, hidden)
        })?;
        let weights = qkv_bytes + output_bytes + gate_up_bytes + down_bytes;
        note("a layer", rows, weights + kv_bytes, once);
    }
    Ok(found)
}

/// How a matrix is multiplied by.
#[derive(Clone, Copy)]
enum Product {
    Linear,
    Head,
    Gated,
    /// In segments of so many columns.
    Segmented(usize),
}

impl Product {
    /// Outputs and columns.
    fn shape(self) -> (usize, usize) {
        let attended = QUERY_HEADS * HEAD_SIZE;
        match self {
            Self::Linear => (attended + 2 * KV_HEADS * HEAD_SIZE, HIDDEN),
            Self::Head => (VOCABULARY, HIDDEN),
            Self::Gated => (COLUMNS, HIDDEN),
            Self::Segmented(HEAD_SIZE) => (HIDDEN, attended),
            Self::Segmented(_) => (HIDDEN, COLUMNS),
        }
    }
}

/// Takes note of an operation: rows, bytes, and what one takes.
type Note<'a> = dyn FnMut(&'static str, usize, usize, Once) + 'a;

/// Measures a product; gives the matrix, and its bytes.
fn product<B: Backend>(
    b: &mut B,
    product: Product,
    name: &'static str,
    note: &mut Note<'_>,
) -> anyhow::Result<(B::Weight, usize)> {
    let (outputs, columns) = product.shape();
    let bytes = vec![WEIGHT_BYTE; outputs * columns / 32 * BlockKind::Q4_0.block_bytes()];
    let matrix = Matrix::new(outputs, columns, BlockKind::Q4_0, &bytes);
    let part = MatrixPart { matrix, rows: 0..outputs, columns: 0..columns, bias: None };
    let (weight, matrices) = match product {
        Product::Linear | Product::Head => (b.matrix(std::slice::from_ref(&part))?, 1),
        Product::Gated => (b.gated(&part, &part)?, 2),
        Product::Segmented(segment) => (b.segmented(&part, segment)?, 1),
    };
    for rows in ROWS {
        let x = b.upload(&wave(rows * columns), columns); // (rows, columns)
        let once = each(b, |b| match product {
            Product::Linear | Product::Head => Ok(b.linear(&x, &weight)), // (rows, outputs)
            Product::Gated => Ok(b.glu(&x, &weight, Activation::Silu)),   // (rows, outputs)
            Product::Segmented(_) => b.whole(&x, &weight, outputs),       // (rows, outputs)
        })?;
        note(name, rows, matrices * bytes.len(), once);
    }
    Ok((weight, matrices * bytes.len()))
}

/// The KV head of each query head.
fn kv_of_query() -> [usize; QUERY_HEADS] {
    std::array::from_fn(|head| head * KV_HEADS / QUERY_HEADS)
}

/// A cache of so many sequences, all written.
fn sequences<B: Backend>(b: &mut B, rows: usize) -> anyhow::Result<B::Cache> {
    let blocks_each = CONTEXT / BLOCK_SIZE;
    let shape = CacheShape {
        layers: 1,
        kv_heads: KV_HEADS,
        head_size: HEAD_SIZE,
        block_size: BLOCK_SIZE,
        blocks: rows * blocks_each,
        swap_blocks: 0,
        dtype: KvDtype::F16,
        queries_per_kv_head: QUERY_HEADS / KV_HEADS,
    };
    let mut cache = b.cache(&shape)?;
    let rope = b.rope(&[0.5; HEAD_SIZE / 2], 1.0, CONTEXT)?;
    let columns = (QUERY_HEADS + 2 * KV_HEADS) * HEAD_SIZE;
    let qkv = b.upload(&wave(CONTEXT * columns), columns); // (context, columns)
    let first = Batch {
        tokens: vec![0; CONTEXT],
        positions: (0..CONTEXT).map(number).collect(),
        slots: (0..CONTEXT).map(number).collect(),
        slices: vec![BatchSlice { rows: 0..CONTEXT, start: 0, blocks: 0..blocks_each }],
        blocks: (0..blocks_each).map(number).collect(),
        block_size: BLOCK_SIZE,
        ..Batch::default()
    };
    b.rope_append(qkv, None, &rope, &ATTENTION, &mut cache, &first);
    let copies = (blocks_each..rows * blocks_each).map(|to| (number(to % blocks_each), number(to)));
    b.copy_blocks(&mut cache, &copies.collect::<Vec<_>>());
    Ok(cache)
}

/// The last token of each of some sequences.
fn last_tokens(rows: usize) -> Batch {
    let (blocks_each, last) = (CONTEXT / BLOCK_SIZE, CONTEXT - 1);
    Batch {
        tokens: vec![0; rows],
        positions: vec![number(last); rows],
        slots: (1..=rows).map(|row| number(row * CONTEXT - 1)).collect(),
        slices: (0..rows)
            .map(|row| BatchSlice {
                rows: row..row + 1,
                start: last,
                blocks: row * blocks_each..(row + 1) * blocks_each,
            })
            .collect(),
        blocks: (0..rows * blocks_each).map(number).collect(),
        block_size: BLOCK_SIZE,
        ..Batch::default()
    }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What an operation takes.
struct Once {
    seconds: f64,
    launches: u64,
}

/// An operation, many times one behind another, so that nobody waits in between.
fn each<B: Backend>(
    b: &mut B,
    mut run: impl FnMut(&mut B) -> Result<B::Tensor, BackendError>,
) -> anyhow::Result<Once> {
    let mut out = Vec::new();
    let mut timed = |b: &mut B, times: u32| -> anyhow::Result<Once> {
        let (begun, before) = (Instant::now(), b.launches());
        for _ in 1..times {
            run(b)?;
        }
        let last = run(b)?;
        let launches = (b.launches() - before) / u64::from(times);
        b.rows(&last, &[0], &mut out)?;
        Ok(Once { seconds: begun.elapsed().as_secs_f64() / f64::from(times), launches })
    };
    // The first builds the kernels and makes what is kept, the second says how long one takes.
    timed(b, 1)?;
    let one = timed(b, 1)?.seconds.max(1e-9);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 50")]
    let times = (TIMED.as_secs_f64() / one).clamp(1.0, f64::from(TIMES_MAX)) as u32;
    let once = timed(b, times)?;
    ensure!(out.iter().all(|number| number.is_finite()), "the device gives numbers that are none");
    Ok(once)
}

/// Numbers of about 1 of both signs.
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * 0.37).sin()).collect()
}
