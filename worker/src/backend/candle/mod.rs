//! The reference backend: plain f32 on the host, candle's tensors for what is element by element.
//!
//! It is the oracle for the other backends, so it says what it does as simply as it can. Weights are
//! dequantised to f32 at load. Products are plain loops rather than candle's matrix multiplication:
//! that one may add in another order when there are other rows or columns beside, which batch and
//! world invariance forbid.

mod attention;
mod product;

use candle_core::{D, Device, Tensor};
use checkpoint::Activation;

use crate::backend::candle::attention::{Blocks, Numbers};
use crate::backend::candle::product::{product, segment_sums};
use crate::backend::{
    AttentionShape, Backend, BackendError, CacheShape, Capabilities, MatrixPart, QueryKeyNorm,
};
use crate::batch::Batch;
use crate::memory::HostMemory;

/// A candle operation can only fail on shapes, and those follow from the model's.
const SHAPES: &str = "shapes agree: they follow from the model's sizes";

/// The host, as a device.
#[derive(Debug)]
pub struct Candle {
    threads: usize,
}

/// A dense matrix, row-major.
#[derive(Debug)]
pub struct Weight {
    numbers: Vec<f32>,
    columns: usize,
    /// `(1, rows)`
    bias: Option<Tensor>,
    /// Columns added up before rounding, for a row-parallel matrix.
    segment: usize,
}

/// `cos` and `sin`, position after position.
#[derive(Debug)]
pub struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

/// KV blocks of every layer.
#[derive(Debug)]
pub struct Cache {
    device: Vec<Blocks>,
    host: Vec<Blocks>,
}

impl Candle {
    /// A host that computes with `threads` threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }
}

