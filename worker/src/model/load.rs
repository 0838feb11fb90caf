//! From a checkpoint to this rank's weights on its device.

use checkpoint::{
    Checkpoint, CheckpointError, LayerKind, LayerTensor, ModelConfig, RopeConfig, TensorName,
};

use crate::backend::{AttentionShape, Backend, BackendError, MatrixPart, SEGMENT_COLUMNS};
use crate::model::decoder::{Attention, Decoder, Layer};
use crate::model::linear::{Head, RowParallel};
use crate::shard::Slices;

/// Bytes of the file that are held beside the packed copy: many parts' worth, and little beside a model.
const HELD_MAX: u64 = 16 << 20;

/// Takes this rank's slices of every matrix.
pub(crate) struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    slices: &'a Slices,
    /// Bytes packed so far, and in all.
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
    /// Bytes packed since pages of the file were last given back.
    held: u64,
}

impl<'a, B: Backend> Loader<'a, B> {
    /// Finds out how much there is to do.
    pub(crate) fn new(
        backend: &'a mut B,
        checkpoint: &'a Checkpoint,
        slices: &'a Slices,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, CheckpointError> {
        let config = checkpoint.config();
        let source = Source { checkpoint, config, slices };
        let mut total = bytes(&source.head()?);
        for layer in 0..config.layers.len() {
            total += source.query_key_value(layer)?.iter().map(bytes).sum::<u64>();
            total += source.gate_up(layer)?.iter().map(bytes).sum::<u64>();
            total += bytes(&source.attention_output(layer)?) + bytes(&source.down(layer)?);
        }
        Ok(Self { backend, checkpoint, config, slices, progress, done: 0, total, held: 0 })
    }

    /// Bytes of this rank's slices, as they are in the file.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Every layer. Sequences will have up to `positions` tokens.
    pub(crate) fn decoder(&mut self, positions: usize) -> Result<Decoder<B>, BackendError> {
        let config = self.config;
        let mut layers = Vec::with_capacity(config.layers.len());
        for index in 0..config.layers.len() {
            layers.push(self.layer(index)?);
        }
        let mut ropes = vec![self.rope(&config.rope, positions)?];
        if let Some(local) = &config.rope_local {
            ropes.push(self.rope(local, positions)?);
        }
        Ok(Decoder {
            layers,
            output_norm: self.vector(TensorName::OutputNorm)?,
            ropes,
            kv_of_query: self.slices.heads.kv_of_query.clone(),
            activation: config.activation,
            epsilon: config.norm_epsilon,
            hidden: config.hidden,
            sums: Vec::new(),
        })
    }

    /// The head: a matrix of its own, or the embedding table.
    pub(crate) fn head(&mut self) -> Result<Head<B>, BackendError> {
        let part = self.source().head()?;
        let head = Head { weight: self.matrix(&[part])? };
        self.checkpoint.release();
        Ok(head)
    }

    fn layer(&mut self, index: usize) -> Result<Layer<B>, BackendError> {
        let name = |tensor| TensorName::Layer(index, tensor);
        let gate_up = self.source().gate_up(index)?;
        let output = self.source().attention_output(index)?;
        let down = self.source().down(index)?;
        let post = self.config.post_norms;
        Ok(Layer {
            attention_norm: self.vector(name(LayerTensor::AttentionNorm))?,
            attention: self.attention(index)?,
            attention_output: self.row_parallel(&output, self.config.head_size)?,
            post_attention_norm: self.vector_if(post, name(LayerTensor::PostAttentionNorm))?,
            feed_forward_norm: self.vector(name(LayerTensor::FeedForwardNorm))?,
            gate_up: self.gated(&gate_up)?,
            down: self.row_parallel(&down, SEGMENT_COLUMNS)?,
            post_feed_forward_norm: self.vector_if(post, name(LayerTensor::PostFeedForwardNorm))?,
        })
    }

    fn attention(&mut self, index: usize) -> Result<Option<Attention<B>>, BackendError> {
        let (config, heads) = (self.config, &self.slices.heads);
        let parts = self.source().query_key_value(index)?;
        let Some(query_key_value) = self.matrix(&parts)? else { return Ok(None) };
        let name = |tensor| TensorName::Layer(index, tensor);
        let query = self.vector_if(config.query_key_norm, name(LayerTensor::QueryNorm))?;
        let key = self.vector_if(config.query_key_norm, name(LayerTensor::KeyNorm))?;
        let (window, rope) = match config.layers[index] {
            LayerKind::Full => (None, 0),
            LayerKind::Sliding { window } => {
                (Some(window), usize::from(config.rope_local.is_some()))
            }
        };
        let shape = AttentionShape {
            layer: index,
            query_heads: heads.query.len(),
            kv_heads: heads.kv.len(),
            head_size: config.head_size,
            scale: config.attention_scale,
            window,
        };
        Ok(Some(Attention { query_key_value, query_key_norm: query.zip(key), rope, shape }))
    }

