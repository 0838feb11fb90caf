//! Rotary embedding, the KV cache and attention.

use half::{bf16, f16};
use proto::worker::KvDtype;

use super::support::{Random, backends, batch, bits, numbers};
use crate::backend::cpu::{Cache, CpuBackend, Rope};
use crate::backend::{AttentionShape, Backend, BackendError, CacheShape, QueryKeyNorm};
use crate::batch::Batch;

/// Heads and the like of one case.
#[derive(Clone, Copy)]
struct Case {
    query_heads: usize,
    kv_heads: usize,
    head_size: usize,
    window: Option<usize>,
    normed: bool,
    dtype: KvDtype,
}

const PLAIN: Case = Case {
    query_heads: 9,
    kv_heads: 3,
    head_size: 64,
    window: None,
    normed: false,
    dtype: KvDtype::F16,
};

const CASES: [Case; 7] = [
    PLAIN,
    Case { dtype: KvDtype::Q8, ..PLAIN },
    Case {
        query_heads: 5,
        kv_heads: 1,
        head_size: 96,
        window: Some(37),
        normed: true,
        dtype: KvDtype::Q8,
    },
    Case {
        query_heads: 4,
        kv_heads: 1,
        head_size: 96,
        window: Some(37),
        normed: true,
        dtype: KvDtype::F16,
    },
    Case {
        query_heads: 3,
        kv_heads: 3,
        head_size: 8,
        window: Some(1),
        normed: false,
        dtype: KvDtype::F16,
    },
    Case {
        query_heads: 2,
        kv_heads: 2,
        head_size: 40,
        window: None,
        normed: true,
        dtype: KvDtype::F16,
    },
    Case {
        query_heads: 30,
        kv_heads: 1,
        head_size: 16,
        window: Some(300),
        normed: false,
        dtype: KvDtype::F16,
    },
];

impl Case {
    fn shape(&self) -> AttentionShape {
        AttentionShape {
            layer: 1,
            query_heads: self.query_heads,
            kv_heads: self.kv_heads,
            head_size: self.head_size,
            scale: 1.7 / (self.head_size as f32).sqrt(),
            window: self.window,
        }
    }

    fn width(&self) -> usize {
        (self.query_heads + 2 * self.kv_heads) * self.head_size
    }

    fn kv_of_query(&self) -> Vec<usize> {
        (0..self.query_heads).map(|head| head * self.kv_heads / self.query_heads).collect()
    }

    fn frequencies(&self) -> Vec<f32> {
        (0..self.head_size / 2).map(|i| 1.0 / 100f32.powf(i as f32 / 20.0)).collect()
    }

    fn cache(&self, backend: &mut CpuBackend, block_size: usize, blocks: usize) -> Cache {
        let (kv_heads, head_size) = (self.kv_heads, self.head_size);
        let shape = CacheShape {
            layers: 2,
            kv_heads,
            head_size,
            block_size,
            blocks,
            swap_blocks: 3,
            dtype: self.dtype,
            queries_per_kv_head: self.query_heads / kv_heads,
        };
        backend.cache(&shape).unwrap()
    }
}

/// A layer's attention, from qkv on.
struct Layer {
    case: Case,
    rope: Rope,
    norms: Option<(Vec<f32>, Vec<f32>)>,
    cache: Cache,
}

impl Layer {
    fn new(case: Case, backend: &mut CpuBackend, block_size: usize, blocks: usize) -> Self {
        let mut random = Random::new(77);
        let norms =
            case.normed.then(|| (random.numbers(case.head_size), random.numbers(case.head_size)));
        let rope = backend.rope(&case.frequencies(), 1.25, 2000).unwrap();
        Self { case, rope, norms, cache: case.cache(backend, block_size, blocks) }
    }

    fn step(&mut self, backend: &mut CpuBackend, qkv: &[f32], batch: &Batch) -> Vec<f32> {
        let shape = self.case.shape();
        let qkv = backend.upload(qkv, self.case.width());
        let norms =
            self.norms.as_ref().map(|(query, key)| QueryKeyNorm { query, key, epsilon: 1e-6 });
        let q = backend.rope_append(qkv, norms, &self.rope, &shape, &mut self.cache, batch);
        let out = backend.attend(&q, &shape, &self.case.kv_of_query(), &self.cache, batch);
        numbers(backend, &out)
    }

