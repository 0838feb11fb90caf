//! The fast path on a machine without a GPU.
//!
//! * Weights stay as the file has them, packed for the instructions of this machine: nothing is lost,
//!   and a step reads little more than the file's bytes. Plain weights (f32, f16, bf16) are multiplied
//!   as such.
//! * x is quantised to 8 bits in groups of 32 columns, once a tensor; dot products of integers are
//!   exact, and groups are added up in f32 in order.
//! * Every kernel is written once, over `lanes::Lanes`; all paths give the same bits, and a row's
//!   result depends neither on the rows beside it nor on the number of threads.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod amx_attend;
pub(crate) mod attend;
mod bandwidth;
pub(crate) mod blocks;
pub(crate) mod cache;
mod codes;
mod disjoint;
mod function;
pub(crate) mod lanes;
mod linear;
mod machine;
mod memory;
mod pages;
mod path;
mod pin;
mod plan;
mod pool;
mod quantise;
mod queries;
pub(crate) mod rope;
mod rows;
mod short;
mod softmax;
mod stages;
mod strip;
mod team;
pub(crate) mod tensor;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod weight;

use checkpoint::Activation;

pub use self::bandwidth::read_bandwidth;
pub use self::cache::Cache;
pub use self::path::Path;
pub use self::pin::{Pinning, Threads};
pub use self::rope::Rope;
pub use self::tensor::Tensor;
pub use self::weight::Weight;
use crate::backend::cpu::attend::{Attend, Scratches};
use crate::backend::cpu::disjoint::Disjoint;
use crate::backend::cpu::linear::{Input, Output, linear};
use crate::backend::cpu::memory::Arena;
use crate::backend::cpu::path::Isa;
use crate::backend::cpu::pin::{PlaceHere, cpus};
use crate::backend::cpu::plan::Plan;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::quantise::quantise;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::quantise::quantise_blocks;
use crate::backend::cpu::rope::Append;
use crate::backend::cpu::rows::AddNorm;
use crate::backend::cpu::team::Team;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::tensor::{BLOCK, blocks_of};
use crate::backend::cpu::tensor::{GROUP, Group, RowBlock, Twin};
use crate::backend::{
    AttentionShape, Backend, BackendError, CacheShape, Capabilities, MatrixPart, QueryKeyNorm,
};
use crate::batch::Batch;

/// This machine's processor as a device.
#[derive(Debug)]
pub struct CpuBackend {
    isa: Isa,
    team: Team,
    arena: Arena,
    numbers: Pool<f32>,
    groups: Pool<Group>,
    blocks: Pool<RowBlock>,
    plan: Plan,
    scratches: Scratches,
}

