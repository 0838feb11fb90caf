//! The dozen operations that a decoder needs of a device.
//!
//! A tensor is a 2-D array whose rows are the tokens of the step. Operations enqueue and cannot fail
//! by themselves; a device that failed says so where data comes back to the host ([`Backend::partial`],
//! [`Backend::logits`], [`Backend::rows`], [`Backend::swap_out`]).
//!
//! What every backend must hold:
//! * **Batch invariance.** A row's result does not depend on the other rows, nor on how many there
//!   are, nor on which KV blocks the sequence happens to have.
//! * **World invariance.** [`Backend::partial`] adds f32 results only within a *segment* of its
//!   columns; segments are rounded to multiples of [`SUM_GRID`] and added in f64, which is exact, so
//!   that the total is the same to the bit however the segments are spread over ranks.

pub mod candle;
pub mod cpu;
pub mod opencl;

use checkpoint::{Activation, Matrix};
use proto::worker::KvDtype;

use crate::batch::Batch;

/// Partial sums are multiples of this: 2⁻²⁴, the spacing of f32 just below 1. Sums of such multiples
/// are exact in f64 while their magnitude is under 2²⁹, hence the same in any order.
pub const SUM_GRID: f64 = 1.0 / 16_777_216.0;

/// Columns of a row-parallel matrix that are added up in f32 before rounding to [`SUM_GRID`], where
/// no head size says otherwise. A rank's share of the columns is whole segments: few enough columns
/// that small models can be shared by eight ranks, many enough that rounding does not weigh.
pub const SEGMENT_COLUMNS: usize = 192;

/// Numbers of a head that share a scale in a KV cache of [`KvDtype::Q8`].
pub const KV_GROUP: usize = 32;

/// What a device could not do.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The model asks for something that this backend does not have.
    #[error("the {backend} backend cannot serve this model: {what}")]
    Unsupported {
        /// Name of the backend.
        backend: &'static str,
        /// What is missing.
        what: String,
    },
    /// It keeps keys and values otherwise.
    #[error("the {backend} backend has no KV cache of type q8_0; cpu and opencl have")]
    CacheDtype {
        /// Name of the backend.
        backend: &'static str,
    },
    /// Not enough memory for what was asked.
    #[error("{what} needs {wanted} bytes and the device has {available}")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes there are.
        available: u64,
    },
    /// There is no such device here.
    #[error("{0}")]
    Absent(String),
    /// The device failed or is gone.
    #[error("the device failed: {0}")]
    Device(String),
    /// The tensor data could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Name of the backend: `candle`, `cpu`, `opencl`.
    pub backend: &'static str,
    /// As the device calls itself.
    pub device: String,
    /// Threads that compute.
    pub threads: usize,
    /// The device's memory, bytes, in all.
    pub memory_bytes: u64,
}

/// What a device of its own memory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In all, bytes.
    pub total_bytes: u64,
    /// Taken by weights and tables, bytes.
    pub taken_bytes: u64,
    /// Kept free for what steps compute and for the driver, bytes.
    pub kept_free_bytes: u64,
}

impl DeviceMemory {
    /// Bytes that a KV cache may have.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.taken_bytes).saturating_sub(self.kept_free_bytes)
    }
}

/// The rows of one matrix that this rank owns: `matrix.rows[rows]`, and of those the columns
/// `columns`. The parts of a fused matrix (q, k, v; gate, up) are listed one after another.
#[derive(Debug, Clone)]
pub struct MatrixPart<'a> {
    /// The whole matrix, as it is in the file.
    pub matrix: Matrix<'a>,
    /// Output rows taken.
    pub rows: std::ops::Range<usize>,
    /// Input columns taken; all of them for a column-parallel matrix.
    pub columns: std::ops::Range<usize>,
    /// A bias for each row taken, or none.
    pub bias: Option<Vec<f32>>,
}

/// KV cache to reserve on this rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Decoder layers.
    pub layers: usize,
    /// KV heads of this rank.
    pub kv_heads: usize,
    /// Numbers in a head.
    pub head_size: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Blocks on the device.
    pub blocks: usize,
    /// Blocks in host memory, to swap to.
    pub swap_blocks: usize,
    /// What keys and values are kept as; a backend of f32 may keep more than [`KvDtype::F16`].
    pub dtype: KvDtype,
    /// Query heads of the model that read one KV head.
    pub queries_per_kv_head: usize,
}

