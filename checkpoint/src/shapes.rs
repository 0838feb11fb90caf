//! Which tensors a model must have, and of which shape.

use crate::config::ModelConfig;
use crate::names::{LayerTensor, TensorName};

/// `(rows, columns)` of a matrix, `(numbers)` of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Matrix(usize, usize),
    Vector(usize),
}

impl Shape {
    pub(crate) fn is(self, found: &[usize]) -> bool {
        match self {
            Self::Matrix(rows, columns) => found == [rows, columns],
            Self::Vector(numbers) => found == [numbers],
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Matrix(rows, columns) => write!(f, "[{rows}, {columns}]"),
            Self::Vector(numbers) => write!(f, "[{numbers}]"),
        }
    }
}

/// Every tensor that `config` implies.
pub(crate) fn needed(config: &ModelConfig) -> Vec<(TensorName, Shape)> {
    let table = Shape::Matrix(config.vocabulary, config.hidden);
    let mut all = vec![
        (TensorName::Embedding, table),
        (TensorName::OutputNorm, Shape::Vector(config.hidden)),
    ];
    if !config.tied_head {
        all.push((TensorName::Output, table));
    }
    for layer in 0..config.layers.len() {
        all.extend(
            layer_tensors(config)
                .into_iter()
                .map(|(tensor, shape)| (TensorName::Layer(layer, tensor), shape)),
        );
    }
    all
}

fn layer_tensors(config: &ModelConfig) -> Vec<(LayerTensor, Shape)> {
    let hidden = config.hidden;
    let query = config.query_heads * config.head_size;
    let key = config.kv_heads * config.head_size;
    let mut all = vec![
        (LayerTensor::AttentionNorm, Shape::Vector(hidden)),
        (LayerTensor::Query, Shape::Matrix(query, hidden)),
        (LayerTensor::Key, Shape::Matrix(key, hidden)),
        (LayerTensor::Value, Shape::Matrix(key, hidden)),
        (LayerTensor::AttentionOutput, Shape::Matrix(hidden, query)),
        (LayerTensor::FeedForwardNorm, Shape::Vector(hidden)),
        (LayerTensor::Gate, Shape::Matrix(config.intermediate, hidden)),
        (LayerTensor::Up, Shape::Matrix(config.intermediate, hidden)),
        (LayerTensor::Down, Shape::Matrix(hidden, config.intermediate)),
    ];
    if config.query_key_value_bias {
        all.push((LayerTensor::QueryBias, Shape::Vector(query)));
        all.push((LayerTensor::KeyBias, Shape::Vector(key)));
        all.push((LayerTensor::ValueBias, Shape::Vector(key)));
    }
    if config.query_key_norm {
        all.push((LayerTensor::QueryNorm, Shape::Vector(config.head_size)));
        all.push((LayerTensor::KeyNorm, Shape::Vector(config.head_size)));
    }
    if config.post_norms {
        all.push((LayerTensor::PostAttentionNorm, Shape::Vector(hidden)));
        all.push((LayerTensor::PostFeedForwardNorm, Shape::Vector(hidden)));
    }
    all
}