impl Backend for Candle {
    type Tensor = Tensor;
    type Weight = Weight;
    type Vector = Tensor;
    type Rope = Rope;
    type Cache = Cache;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "candle",
            device: "CPU (reference)".to_owned(),
            threads: self.threads,
            memory_bytes: HostMemory::read().total_bytes,
        }
    }

    fn matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Weight, BackendError> {
        let columns = parts.first().map_or(0, |part| part.columns.len());
        let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let mut numbers = reserve("a matrix", rows * columns)?;
        let mut bias = Vec::new();
        for part in parts {
            let mut row = vec![0.0; part.matrix.columns];
            for index in part.rows.clone() {
                part.matrix.dequantize_row(index, &mut row);
                numbers.extend_from_slice(&row[part.columns.clone()]);
            }
            bias.extend(part.bias.iter().flatten());
        }
        let bias = match bias.len() {
            0 => None,
            found if found == rows => Some(tensor(bias, rows)),
            found => {
                let what = format!("{found} biases for {rows} rows");
                return Err(BackendError::Unsupported { backend: "candle", what });
            }
        };
        Ok(Weight { numbers, columns, bias, segment: columns })
    }

    fn gated(
        &mut self,
        gate: &MatrixPart<'_>,
        up: &MatrixPart<'_>,
    ) -> Result<Weight, BackendError> {
        self.matrix(&[gate.clone(), up.clone()])
    }

    fn segmented(&mut self, part: &MatrixPart<'_>, segment: usize) -> Result<Weight, BackendError> {
        Ok(Weight { segment, ..self.matrix(std::slice::from_ref(part))? })
    }

    fn vector(&mut self, values: &[f32]) -> Result<Tensor, BackendError> {
        Ok(tensor(values.to_vec(), values.len())) // (1, values)
    }

    fn rope(
        &mut self,
        inverse_frequencies: &[f32],
        attention_factor: f32,
        positions: usize,
    ) -> Result<Rope, BackendError> {
        let pairs = inverse_frequencies.len();
        let mut cos = reserve("the rotary table", positions * pairs)?;
        let mut sin = reserve("the rotary table", positions * pairs)?;
        for position in 0..positions {
            for &frequency in inverse_frequencies {
                // f64, so that a far position keeps its angle
                #[expect(clippy::cast_precision_loss, reason = "positions are far below 2⁵³")]
                let angle = position as f64 * f64::from(frequency);
                #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
                let (sine, cosine) = (angle.sin() as f32, angle.cos() as f32);
                cos.push(cosine * attention_factor);
                sin.push(sine * attention_factor);
            }
        }
        Ok(Rope { cos, sin, pairs })
    }

    fn block_bytes(&self, shape: &CacheShape) -> u64 {
        let numbers = 2 * shape.layers * shape.block_size * shape.kv_heads * shape.head_size;
        numbers as u64 * 4
    }

    fn cache(&mut self, shape: &CacheShape) -> Result<Cache, BackendError> {
        let layers = |blocks| (0..shape.layers).map(|_| Blocks::new(shape, blocks)).collect();
        Ok(Cache { device: layers(shape.blocks), host: layers(shape.swap_blocks) })
    }

    fn upload(&mut self, values: &[f32], columns: usize) -> Tensor {
        tensor(values.to_vec(), columns) // (T, columns)
    }

    fn norm(&mut self, x: &Tensor, weight: &Tensor, epsilon: f32) -> Tensor {
        norm(x, weight, epsilon).expect(SHAPES) // (T, hidden)
    }

    fn add_norm(
        &mut self,
        residual: &mut Tensor,
        sum: Tensor,
        post: Option<&Tensor>,
        weight: &Tensor,
        epsilon: f32,
    ) -> Tensor {
        let added = match post {
            Some(post) => self.norm(&sum, post, epsilon), // (T, hidden)
            None => sum,
        };
        *residual = (&*residual + added).expect(SHAPES); // (T, hidden)
        self.norm(residual, weight, epsilon) // (T, hidden)
    }

    fn linear(&mut self, x: &Tensor, weight: &Weight) -> Tensor {
        let rows = weight.numbers.len() / weight.columns;
        let y = product(&numbers(x), &weight.numbers, weight.columns, self.threads);
        let y = tensor(y, rows); // (T, rows)
        match &weight.bias {
            Some(bias) => y.broadcast_add(bias).expect(SHAPES), // (T, rows)
            None => y,
        }
    }

    fn glu(&mut self, x: &Tensor, gate_up: &Weight, activation: Activation) -> Tensor {
        let both = self.linear(x, gate_up); // (T, 2 × rows of gate)
        glu(&both, activation).expect(SHAPES) // (T, rows of gate)
    }

    fn rope_append(
        &mut self,
        qkv: Tensor,
        norms: Option<QueryKeyNorm<'_, Self>>,
        rope: &Rope,
        shape: &AttentionShape,
        cache: &mut Cache,
        batch: &Batch,
    ) -> Tensor {
        let (queries, keys) = (shape.query_heads, shape.kv_heads);
        let mut q = heads(&qkv, 0, queries, shape.head_size); // (T × query heads, head size)
        let mut k = heads(&qkv, queries, keys, shape.head_size); // (T × KV heads, head size)
        let v = heads(&qkv, queries + keys, keys, shape.head_size); // (T × KV heads, head size)
        if let Some(norms) = norms {
            q = self.norm(&q, norms.query, norms.epsilon); // (T × query heads, head size)
            k = self.norm(&k, norms.key, norms.epsilon); // (T × KV heads, head size)
        }
        let (mut q, mut k, v) = (numbers(&q), numbers(&k), numbers(&v));
        attention::rotate(&mut q, queries, rope, &batch.positions);
        attention::rotate(&mut k, keys, rope, &batch.positions);
        cache.device[shape.layer].append(&k, &v, &batch.slots);
        tensor(q, queries * shape.head_size) // (T, query heads × head size)
    }

    fn attend(
        &mut self,
        q: &Tensor,
        shape: &AttentionShape,
        kv_of_query: &[usize],
        cache: &Cache,
        batch: &Batch,
    ) -> Tensor {
        let blocks = &cache.device[shape.layer];
        let out = attention::attend(&numbers(q), shape, kv_of_query, blocks, batch);
        tensor(out, shape.query_heads * shape.head_size) // (T, query heads × head size)
    }

    fn partial(
        &mut self,
        x: &Tensor,
        weight: &Weight,
        out: &mut Vec<f64>,
    ) -> Result<(), BackendError> {
        *out = segment_sums(
            &numbers(x),
            &weight.numbers,
            weight.columns,
            weight.segment,
            self.threads,
        );
        Ok(())
    }

    fn sum(&mut self, total: &[f64], columns: usize) -> Tensor {
        #[expect(clippy::cast_possible_truncation, reason = "rounded once, as agreed")]
        let rounded = total.iter().map(|&number| number as f32).collect();
        tensor(rounded, columns) // (T, columns)
    }

    fn select(&mut self, x: &Tensor, rows: &[usize]) -> Tensor {
        tensor(chosen(x, rows).collect(), x.dim(D::Minus1).expect(SHAPES)) // (rows, columns)
    }

    fn rows(&mut self, x: &Tensor, rows: &[usize], out: &mut Vec<f32>) -> Result<(), BackendError> {
        out.clear();
        out.extend(chosen(x, rows));
        Ok(())
    }

    fn logits(
        &mut self,
        x: &Tensor,
        rows: &[usize],
        head: &Weight,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        let mut picked = Vec::new();
        self.rows(x, rows, &mut picked)?;
        *out = product(&picked, &head.numbers, head.columns, self.threads);
        Ok(())
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        for layer in &mut cache.device {
            for &(from, to) in pairs {
                layer.copy_within(from, to);
            }
        }
    }

    fn swap_out(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), BackendError> {
        for (device, host) in cache.device.iter().zip(&mut cache.host) {
            for &(from, to) in pairs {
                host.copy_from(to, device, from);
            }
        }
        Ok(())
    }

    fn swap_in(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        for (device, host) in cache.device.iter_mut().zip(&cache.host) {
            for &(from, to) in pairs {
                device.copy_from(to, host, from);
            }
        }
    }
}