    fn source(&self) -> Source<'a> {
        Source { checkpoint: self.checkpoint, config: self.config, slices: self.slices }
    }

    /// A column-parallel matrix, unless this rank has no rows of it.
    fn matrix(&mut self, parts: &[MatrixPart<'_>]) -> Result<Option<B::Weight>, BackendError> {
        if parts.iter().all(|part| part.rows.is_empty()) {
            return Ok(None);
        }
        let weight = self.backend.matrix(parts)?;
        parts.iter().for_each(|part| self.advance(part));
        Ok(Some(weight))
    }

    fn gated(&mut self, parts: &[MatrixPart<'_>; 2]) -> Result<Option<B::Weight>, BackendError> {
        let [gate, up] = parts;
        if gate.rows.is_empty() {
            return Ok(None);
        }
        let weight = self.backend.gated(gate, up)?;
        self.advance(gate);
        self.advance(up);
        Ok(Some(weight))
    }

    fn row_parallel(
        &mut self,
        part: &MatrixPart<'_>,
        segment: usize,
    ) -> Result<RowParallel<B>, BackendError> {
        let outputs = part.rows.len();
        if part.columns.is_empty() {
            return Ok(RowParallel { weight: None, outputs });
        }
        let weight = self.backend.segmented(part, segment)?;
        self.advance(part);
        Ok(RowParallel { weight: Some(weight), outputs })
    }

    fn vector(&mut self, name: TensorName) -> Result<B::Vector, BackendError> {
        let values = self.checkpoint.vector(name)?;
        self.backend.vector(&values)
    }

    fn vector_if(
        &mut self,
        wanted: bool,
        name: TensorName,
    ) -> Result<Option<B::Vector>, BackendError> {
        if wanted { self.vector(name).map(Some) } else { Ok(None) }
    }

    fn rope(&mut self, rope: &RopeConfig, positions: usize) -> Result<B::Rope, BackendError> {
        self.backend.rope(&rope.inverse_frequencies, rope.attention_factor, positions)
    }

    fn advance(&mut self, part: &MatrixPart<'_>) {
        self.done += bytes(part);
        self.held += bytes(part);
        if self.held > HELD_MAX {
            self.held = 0;
            self.checkpoint.release();
        }
        (self.progress)(self.done, self.total);
    }
}

/// Which parts of which tensors are this rank's.
#[derive(Clone, Copy)]
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    slices: &'a Slices,
}

impl<'a> Source<'a> {
    fn query_key_value(self, layer: usize) -> Result<[MatrixPart<'a>; 3], CheckpointError> {
        let size = self.config.head_size;
        let heads = &self.slices.heads;
        let query = heads.query.start * size..heads.query.end * size;
        let kv = heads.kv.start * size..heads.kv.end * size;
        Ok([
            self.biased(layer, LayerTensor::Query, LayerTensor::QueryBias, query)?,
            self.biased(layer, LayerTensor::Key, LayerTensor::KeyBias, kv.clone())?,
            self.biased(layer, LayerTensor::Value, LayerTensor::ValueBias, kv)?,
        ])
    }

    fn attention_output(self, layer: usize) -> Result<MatrixPart<'a>, CheckpointError> {
        let (size, query) = (self.config.head_size, &self.slices.heads.query);
        let columns = query.start * size..query.end * size;
        self.columns(TensorName::Layer(layer, LayerTensor::AttentionOutput), columns)
    }

    fn gate_up(self, layer: usize) -> Result<[MatrixPart<'a>; 2], CheckpointError> {
        let rows = &self.slices.feed_forward;
        Ok([
            self.rows(TensorName::Layer(layer, LayerTensor::Gate), rows.clone())?,
            self.rows(TensorName::Layer(layer, LayerTensor::Up), rows.clone())?,
        ])
    }

    fn down(self, layer: usize) -> Result<MatrixPart<'a>, CheckpointError> {
        let name = TensorName::Layer(layer, LayerTensor::Down);
        self.columns(name, self.slices.feed_forward.clone())
    }

    fn head(self) -> Result<MatrixPart<'a>, CheckpointError> {
        let tied = self.config.tied_head;
        let name = if tied { TensorName::Embedding } else { TensorName::Output };
        self.rows(name, self.slices.vocabulary.clone())
    }

    fn biased(
        self,
        layer: usize,
        weight: LayerTensor,
        bias: LayerTensor,
        rows: std::ops::Range<usize>,
    ) -> Result<MatrixPart<'a>, CheckpointError> {
        let mut part = self.rows(TensorName::Layer(layer, weight), rows.clone())?;
        if self.config.query_key_value_bias {
            let whole = self.checkpoint.vector(TensorName::Layer(layer, bias))?;
            part.bias = Some(whole[rows].to_vec());
        }
        Ok(part)
    }

    fn rows(
        self,
        name: TensorName,
        rows: std::ops::Range<usize>,
    ) -> Result<MatrixPart<'a>, CheckpointError> {
        let matrix = self.checkpoint.matrix(name)?;
        Ok(MatrixPart { matrix, rows, columns: 0..matrix.columns, bias: None })
    }

    fn columns(
        self,
        name: TensorName,
        columns: std::ops::Range<usize>,
    ) -> Result<MatrixPart<'a>, CheckpointError> {
        let matrix = self.checkpoint.matrix(name)?;
        Ok(MatrixPart { matrix, rows: 0..matrix.rows, columns, bias: None })
    }
}

/// Bytes that a part takes in the file.
fn bytes(part: &MatrixPart<'_>) -> u64 {
    let kind = part.matrix.kind;
    let numbers = part.rows.len() as u64 * part.columns.len() as u64;
    numbers * kind.block_bytes() as u64 / kind.block_numbers() as u64
}