impl CpuBackend {
    /// A device of `threads` threads, the caller's among them, on the fastest path there is.
    ///
    /// # Errors
    /// [`BackendError::Device`] if threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, BackendError> {
        Self::with_path(threads, Path::best())
    }

    /// The device of a rank, whose thread calls this and stays on the first of its CPUs, if any, until
    /// it drops the device.
    ///
    /// # Errors
    /// As [`CpuBackend::new`].
    pub(crate) fn of_rank(threads: Threads, place: PlaceHere) -> Result<Self, BackendError> {
        let cpus = cpus(threads, place);
        if !cpus.is_empty() {
            tracing::info!(?cpus, "each compute thread stays on a CPU");
        }
        Self::start(threads.count, &cpus, Path::best())
    }

    /// A device on a path of choice, for comparison.
    ///
    /// # Errors
    /// As [`CpuBackend::new`]; [`BackendError::Unsupported`] if this machine lacks the instructions.
    pub fn with_path(threads: usize, path: Path) -> Result<Self, BackendError> {
        Self::start(threads, &[], path)
    }

    fn start(threads: usize, cpus: &[usize], path: Path) -> Result<Self, BackendError> {
        let isa = Isa::new(path)?;
        let team = Team::on(threads, cpus)
            .map_err(|error| BackendError::Device(format!("cannot start threads: {error}")))?;
        Ok(Self {
            isa,
            team,
            arena: Arena::default(),
            numbers: Pool::default(),
            groups: Pool::default(),
            blocks: Pool::default(),
            plan: Plan::default(),
            scratches: Scratches::new(threads),
        })
    }

    fn tensor(&self, rows: usize, columns: usize) -> Tensor {
        Tensor::new(self.numbers.take(rows * columns), columns)
    }

    /// The rows of `x`, quantised if the weight wants them so.
    fn input<'x>(&self, x: &'x Tensor, weight: &Weight) -> Input<'x> {
        let (quantised, blocks): (&[Group], &[RowBlock]) = if weight.takes_groups() {
            let twin = x.twin.get_or_init(|| self.quantised(x));
            (&twin.groups, &twin.blocks)
        } else {
            (&[], &[])
        };
        Input { rows: x.rows, plain: &x.values, quantised, blocks }
    }

    fn quantised(&self, x: &Tensor) -> Twin {
        let depth = x.columns.div_ceil(GROUP);
        let mut groups = self.groups.take(x.rows * depth);
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "there are no blocks"))]
        let (mut blocks, mut in_blocks) = (self.blocks.take(0), 0);
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = self.isa.takes_blocks() {
            blocks = self.blocks.take(blocks_of(x.rows) * depth);
            in_blocks = x.rows.min(blocks_of(x.rows) * BLOCK);
            quantise_blocks(avx512, &self.team, &x.values, x.columns, &mut blocks);
        }
        let (values, groups_left) = (&x.values[in_blocks * x.columns..], in_blocks * depth);
        quantise(self.isa, &self.team, values, x.columns, &mut groups[groups_left..]);
        Twin { groups, blocks }
    }

    fn multiply(&self, x: &Tensor, weight: &Weight, output: &Output<'_>) {
        linear(self.isa, &self.team, &self.input(x, weight), weight, output);
    }
}

