//! An Arc GPU, through OpenCL.
//!
//! * Arithmetic is that of the `cpu` backend, operation by operation: integer dot products are exact, and
//!   groups are added up in f32 in order, so that a row has the same bits alone and among others, on
//!   every rank, whichever kernel makes it.
//! * Commands go to one in-order queue; only what gives data to the host waits.
//! * What an A770 cannot do is not asked of any device: see `opencl::Limits`.

mod attend;
mod cache;
mod driver;
mod listed;
mod open;
mod pool;
mod product;
mod programs;
mod rows;
mod steps;
mod tensor;
#[cfg(test)]
mod tests;
mod weight;

use bytemuck::cast_slice;
use checkpoint::Activation;
use opencl::Buffer;
pub use opencl::{DeviceChoice, DeviceKind};

pub use self::cache::Cache;
pub use self::listed::{ListedProgram, listed_programs};
pub use self::open::OpenClConfig;
pub use self::product::product_kernel;
pub use self::tensor::Tensor;
pub use self::weight::Weight;
use crate::backend::cpu::cache::{Layout, block_bytes};
use crate::backend::cpu::rope::rotations;
use crate::backend::opencl::driver::{Driver, u32_of};
use crate::backend::opencl::pool::Lease;
use crate::backend::opencl::product::product;
use crate::backend::opencl::programs::Mode;
use crate::backend::opencl::steps::Arrays;
use crate::backend::{
    AttentionShape, Backend, BackendError, CacheShape, Capabilities, DeviceMemory, MatrixPart,
    QueryKeyNorm, SUM_GRID,
};
use crate::batch::Batch;

/// Kernels of a layer of quantised weights, whatever the world: two norms that add and quantise, four
/// products, the quantisation of what the gated feed-forward gives, rotation, and attention in two. A
/// prompt whose parts of attention do not fit at once takes more.
pub const LAUNCHES_PER_LAYER: u32 = 10;
/// Those of a step of decode beside its layers': the first norm and the head.
pub const LAUNCHES_PER_STEP: u32 = 2;

/// A device that OpenCL drives.
#[derive(Debug)]
pub struct OpenClBackend {
    driver: Driver,
    arrays: Arrays,
    /// Ranks that have the same device.
    sharing: usize,
}

/// One part in so many of a device's memory is for what steps compute and for the driver: 1 GiB of an
/// A770's 16. A step of 512 tokens of a 32B on four ranks takes a tenth of that.
const KEPT_FREE_PARTS: u64 = 16;

/// `cos` of all pairs, then `sin`, position after position.
#[derive(Debug)]
pub struct Rope {
    table: Buffer,
}

impl OpenClBackend {
    /// Bytes of the device that weights, cache and working memory take.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.driver.taken()
    }

    fn tensor(&mut self, rows: usize, columns: usize) -> Tensor {
        Tensor::new(rows, columns, self.driver.lease(rows * columns * 4))
    }

    /// These rows; none where they are all of them, in order: nothing has to be launched then.
    fn chosen(&mut self, x: &Tensor, rows: &[usize]) -> Option<Tensor> {
        (!is_all(rows, x)).then(|| self.select(x, rows)) // (rows, columns)
    }

    fn numbers(
        &mut self,
        from: &Lease,
        count: usize,
        to: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        to.clear();
        let received = self.driver.receive(from, count * 4)?;
        to.extend(received.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        Ok(())
    }
}

impl Backend for OpenClBackend {
    type Tensor = Tensor;
    type Weight = Weight;
    type Vector = Buffer;
    type Rope = Rope;
    type Cache = Cache;

    fn capabilities(&self) -> Capabilities {
        open::capabilities(self.driver.queue.device())
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let device = self.driver.queue.device();
        (device.kind == DeviceKind::Discrete).then(|| {
            // Ranks that share a device are as many in it, and take as much.
            let total_bytes = device.memory_bytes / self.sharing as u64;
            DeviceMemory {
                total_bytes,
                taken_bytes: self.taken_bytes(),
                kept_free_bytes: total_bytes / KEPT_FREE_PARTS,
            }
        })
    }