/// Attention of one layer as this rank sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Which layer's cache.
    pub layer: usize,
    /// Query heads of this rank.
    pub query_heads: usize,
    /// KV heads of this rank. Query head `h` reads KV head `kv_of_query[h]`, see [`Backend::attend`].
    pub kv_heads: usize,
    /// Numbers in a head.
    pub head_size: usize,
    /// Scores are multiplied by this.
    pub scale: f32,
    /// A token sees itself and the `window - 1` tokens before it; none: all.
    pub window: Option<usize>,
}

/// See the module's documentation. `T` in shapes: tokens of the step.
pub trait Backend: Send + 'static {
    /// `(T, columns)`; may carry a quantised twin of itself.
    type Tensor: Send;
    /// A packed, perhaps quantised matrix, with its bias.
    type Weight: Send;
    /// A vector of f32: norm weights.
    type Vector: Send;
    /// `cos` and `sin` for every position and pair.
    type Rope: Send;
    /// KV blocks of all layers of this rank, on the device and in host memory.
    type Cache: Send;

    /// What this device is.
    fn capabilities(&self) -> Capabilities;

    /// Memory of a device of its own, less what is taken and what a step needs; none where the device
    /// shares the host's.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Kernels that the device's queue took so far; 0 where there is no queue.
    fn launches(&self) -> u64 {
        0
    }

    // At load.

    /// Packs a column-parallel matrix: the rows of all `parts`, one part after another.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] for a shape, [`BackendError::Memory`], or what the file says.
    fn matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Self::Weight, BackendError>;

    /// Packs gate and up of a gated feed-forward (same rows and columns) for [`Backend::glu`].
    ///
    /// # Errors
    /// As [`Backend::matrix`].
    fn gated(
        &mut self,
        gate: &MatrixPart<'_>,
        up: &MatrixPart<'_>,
    ) -> Result<Self::Weight, BackendError>;

    /// Packs a row-parallel matrix whose columns come in segments of `segment` for [`Backend::partial`].
    ///
    /// # Errors
    /// As [`Backend::matrix`].
    fn segmented(
        &mut self,
        part: &MatrixPart<'_>,
        segment: usize,
    ) -> Result<Self::Weight, BackendError>;

    /// Puts a vector on the device.
    ///
    /// # Errors
    /// [`BackendError::Memory`].
    fn vector(&mut self, values: &[f32]) -> Result<Self::Vector, BackendError>;

    /// Tabulates rotary embedding: `cos` and `sin` of `position × inverse_frequency[i]`, times
    /// `attention_factor`, for positions `0..positions`.
    ///
    /// # Errors
    /// [`BackendError::Memory`].
    fn rope(
        &mut self,
        inverse_frequencies: &[f32],
        attention_factor: f32,
        positions: usize,
    ) -> Result<Self::Rope, BackendError>;

    /// Bytes a KV block takes on this backend, over all layers.
    fn block_bytes(&self, shape: &CacheShape) -> u64;

    /// Whether it can keep keys and values so; asked before anything is loaded.
    ///
    /// # Errors
    /// [`BackendError::CacheDtype`]; [`BackendError::Unsupported`] for a shape.
    fn keeps(&self, shape: &CacheShape) -> Result<(), BackendError> {
        match shape.dtype {
            KvDtype::F16 => Ok(()),
            KvDtype::Q8 => Err(BackendError::CacheDtype { backend: self.capabilities().backend }),
        }
    }

    /// Reserves the KV cache, of a type that it keeps. Memory that no block has touched yet should cost
    /// nothing.
    ///
    /// # Errors
    /// [`BackendError::Memory`]; [`BackendError::Unsupported`] for a shape.
    fn cache(&mut self, shape: &CacheShape) -> Result<Self::Cache, BackendError>;

    // In a step.

    /// Host rows to the device: `values` holds `T × columns` numbers. `(T, columns)`
    fn upload(&mut self, values: &[f32], columns: usize) -> Self::Tensor;

    /// RMS norm: `x / sqrt(mean(x²) + epsilon) × weight`. `(T, hidden)`
    fn norm(&mut self, x: &Self::Tensor, weight: &Self::Vector, epsilon: f32) -> Self::Tensor;

    /// `residual += post(sum)`, where `post` is an RMS norm or nothing; then the RMS norm of the
    /// residual under `weight`. `(T, hidden)`
    fn add_norm(
        &mut self,
        residual: &mut Self::Tensor,
        sum: Self::Tensor,
        post: Option<&Self::Vector>,
        weight: &Self::Vector,
        epsilon: f32,
    ) -> Self::Tensor;

    /// `x · weightᵀ + bias`. `(T, rows of weight)`
    fn linear(&mut self, x: &Self::Tensor, weight: &Self::Weight) -> Self::Tensor;

    /// `activation(x · gateᵀ) × (x · upᵀ)`. `(T, rows of gate)`
    fn glu(
        &mut self,
        x: &Self::Tensor,
        gate_up: &Self::Weight,
        activation: Activation,
    ) -> Self::Tensor;

    /// `qkv` is `(T, (query heads + 2 × KV heads) × head size)`. Norms each q and k head where the
    /// model does, rotates both (half-split pairs: `i` with `i + head size / 2`), writes k and v to
    /// the cache at each token's position, and gives q. `(T, query heads × head size)`
    #[expect(clippy::too_many_arguments, reason = "fused, so that k and v are touched once")]
    fn rope_append(
        &mut self,
        qkv: Self::Tensor,
        norms: Option<QueryKeyNorm<'_, Self>>,
        rope: &Self::Rope,
        shape: &AttentionShape,
        cache: &mut Self::Cache,
        batch: &Batch,
    ) -> Self::Tensor;

    /// Causal attention of each token over its own sequence's cached positions up to its own.
    /// Query head `h` of this rank reads KV head `kv_of_query[h]` of this rank. `(T, query heads × head size)`
    fn attend(
        &mut self,
        q: &Self::Tensor,
        shape: &AttentionShape,
        kv_of_query: &[usize],
        cache: &Self::Cache,
        batch: &Batch,
    ) -> Self::Tensor;

    /// This rank's part of `x · weightᵀ`, on the host, in multiples of [`SUM_GRID`]; see the module's
    /// documentation. `out` is resized to `T × rows of weight`.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn partial(
        &mut self,
        x: &Self::Tensor,
        weight: &Self::Weight,
        out: &mut Vec<f64>,
    ) -> Result<(), BackendError>;

    /// What [`Backend::partial`] and [`Backend::sum`] give where this rank has all columns, without the
    /// way over the host. `outputs` is the rows of weight. `(T, outputs)`
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn whole(
        &mut self,
        x: &Self::Tensor,
        weight: &Self::Weight,
        outputs: usize,
    ) -> Result<Self::Tensor, BackendError> {
        let mut total = Vec::new();
        self.partial(x, weight, &mut total)?;
        Ok(self.sum(&total, outputs)) // (T, outputs)
    }

    /// The total over all ranks back to the device, rounded once to f32. `(T, columns)`
    fn sum(&mut self, total: &[f64], columns: usize) -> Self::Tensor;

    /// Some rows of a tensor, in the order given. `(rows, columns)`
    fn select(&mut self, x: &Self::Tensor, rows: &[usize]) -> Self::Tensor;

    /// Some rows of a tensor, to the host. `out` is resized to `rows × columns`.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn rows(
        &mut self,
        x: &Self::Tensor,
        rows: &[usize],
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError>;

    /// `x[rows] · headᵀ`, to the host: this rank's slice of the vocabulary. `out` is resized to
    /// `rows × rows of head`.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn logits(
        &mut self,
        x: &Self::Tensor,
        rows: &[usize],
        head: &Self::Weight,
        out: &mut Vec<f32>,
    ) -> Result<(), BackendError>;

    /// Copies blocks on the device, all layers; pairs are `(from, to)`.
    fn copy_blocks(&mut self, cache: &mut Self::Cache, pairs: &[(u32, u32)]);

    /// Copies blocks from the device to host memory, all layers; pairs are `(device, host)`.
    ///
    /// # Errors
    /// [`BackendError::Device`].
    fn swap_out(
        &mut self,
        cache: &mut Self::Cache,
        pairs: &[(u32, u32)],
    ) -> Result<(), BackendError>;

    /// Copies blocks from host memory to the device, all layers; pairs are `(host, device)`.
    fn swap_in(&mut self, cache: &mut Self::Cache, pairs: &[(u32, u32)]);
}

/// Norm weights of the heads of q and k (Qwen3, Gemma 3), `head size` numbers each.
#[derive(Debug)]
pub struct QueryKeyNorm<'a, B: Backend + ?Sized> {
    /// For each query head.
    pub query: &'a B::Vector,
    /// For each key head.
    pub key: &'a B::Vector,
    /// Added to the mean square.
    pub epsilon: f32,
}