impl Backend for CpuBackend {
    type Tensor = Tensor;
    type Weight = Weight;
    type Vector = Vec<f32>;
    type Rope = Rope;
    type Cache = Cache;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            backend: "cpu",
            device: machine::processor(),
            threads: self.team.threads(),
            memory_bytes: machine::memory_bytes(),
        }
    }

    fn matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Weight, BackendError> {
        weight::matrix(&mut self.arena, &self.team, parts)
    }

    fn gated(
        &mut self,
        gate: &MatrixPart<'_>,
        up: &MatrixPart<'_>,
    ) -> Result<Weight, BackendError> {
        weight::gated(&mut self.arena, &self.team, gate, up)
    }

    fn segmented(&mut self, part: &MatrixPart<'_>, segment: usize) -> Result<Weight, BackendError> {
        weight::segmented(&mut self.arena, &self.team, part, segment)
    }

    fn vector(&mut self, values: &[f32]) -> Result<Vec<f32>, BackendError> {
        Ok(values.to_vec())
    }

    fn rope(
        &mut self,
        inverse_frequencies: &[f32],
        attention_factor: f32,
        positions: usize,
    ) -> Result<Rope, BackendError> {
        Rope::new(&mut self.arena, inverse_frequencies, attention_factor, positions)
    }

    fn keeps(&self, shape: &CacheShape) -> Result<(), BackendError> {
        cache::Layout::of("cpu", shape).map(drop)
    }

    fn block_bytes(&self, shape: &CacheShape) -> u64 {
        cache::block_bytes(shape)
    }

    fn cache(&mut self, shape: &CacheShape) -> Result<Cache, BackendError> {
        let cache = Cache::new(shape, machine::memory_bytes())?;
        self.scratches.reserve(&cache.layout);
        Ok(cache)
    }

    fn upload(&mut self, values: &[f32], columns: usize) -> Tensor {
        let mut x = Tensor::new(self.numbers.take(values.len()), columns);
        x.values.copy_from_slice(values);
        x
    }

    fn norm(&mut self, x: &Tensor, weight: &Vec<f32>, epsilon: f32) -> Tensor {
        let mut out = self.tensor(x.rows, x.columns);
        rows::norm(self.isa, &self.team, &x.values, (weight, epsilon), &mut out.values);
        out
    }

    fn add_norm(
        &mut self,
        residual: &mut Tensor,
        sum: Tensor,
        post: Option<&Vec<f32>>,
        weight: &Vec<f32>,
        epsilon: f32,
    ) -> Tensor {
        let norms = AddNorm { post: post.map(Vec::as_slice), weight, epsilon };
        let mut normed = Tensor { twin: std::cell::OnceCell::new(), ..sum };
        residual.twin.take();
        rows::add_norm(self.isa, &self.team, &mut residual.values, &mut normed.values, norms);
        normed
    }

    fn linear(&mut self, x: &Tensor, weight: &Weight) -> Tensor {
        let mut out = self.tensor(x.rows, weight.rows);
        self.multiply(x, weight, &Output::Plain(Disjoint::new(&mut out.values)));
        out
    }

    fn glu(&mut self, x: &Tensor, gate_up: &Weight, activation: Activation) -> Tensor {
        let mut out = self.tensor(x.rows, gate_up.rows);
        self.multiply(x, gate_up, &Output::Gated(Disjoint::new(&mut out.values), activation));
        out
    }

    fn rope_append(
        &mut self,
        mut qkv: Tensor,
        norms: Option<QueryKeyNorm<'_, Self>>,
        rope: &Rope,
        shape: &AttentionShape,
        cache: &mut Cache,
        batch: &Batch,
    ) -> Tensor {
        let mut q = self.tensor(qkv.rows, shape.query_heads * shape.head_size);
        let layout = cache.layout;
        let append = Append {
            norms: norms.map(|it| (it.query.as_slice(), it.key.as_slice(), it.epsilon)),
            rope,
            shape,
            layout: &layout,
            positions: &batch.positions,
            slots: &batch.slots,
        };
        let layer = cache.layer_mut(shape.layer);
        rope::rope_append(self.isa, &self.team, &mut qkv.values, append, layer, &mut q.values);
        q
    }

    fn attend(
        &mut self,
        q: &Tensor,
        shape: &AttentionShape,
        kv_of_query: &[usize],
        cache: &Cache,
        batch: &Batch,
    ) -> Tensor {
        let mut out = self.tensor(q.rows, q.columns);
        let layer = cache.layer(shape.layer);
        let call = Attend { q: &q.values, shape, layout: &cache.layout, layer, batch };
        let memory = (&mut self.plan, &self.numbers, &self.scratches);
        attend::attend(self.isa, &self.team, memory, &call, kv_of_query, &mut out.values);
        out
    }

    fn partial(
        &mut self,
        x: &Tensor,
        weight: &Weight,
        out: &mut Vec<f64>,
    ) -> Result<(), BackendError> {
        out.resize(x.rows * weight.rows, 0.0);
        self.multiply(x, weight, &Output::Grid(Disjoint::new(out)));
        Ok(())
    }

    fn whole(
        &mut self,
        x: &Tensor,
        weight: &Weight,
        outputs: usize,
    ) -> Result<Tensor, BackendError> {
        let mut out = self.tensor(x.rows, outputs);
        self.multiply(x, weight, &Output::Rounded(Disjoint::new(&mut out.values)));
        Ok(out)
    }

    fn sum(&mut self, total: &[f64], columns: usize) -> Tensor {
        let mut x = Tensor::new(self.numbers.take(total.len()), columns);
        rows::narrow(self.isa, &self.team, (total, columns), &mut x.values);
        x
    }

    fn select(&mut self, x: &Tensor, rows: &[usize]) -> Tensor {
        let mut chosen = self.tensor(rows.len(), x.columns);
        x.copy_rows(rows, &mut chosen.values);
        chosen
    }

    fn rows(&mut self, x: &Tensor, rows: &[usize], out: &mut Vec<f32>) -> Result<(), BackendError> {
        out.resize(rows.len() * x.columns, 0.0);
        x.copy_rows(rows, out);
        Ok(())
    }

    fn logits(
        &mut self,
        x: &Tensor,
        rows: &[usize],
        head: &Weight,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        let wanted = self.select(x, rows);
        out.resize(rows.len() * head.rows, 0.0);
        self.multiply(&wanted, head, &Output::Plain(Disjoint::new(out)));
        Ok(())
    }

    fn copy_blocks(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        cache.copy_blocks(pairs);
    }

    fn swap_out(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<(), BackendError> {
        cache.swap_out(pairs);
        Ok(())
    }

    fn swap_in(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) {
        cache.swap_in(pairs);
    }
}