    fn launches(&self) -> u64 {
        self.driver.queue.launches()
    }

    fn matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Weight, BackendError> {
        weight::matrix(&mut self.driver, parts, &[Mode::Plain])
    }

    fn gated(
        &mut self,
        gate: &MatrixPart<'_>,
        up: &MatrixPart<'_>,
    ) -> Result<Weight, BackendError> {
        weight::gated(&mut self.driver, gate, up)
    }

    fn segmented(&mut self, part: &MatrixPart<'_>, segment: usize) -> Result<Weight, BackendError> {
        weight::segmented(&mut self.driver, part, segment)
    }

    fn vector(&mut self, values: &[f32]) -> Result<Buffer, BackendError> {
        rows::check_columns(&self.driver, values.len())?;
        self.driver.keep_bytes("a vector", cast_slice(values))
    }

    fn rope(
        &mut self,
        inverse_frequencies: &[f32],
        attention_factor: f32,
        positions: usize,
    ) -> Result<Rope, BackendError> {
        let columns = 2 * inverse_frequencies.len();
        let mut table = vec![0.0; positions * columns];
        for (position, row) in table.chunks_exact_mut(columns.max(1)).enumerate() {
            rotations(inverse_frequencies, attention_factor, position, row);
        }
        Ok(Rope { table: self.driver.keep_bytes("the rotary table", cast_slice(&table))? })
    }

    fn block_bytes(&self, shape: &CacheShape) -> u64 {
        block_bytes(shape)
    }

    fn keeps(&self, shape: &CacheShape) -> Result<(), BackendError> {
        Layout::of("opencl", shape).map(drop)
    }

    fn cache(&mut self, shape: &CacheShape) -> Result<Cache, BackendError> {
        Cache::new(&mut self.driver, shape)
    }

    fn upload(&mut self, values: &[f32], columns: usize) -> Tensor {
        let lease = self.driver.send(cast_slice(values));
        Tensor::new(values.len() / columns.max(1), columns, lease) // (T, columns)
    }

    fn norm(&mut self, x: &Tensor, weight: &Buffer, epsilon: f32) -> Tensor {
        rows::norm(&mut self.driver, x, weight, epsilon) // (T, hidden)
    }

    fn add_norm(
        &mut self,
        residual: &mut Tensor,
        sum: Tensor,
        post: Option<&Buffer>,
        weight: &Buffer,
        epsilon: f32,
    ) -> Tensor {
        rows::add_norm(&mut self.driver, (residual, sum), post, weight, epsilon) // (T, hidden)
    }

    fn linear(&mut self, x: &Tensor, weight: &Weight) -> Tensor {
        let out = self.tensor(x.rows, weight.rows); // (T, rows of weight)
        product(&mut self.driver, x, weight, Mode::Plain, 0, &out.values);
        out
    }