    /// The same for one whole sequence in f64; q, k and v rounded to what is multiplied.
    fn plain(&self, qkv: &[f32]) -> Vec<f64> {
        let Case { query_heads, kv_heads, head_size, .. } = self.case;
        let shape = self.case.shape();
        let heads = query_heads + 2 * kv_heads;
        let rows: Vec<Vec<Vec<f64>>> = qkv
            .chunks(self.case.width())
            .enumerate()
            .map(|(position, row)| {
                let head = |(at, head): (usize, &[f32])| self.plain_head(position, at, head);
                row.chunks(head_size).enumerate().map(head).collect()
            })
            .collect();
        assert!(rows.iter().all(|row| row.len() == heads));
        let mut out = Vec::new();
        for (position, row) in rows.iter().enumerate() {
            let from = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
            for (head, &kv_head) in self.case.kv_of_query().iter().enumerate() {
                let key = query_heads + kv_head;
                let score = |row: &Vec<Vec<f64>>| {
                    let q = rows[position][head].iter();
                    let q = q.map(|q| short(q * f64::from(shape.scale)));
                    q.zip(&row[key]).map(|(q, k)| q * k).sum::<f64>()
                };
                let seen = &rows[from..=position];
                let scores: Vec<f64> = seen.iter().map(score).collect();
                let greatest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> =
                    scores.iter().map(|score| (score - greatest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_size {
                    let sum = seen.iter().zip(&weights);
                    let sum: f64 = sum.map(|(row, weight)| row[key + kv_heads][i] * weight).sum();
                    out.push(sum / total);
                }
            }
            assert_eq!(row.len(), heads);
        }
        out
    }

    fn plain_head(&self, position: usize, at: usize, head: &[f32]) -> Vec<f64> {
        let Case { query_heads, kv_heads, head_size, .. } = self.case;
        let mut x: Vec<f64> = head.iter().map(|&x| f64::from(x)).collect();
        if at >= query_heads + kv_heads {
            return self.kept(x);
        }
        if let Some((query, key)) = &self.norms {
            let weight = if at < query_heads { query } else { key };
            let mean = x.iter().map(|x| x * x).sum::<f64>() / head_size as f64;
            let scale = 1.0 / (mean + 1e-6).sqrt();
            x.iter_mut().zip(weight).for_each(|(x, &w)| *x *= scale * f64::from(w));
        }
        for (i, inverse) in self.case.frequencies().iter().enumerate() {
            let (sin, cos) = (position as f64 * f64::from(*inverse)).sin_cos();
            let (a, b) = (x[i], x[i + head_size / 2]);
            x[i] = 1.25 * (a * cos - b * sin);
            x[i + head_size / 2] = 1.25 * (b * cos + a * sin);
        }
        if at < query_heads { x } else { self.kept(x) }
    }

    /// A head of k or v as the cache gives it back.
    fn kept(&self, x: Vec<f64>) -> Vec<f64> {
        match self.case.dtype {
            KvDtype::F16 => x.into_iter().map(short).collect(),
            KvDtype::Q8 => x.chunks(32).flat_map(quantised).map(short).collect(),
        }
    }
}

/// A number of 8 bits.
fn short(x: f64) -> f64 {
    f64::from(bf16::from_f64(x).to_f32())
}

/// 32 numbers as codes from -127 to 127 times a scale.
fn quantised(x: &[f64]) -> Vec<f64> {
    let greatest = x.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let scale = f64::from(f16::from_f64(greatest / 127.0).to_f32());
    let code = |x: &f64| (x / scale).round_ties_even().clamp(-127.0, 127.0);
    x.iter().map(|x| code(x) * scale).collect()
}

/// A shuffled block table for `tokens` out of `blocks`.
fn table(random: &mut Random, block_size: usize, tokens: usize, blocks: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..u32::try_from(blocks).unwrap()).collect();
    random.shuffle(&mut all);
    all.truncate(tokens.div_ceil(block_size));
    all
}

#[test]
fn attention_is_the_softmax_of_scores_times_values() {
    for case in CASES {
        for tokens in [1, 2, 7, 33, 300] {
            let mut backend = CpuBackend::new(2).unwrap();
            let mut random = Random::new(tokens as u64);
            let mut layer = Layer::new(case, &mut backend, 16, 40);
            let table = table(&mut random, 16, tokens, 40);
            let qkv = random.numbers(tokens * case.width());
            let out = layer.step(&mut backend, &qkv, &batch(16, &[(0, tokens, &table)]));
            for (out, wanted) in out.iter().zip(layer.plain(&qkv)) {
                // f32 and f64 may choose codes one apart where a number lies between two.
                let near = if case.dtype == KvDtype::F16 { 2e-3 } else { 2e-2 };
                assert!((f64::from(*out) - wanted).abs() < near, "{out} for {wanted}");
            }
        }
    }
}

#[test]
fn a_rows_bits_depend_neither_on_cuts_nor_mates_nor_blocks_nor_threads_nor_path() {
    let tokens = 560; // three splits
    for case in CASES {
        let mut random = Random::new(9);
        let qkv = random.numbers(tokens * case.width());
        let mate = random.numbers(tokens * case.width());
        let width = case.width();
        let mut all = backends();
        let mut whole = Vec::new();
        for (at, backend) in all.iter_mut().enumerate() {
            let block_size = [16, 32, 4, 16, 48, 10][at % 6];
            let blocks = 2 * tokens.div_ceil(block_size) + 5;
            let mut layer = Layer::new(case, backend, block_size, blocks);
            let mut tables = table(&mut random, block_size, blocks * block_size, blocks);
            let mate_table = tables.split_off(tokens.div_ceil(block_size));
            if at == 0 {
                whole = layer.step(backend, &qkv, &batch(block_size, &[(0, tokens, &tables)]));
                continue;
            }
            // In chunks, each beside a chunk of another sequence; in the end token by token.
            let mut out = Vec::new();
            let mut from = 0;
            for chunk in [1, 130, 17, 256, 150, 1, 1, 1, 1, 1, 1] {
                let range = from * width..(from + chunk) * width;
                let rows = [&mate[range.clone()], &qkv[range]].concat();
                let slices =
                    [(from, chunk, mate_table.as_slice()), (from, chunk, tables.as_slice())];
                let both = layer.step(backend, &rows, &batch(block_size, &slices));
                out.extend_from_slice(&both[both.len() / 2..]);
                from += chunk;
            }
            assert_eq!(bits(&out), bits(&whole[..out.len()]));
            assert_eq!(from, tokens);
        }
    }
}

#[test]
fn blocks_are_copied_and_swapped_with_all_their_layers() {
    for case in [CASES[0], CASES[1]] {
        let mut backend = CpuBackend::new(1).unwrap();
        let mut layer = Layer::new(case, &mut backend, 16, 8);
        let qkv = Random::new(4).numbers(20 * case.width());
        let whole = layer.step(&mut backend, &qkv, &batch(16, &[(0, 20, &[2, 5])]));
        backend.copy_blocks(&mut layer.cache, &[(2, 0), (5, 7)]);
        backend.swap_out(&mut layer.cache, &[(0, 2), (7, 1)]).unwrap();
        let last = &qkv[19 * case.width()..];
        let noise = Random::new(5).numbers(128 * case.width());
        let all = [0, 1, 2, 3, 4, 5, 6, 7];
        layer.step(&mut backend, &noise, &batch(16, &[(0, 128, &all)]));
        backend.swap_in(&mut layer.cache, &[(2, 4), (1, 3)]);
        let again = layer.step(&mut backend, last, &batch(16, &[(19, 1, &[4, 3])]));
        assert_eq!(bits(&again), bits(&whole[whole.len() - again.len()..]));
    }
}

#[test]
fn a_cache_beyond_memory_is_refused_and_a_large_one_costs_nothing_until_used() {
    let mut backend = CpuBackend::new(1).unwrap();
    let memory = backend.capabilities().memory_bytes;
    let mut shape = CacheShape {
        layers: 4,
        kv_heads: 2,
        head_size: 64,
        block_size: 16,
        blocks: 1,
        swap_blocks: 0,
        dtype: KvDtype::F16,
        queries_per_kv_head: 1,
    };
    assert_eq!(backend.block_bytes(&shape), 4 * 2 * 2 * 64 * 16 * 2);
    let small = CacheShape { dtype: KvDtype::Q8, ..shape };
    assert_eq!(backend.block_bytes(&small), 4 * 2 * 2 * (64 + 2 * 2) * 16);
    let odd = CacheShape { head_size: 40, ..small };
    assert!(matches!(backend.cache(&odd), Err(BackendError::Unsupported { .. })));
    shape.blocks = usize::try_from(memory / backend.block_bytes(&shape)).unwrap() + 1;
    assert!(matches!(backend.cache(&shape), Err(BackendError::Memory { .. })));
    shape.blocks /= 2;
    backend.cache(&shape).unwrap();
}
