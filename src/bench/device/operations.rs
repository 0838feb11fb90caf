//! The operations of a layer, timed.

use std::time::{Duration, Instant};

use anyhow::ensure;
use checkpoint::{Activation, BlockKind, Matrix};
use proto::worker::KvDtype;
use serde::Serialize;
use worker::backend::{AttentionShape, Backend, BackendError, CacheShape, MatrixPart};
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
/// As the worker cuts the columns of the feed-forward.
const SEGMENT: usize = 192;
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
    let mut note = |name, rows, bytes: usize, seconds: f64| {
        let bytes = bytes as f64;
        let read_seconds = bytes / rate;
        let ratio = read_seconds / seconds;
        found.push(Operation { name, rows, bytes, seconds, read_seconds, ratio });
    };
    let attended = QUERY_HEADS * HEAD_SIZE;
    for (name, outputs, columns, kind) in [
        ("q, k, v", attended + 2 * KV_HEADS * HEAD_SIZE, HIDDEN, Product::Linear),
        ("attention output", HIDDEN, attended, Product::Segmented(HEAD_SIZE)),
        ("gate, up", COLUMNS, HIDDEN, Product::Gated),
        ("down", HIDDEN, COLUMNS, Product::Segmented(SEGMENT)),
        ("head", VOCABULARY, HIDDEN, Product::Linear),
    ] {
        let bytes = vec![WEIGHT_BYTE; outputs * columns / 32 * BlockKind::Q4_0.block_bytes()];
        let matrix = Matrix::new(outputs, columns, BlockKind::Q4_0, &bytes);
        let part = MatrixPart { matrix, rows: 0..outputs, columns: 0..columns, bias: None };
        let weight = match kind {
            Product::Linear => b.matrix(std::slice::from_ref(&part))?,
            Product::Gated => b.gated(&part, &part)?,
            Product::Segmented(segment) => b.segmented(&part, segment)?,
        };
        let matrices = if matches!(kind, Product::Gated) { 2 } else { 1 };
        for rows in ROWS {
            let x = b.upload(&wave(rows * columns), columns); // (rows, columns)
            let seconds = each(b, |b| match kind {
                Product::Linear => Ok(b.linear(&x, &weight)), // (rows, outputs)
                Product::Gated => Ok(b.glu(&x, &weight, Activation::Silu)), // (rows, outputs)
                Product::Segmented(_) => b.whole(&x, &weight, outputs), // (rows, outputs)
            })?;
            note(name, rows, matrices * bytes.len(), seconds);
        }
    }
    for rows in ROWS {
        let (bytes, seconds) = attention(b, rows)?;
        note("attention", rows, bytes, seconds);
    }
    let weight = b.vector(&vec![1.0; HIDDEN])?;
    for rows in ROWS {
        let x = b.upload(&wave(rows * HIDDEN), HIDDEN); // (rows, hidden)
        let seconds = each(b, |b| Ok(b.norm(&x, &weight, EPSILON)))?;
        note("norm", rows, rows * HIDDEN * size_of::<f32>(), seconds);
    }
    Ok(found)
}

/// How a matrix is multiplied by.
#[derive(Clone, Copy)]
enum Product {
    Linear,
    Gated,
    /// In segments of so many columns.
    Segmented(usize),
}

/// One token for each of some sequences: bytes of KV, and seconds.
fn attention<B: Backend>(b: &mut B, rows: usize) -> anyhow::Result<(usize, f64)> {
    let blocks_each = CONTEXT / BLOCK_SIZE;
    let shape = CacheShape {
        layers: 1,
        kv_heads: KV_HEADS,
        head_size: HEAD_SIZE,
        block_size: BLOCK_SIZE,
        blocks: rows * blocks_each,
        swap_blocks: 0,
        dtype: KvDtype::F16,
    };
    let cache = b.cache(&shape)?;
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let last = CONTEXT - 1;
    let batch = Batch {
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
    };
    let attention = AttentionShape {
        layer: 0,
        query_heads: QUERY_HEADS,
        kv_heads: KV_HEADS,
        head_size: HEAD_SIZE,
        scale: 0.088,
        window: None,
    };
    let kv_of_query: Vec<usize> =
        (0..QUERY_HEADS).map(|head| head * KV_HEADS / QUERY_HEADS).collect();
    let columns = QUERY_HEADS * HEAD_SIZE;
    let q = b.upload(&wave(rows * columns), columns); // (rows, query heads × head size)
    let seconds = each(b, |b| Ok(b.attend(&q, &attention, &kv_of_query, &cache, &batch)))?;
    Ok((rows * CONTEXT * 2 * KV_HEADS * HEAD_SIZE * 2, seconds))
}

/// Seconds of an operation, many one behind another, so that nobody waits in between.
fn each<B: Backend>(
    b: &mut B,
    mut run: impl FnMut(&mut B) -> Result<B::Tensor, BackendError>,
) -> anyhow::Result<f64> {
    let mut out = Vec::new();
    let mut timed = |b: &mut B, times: u32| -> anyhow::Result<f64> {
        let begun = Instant::now();
        for _ in 1..times {
            run(b)?;
        }
        let last = run(b)?;
        b.rows(&last, &[0], &mut out)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // The first builds the kernels, the second says how long one takes.
    timed(b, 1)?;
    let one = timed(b, 1)?.max(1e-9);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 50")]
    let times = (TIMED.as_secs_f64() / one).clamp(1.0, f64::from(TIMES_MAX)) as u32;
    let seconds = timed(b, times)?;
    ensure!(out.iter().all(|number| number.is_finite()), "the device gives numbers that are none");
    Ok(seconds / f64::from(times))
}

/// Numbers of about 1 of both signs.
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * 0.37).sin()).collect()
}