    fn glu(&mut self, x: &Tensor, gate_up: &Weight, activation: Activation) -> Tensor {
        let out = self.tensor(x.rows, gate_up.rows); // (T, rows of gate)
        let activation = match activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
        };
        product(&mut self.driver, x, gate_up, Mode::Gated, activation, &out.values);
        out
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
        self.arrays.be(&mut self.driver, batch);
        let q = self.tensor(qkv.rows, shape.query_heads * shape.head_size);
        let norms = norms.map(|it| (it.query, it.key, it.epsilon));
        let (driver, arrays) = (&mut self.driver, &self.arrays);
        attend::rope_append(driver, arrays, &qkv, norms, &rope.table, shape, cache, &q);
        q // (T, query heads × head size)
    }

    fn attend(
        &mut self,
        q: &Tensor,
        shape: &AttentionShape,
        kv_of_query: &[usize],
        cache: &Cache,
        batch: &Batch,
    ) -> Tensor {
        self.arrays.be(&mut self.driver, batch);
        self.arrays.share(&mut self.driver, kv_of_query, cache.sharing);
        let mut out = self.tensor(q.rows, q.columns); // (T, query heads × head size)
        let positions = batch.positions.iter().max().map_or(0, |&last| last as usize + 1);
        attend::attend(&mut self.driver, &self.arrays, q, shape, cache, positions, &mut out);
        out
    }

    fn partial(
        &mut self,
        x: &Tensor,
        weight: &Weight,
        out: &mut Vec<f64>,
    ) -> Result<(), BackendError> {
        let count = x.rows * weight.rows;
        let sums = self.driver.lease(count * 8); // (T, rows of weight), multiples of the grid
        product(&mut self.driver, x, weight, Mode::Grid, 0, &sums);
        let received = self.driver.receive(&sums, count * 8)?;
        out.clear();
        out.extend(
            received.as_chunks::<8>().0.iter().map(|&bytes| total(i64::from_le_bytes(bytes))),
        );
        Ok(())
    }

    fn whole(
        &mut self,
        x: &Tensor,
        weight: &Weight,
        outputs: usize,
    ) -> Result<Tensor, BackendError> {
        let out = self.tensor(x.rows, outputs); // (T, outputs)
        product(&mut self.driver, x, weight, Mode::Rounded, 0, &out.values);
        Ok(out)
    }

    fn sum(&mut self, total: &[f64], columns: usize) -> Tensor {
        let lease = self.driver.send_filled(total.len() * 4, |to| {
            for (to, &number) in to.as_chunks_mut::<4>().0.iter_mut().zip(total) {
                #[expect(clippy::cast_possible_truncation, reason = "rounded once, as agreed")]
                let rounded = number as f32;
                *to = rounded.to_le_bytes();
            }
        });
        Tensor::new(total.len() / columns.max(1), columns, lease) // (T, columns)
    }

    fn select(&mut self, x: &Tensor, rows: &[usize]) -> Tensor {
        let numbers: Vec<u32> = rows.iter().map(|&row| u32_of(row)).collect();
        let wanted = self.driver.send(cast_slice(&numbers));
        rows::select(&mut self.driver, x, (&wanted, rows.len())) // (rows, columns)
    }

    fn rows(&mut self, x: &Tensor, rows: &[usize], out: &mut Vec<f32>) -> Result<(), BackendError> {
        let chosen = self.chosen(x, rows);
        let x = chosen.as_ref().unwrap_or(x); // (rows, columns)
        self.numbers(&x.values, rows.len() * x.columns, out)
    }

    fn logits(
        &mut self,
        x: &Tensor,
        rows: &[usize],
        head: &Weight,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        let chosen = self.chosen(x, rows);
        let x = chosen.as_ref().unwrap_or(x); // (rows, hidden)
        let logits = self.linear(x, head); // (rows, rows of head)
        self.numbers(&logits.values, rows.len() * head.rows, out)
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        cache.copy_blocks(&mut self.driver, pairs);
    }

    fn swap_out(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), BackendError> {
        cache.swap_out(&mut self.driver, pairs);
        self.driver.settle()
    }

    fn swap_in(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        cache.swap_in(&mut self.driver, pairs);
    }
}

/// Whether these are all rows of a tensor, in order.
fn is_all(rows: &[usize], x: &Tensor) -> bool {
    rows.len() == x.rows && rows.iter().enumerate().all(|(at, &row)| at == row)
}

/// A total as kernels keep it, see `kernels/sums.cl`.
#[expect(clippy::cast_precision_loss, reason = "totals of finite numbers are below 2⁵³ steps")]
fn total(steps: i64) -> f64 {
    if steps == i64::MIN { f64::NAN } else { steps as f64 * SUM_GRID }
}
