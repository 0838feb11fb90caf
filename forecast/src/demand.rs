//! What a model demands of whoever computes it.

use checkpoint::{Checkpoint, CheckpointError, LayerTensor, Matrix, TensorName};

/// Every matrix of a layer.
const MATRICES: [LayerTensor; 7] = [
    LayerTensor::Query,
    LayerTensor::Key,
    LayerTensor::Value,
    LayerTensor::AttentionOutput,
    LayerTensor::Gate,
    LayerTensor::Up,
    LayerTensor::Down,
];

/// Keys and values of f16.
const KV_NUMBER_BYTES: f64 = 2.0;

/// What a model demands, the same however many ranks share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Layers.
    pub layers: u32,
    /// Numbers of the residual stream, which is what ranks add up.
    pub hidden: u32,
    /// Weights that a step reads, whatever its batch.
    pub weight_bytes: f64,
    /// Keys and values of one token, over all layers.
    pub kv_token_bytes: f64,
}

impl Demand {
    /// What a model's files say.
    ///
    /// # Errors
    /// When a matrix is not there or not what it should be.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let config = checkpoint.config();
        let head = if config.tied_head { TensorName::Embedding } else { TensorName::Output };
        let mut weight_bytes = 0.0;
        let mut add = |matrix: Matrix<'_>| {
            let numbers = matrix.rows as f64 * matrix.columns as f64;
            let (block, bytes) = (matrix.kind.block_numbers(), matrix.kind.block_bytes());
            weight_bytes += numbers / block as f64 * bytes as f64;
        };
        add(checkpoint.matrix(head)?);
        for layer in 0..config.layers.len() {
            for tensor in MATRICES {
                add(checkpoint.matrix(TensorName::Layer(layer, tensor))?);
            }
        }
        let layers = config.layers.len();
        let numbers = 2 * layers * config.kv_heads * config.head_size;
        Ok(Self {
            layers: u32::try_from(layers).unwrap_or(u32::MAX),
            hidden: u32::try_from(config.hidden).unwrap_or(u32::MAX),
            weight_bytes,
            kv_token_bytes: numbers as f64 * KV_NUMBER_BYTES,
        })
    }
}