/// `(rows, columns)` of the numbers given.
fn tensor(numbers: Vec<f32>, columns: usize) -> Tensor {
    let rows = numbers.len() / columns.max(1);
    Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).expect(SHAPES)
}

/// A tensor's numbers, row after row.
fn numbers(x: &Tensor) -> Numbers {
    x.flatten_all().and_then(|flat| flat.to_vec1()).expect(SHAPES)
}

/// The numbers of some rows, in the order given.
fn chosen<'a>(x: &Tensor, rows: &'a [usize]) -> impl Iterator<Item = f32> + use<'a> {
    let (columns, all) = (x.dim(D::Minus1).expect(SHAPES), numbers(x));
    rows.iter().flat_map(move |row| all[row * columns..(row + 1) * columns].to_vec())
}

fn norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> candle_core::Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?; // (T, 1)
    let size = (mean_square + f64::from(epsilon))?.sqrt()?; // (T, 1)
    x.broadcast_div(&size)?.broadcast_mul(weight) // (T, hidden)
}

fn glu(both: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
    let columns = both.dim(D::Minus1)? / 2;
    let gate = both.narrow(1, 0, columns)?.contiguous()?; // (T, rows of gate)
    let up = both.narrow(1, columns, columns)?; // (T, rows of gate)
    let bent = match activation {
        Activation::Silu => gate.silu()?,
        Activation::GeluTanh => gate.gelu()?,
    };
    bent * up // (T, rows of gate)
}

/// `count` heads of every token, from head `first` on: `(T × count, head size)`.
fn heads(qkv: &Tensor, first: usize, count: usize, head_size: usize) -> Tensor {
    qkv.narrow(1, first * head_size, count * head_size)
        .and_then(|part| part.contiguous()?.reshape(((), head_size)))
        .expect(SHAPES)
}

fn reserve(what: &'static str, numbers: usize) -> Result<Vec<f32>, BackendError> {
    let mut room = Vec::new();
    room.try_reserve_exact(numbers).map_err(|_| BackendError::Memory {
        what,
        wanted: numbers as u64 * 4,
        available: HostMemory::read().available_bytes,
    })?;
    Ok(room)
}
