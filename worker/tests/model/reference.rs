//! A decoder as the papers write it: the whole sequence at once, f64, no cache, no ranks, nothing
//! shared with the code under test but the numbers of the file.
#![expect(clippy::needless_range_loop, reason = "indices are those of the formulas")]

use checkpoint::{Activation, Checkpoint, LayerKind, LayerTensor, RopeConfig, TensorName};

type Rows = Vec<Vec<f64>>;

/// Logits after the last token.
pub(crate) fn logits(model: &Checkpoint, tokens: &[u32]) -> Vec<f64> {
    let config = model.config();
    let embedding = matrix(model, TensorName::Embedding);
    let scale = f64::from(config.embedding_scale);
    let embed = |&token: &u32| embedding[token as usize].iter().map(|e| e * scale).collect();
    let mut x: Rows = tokens.iter().map(embed).collect();
    for layer in 0..config.layers.len() {
        let of = |tensor| TensorName::Layer(layer, tensor);
        let normed = norm(&x, &vector(model, of(LayerTensor::AttentionNorm)), model);
        let mut attended = attention(model, layer, &normed);
        if config.post_norms {
            let weight = vector(model, of(LayerTensor::PostAttentionNorm));
            attended = norm(&attended, &weight, model);
        }
        add(&mut x, &attended);
        let normed = norm(&x, &vector(model, of(LayerTensor::FeedForwardNorm)), model);
        let mut fed = feed_forward(model, layer, &normed);
        if config.post_norms {
            fed = norm(&fed, &vector(model, of(LayerTensor::PostFeedForwardNorm)), model);
        }
        add(&mut x, &fed);
    }
    let last = norm(&x[x.len() - 1..], &vector(model, TensorName::OutputNorm), model);
    let head = if config.tied_head { embedding } else { matrix(model, TensorName::Output) };
    times(&last, &head).remove(0)
}

fn attention(model: &Checkpoint, layer: usize, x: &Rows) -> Rows {
    use LayerTensor::{Key, KeyBias, KeyNorm, Query, QueryBias, QueryNorm, Value, ValueBias};

    let config = model.config();
    let of = |tensor| TensorName::Layer(layer, tensor);
    let project = |weight, bias, head_norm, heads| {
        let mut y = times(x, &matrix(model, of(weight)));
        if config.query_key_value_bias {
            let bias = vector(model, of(bias));
            y.iter_mut().for_each(|row| row.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
        }
        let mut y = split(&y, heads);
        if let (true, Some(head_norm)) = (config.query_key_norm, head_norm) {
            let weight = vector(model, of(head_norm));
            y.iter_mut().for_each(|heads| *heads = norm(heads, &weight, model));
        }
        y
    };
    let mut q = project(Query, QueryBias, Some(QueryNorm), config.query_heads);
    let mut k = project(Key, KeyBias, Some(KeyNorm), config.kv_heads);
    let v = project(Value, ValueBias, None, config.kv_heads);
    let (rope, window) = match config.layers[layer] {
        LayerKind::Full => (&config.rope, usize::MAX),
        LayerKind::Sliding { window } => {
            (config.rope_local.as_ref().unwrap_or(&config.rope), window)
        }
    };
    rotate(&mut q, rope);
    rotate(&mut k, rope);
    let group = config.query_heads / config.kv_heads;
    let scale = f64::from(config.attention_scale);
    let mut out = Rows::new();
    for t in 0..x.len() {
        let mut row = Vec::new();
        for head in 0..config.query_heads {
            let seen: Vec<usize> = (0..=t).filter(|s| t - s < window).collect();
            let scores =
                seen.iter().map(|&s| (dot(&q[t][head], &k[s][head / group]) * scale).exp());
            let scores: Vec<f64> = scores.collect();
            let total: f64 = scores.iter().sum();
            for number in 0..config.head_size {
                let parts = seen.iter().zip(&scores);
                row.push(parts.map(|(&s, w)| w / total * v[s][head / group][number]).sum());
            }
        }
        out.push(row);
    }
    times(&out, &matrix(model, of(LayerTensor::AttentionOutput)))
}

fn feed_forward(model: &Checkpoint, layer: usize, x: &Rows) -> Rows {
    let of = |tensor| TensorName::Layer(layer, tensor);
    let mut gate = times(x, &matrix(model, of(LayerTensor::Gate)));
    let up = times(x, &matrix(model, of(LayerTensor::Up)));
    for (gate, up) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
        let g = *gate;
        let bent = match model.config().activation {
            Activation::Silu => g / (1.0 + (-g).exp()),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
                0.5 * g * (1.0 + inner.tanh())
            }
        };
        *gate = bent * up;
    }
    times(&gate, &matrix(model, of(LayerTensor::Down)))
}

/// Every row's heads.
fn split(x: &Rows, heads: usize) -> Vec<Rows> {
    x.iter().map(|row| row.chunks(row.len() / heads).map(<[f64]>::to_vec).collect()).collect()
}

/// Rotates pairs `(i, i + half)` of every head by position × frequency.
fn rotate(x: &mut [Rows], rope: &RopeConfig) {
    let half = rope.inverse_frequencies.len();
    let factor = f64::from(rope.attention_factor);
    for (position, heads) in x.iter_mut().enumerate() {
        for head in heads {
            for pair in 0..half {
                let angle = position as f64 * f64::from(rope.inverse_frequencies[pair]);
                let (a, b) = (head[pair], head[pair + half]);
                head[pair] = (a * angle.cos() - b * angle.sin()) * factor;
                head[pair + half] = (b * angle.cos() + a * angle.sin()) * factor;
            }
        }
    }
}

fn norm(x: &[Vec<f64>], weight: &[f64], model: &Checkpoint) -> Rows {
    let epsilon = f64::from(model.config().norm_epsilon);
    let of_row = |row: &Vec<f64>| {
        let size = (dot(row, row) / row.len() as f64 + epsilon).sqrt();
        row.iter().zip(weight).map(|(x, w)| x / size * w).collect()
    };
    x.iter().map(of_row).collect()
}

fn add(x: &mut Rows, y: &Rows) {
    x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
}

/// `x · weightᵀ`
fn times(x: &Rows, weight: &Rows) -> Rows {
    x.iter().map(|x| weight.iter().map(|row| dot(x, row)).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn matrix(model: &Checkpoint, name: TensorName) -> Rows {
    let matrix = model.matrix(name).unwrap();
    let mut row = vec![0.0; matrix.columns];
    let mut numbers = |index| {
        matrix.dequantize_row(index, &mut row);
        row.iter().copied().map(f64::from).collect()
    };
    (0..matrix.rows).map(&mut numbers).collect()
}

fn vector(model: &Checkpoint, name: TensorName) -> Vec<f64> {
    model.vector(name).unwrap().into_iter().map(f64::from).collect()
}
