//! Rotary embedding, the KV cache and attention.

use proto::worker::KvDtype;

use super::{assert_same, backends, numbers};
use crate::backend::cpu::tests::support::{Random, batch};
use crate::backend::{AttentionShape, Backend, BackendError, CacheShape, QueryKeyNorm};

/// Heads and the like of one case.
#[derive(Debug, Clone, Copy)]
struct Case {
    query_heads: usize,
    kv_heads: usize,
    head_size: usize,
    block_size: usize,
    window: Option<usize>,
    normed: bool,
    dtype: KvDtype,
    /// Of the model; a rank may have fewer.
    queries_per_kv_head: usize,
}

const PLAIN: Case = Case {
    query_heads: 9,
    kv_heads: 3,
    head_size: 64,
    block_size: 16,
    window: None,
    normed: false,
    dtype: KvDtype::F16,
    queries_per_kv_head: 3,
};
/// Five query heads of such a size go in two lots.
const WIDE: Case = Case {
    query_heads: 5,
    kv_heads: 1,
    head_size: 256,
    block_size: 32,
    window: Some(37),
    normed: true,
    queries_per_kv_head: 5,
    ..PLAIN
};
const WINDOWED: Case = Case {
    query_heads: 10,
    kv_heads: 2,
    head_size: 128,
    window: Some(300),
    queries_per_kv_head: 5,
    ..PLAIN
};
/// Blocks that are not whole pages.
const SMALL_BLOCKS: Case = Case { block_size: 10, normed: true, ..PLAIN };
/// Of eight query heads that share a KV head, another rank has five.
const CUT: Case = Case { query_heads: 3, kv_heads: 1, queries_per_kv_head: 8, ..PLAIN };

const CASES: [Case; 9] = [
    PLAIN,
    Case { dtype: KvDtype::Q8, ..PLAIN },
    WIDE,
    Case { dtype: KvDtype::Q8, ..WIDE },
    WINDOWED,
    Case { dtype: KvDtype::Q8, ..WINDOWED },
    Case { dtype: KvDtype::Q8, ..SMALL_BLOCKS },
    CUT,
    Case { query_heads: 2, kv_heads: 2, head_size: 40, queries_per_kv_head: 1, ..SMALL_BLOCKS },
];

/// A layer, and sequences in it step by step.
struct Layer<B: Backend> {
    case: Case,
    backend: B,
    rope: B::Rope,
    norms: (B::Vector, B::Vector),
    cache: B::Cache,
}

impl<B: Backend> Layer<B> {
    fn new(mut backend: B, case: Case, blocks: usize) -> Self {
        let mut random = Random::new(77);
        let frequencies: Vec<f32> =
            (0..case.head_size / 2).map(|i| 1.0 / 100f32.powf(i as f32 / 20.0)).collect();
        let shape = CacheShape {
            layers: 2,
            kv_heads: case.kv_heads,
            head_size: case.head_size,
            block_size: case.block_size,
            blocks,
            swap_blocks: 3,
            dtype: case.dtype,
            queries_per_kv_head: case.queries_per_kv_head,
        };
        let norms = [0; 2].map(|_| backend.vector(&random.numbers(case.head_size)).unwrap());
        Self {
            case,
            rope: backend.rope(&frequencies, 1.25, 1000).unwrap(),
            norms: norms.into(),
            cache: backend.cache(&shape).unwrap(),
            backend,
        }
    }

    /// The slices' attention, of random q, k and v.
    fn step(&mut self, seed: u64, slices: &[(usize, usize, &[u32])]) -> Vec<f32> {
        let Case { query_heads, kv_heads, head_size, block_size, window, normed, .. } = self.case;
        let batch = batch(block_size, slices);
        let rows = batch.tokens.len();
        let width = (query_heads + 2 * kv_heads) * head_size;
        let shape = AttentionShape {
            layer: 1,
            query_heads,
            kv_heads,
            head_size,
            scale: 1.7 / (head_size as f32).sqrt(),
            window,
        };
        let kv_of_query: Vec<usize> =
            (0..query_heads).map(|head| head * kv_heads / query_heads).collect();
        let b = &mut self.backend;
        // A row's numbers are those of its position, whatever rows are beside it.
        let row = |position: &u32| Random::new(seed + u64::from(*position)).numbers(width);
        let qkv: Vec<f32> = batch.positions.iter().flat_map(row).collect();
        let qkv = b.upload(&qkv, width);
        let (query, key) = &self.norms;
        let norms = normed.then_some(QueryKeyNorm { query, key, epsilon: 1e-6 });
        let q = b.rope_append(qkv, norms, &self.rope, &shape, &mut self.cache, &batch);
        let out = b.attend(&q, &shape, &kv_of_query, &self.cache, &batch);
        numbers(b, &out, rows)
    }
}

/// A shuffled block table for so many tokens.
fn table(case: Case, tokens: usize, blocks: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..u32::try_from(blocks).unwrap()).collect();
    Random::new(5).shuffle(&mut all);
    all.truncate(tokens.div_ceil(case.block_size));
    all
}

#[test]
fn attention_has_the_cpu_s_bits_however_the_sequence_is_cut() {
    let tokens = 530; // three splits
    for case in CASES {
        let (cpu, devices) = backends();
        let blocks = 2 * tokens / case.block_size + 4;
        let mut all = table(case, blocks * case.block_size, blocks);
        let mates = all.split_off(tokens.div_ceil(case.block_size));
        let mut right = Layer::new(cpu, case, blocks);
        let expected = right.step(1, &[(0, tokens, &all)]);
        let row = expected.len() / tokens;
        for device in devices {
            let mut layer = Layer::new(device, case, blocks);
            let whole = layer.step(1, &[(0, tokens, &all)]);
            assert_same(&whole, &expected, &case);
            let (mut from, mut out) = (0, Vec::new());
            for chunk in [1, 130, 17, 256, 120, 1, 1, 1, 1, 1, 1] {
                let slices = [(from, chunk, mates.as_slice()), (from, chunk, all.as_slice())];
                let both = layer.step(1, &slices);
                out.extend_from_slice(&both[chunk * row..]);
                from += chunk;
            }
            assert_eq!(from, tokens);
            assert_same(&out, &expected, &case);
        }
    }
}

#[test]
fn blocks_are_copied_and_swapped_with_all_their_layers() {
    for case in &CASES[..2] {
        for device in backends().1 {
            let mut layer = Layer::new(device, *case, 8);
            let whole = layer.step(4, &[(0, 20, &[2, 5])]);
            layer.backend.copy_blocks(&mut layer.cache, &[(2, 0), (5, 7)]);
            layer.backend.swap_out(&mut layer.cache, &[(0, 2), (7, 1)]).unwrap();
            layer.step(900, &[(0, 128, &[0, 1, 2, 3, 4, 5, 6, 7])]);
            layer.backend.swap_in(&mut layer.cache, &[(2, 4), (1, 3)]);
            let again = layer.step(4, &[(19, 1, &[4, 3])]);
            assert_same(&again, &whole[whole.len() - again.len()..], case);
        }
    }
}

#[test]
fn codes_take_the_bytes_that_they_take_on_the_cpu() {
    let shape = CacheShape {
        layers: 4,
        kv_heads: 2,
        head_size: 64,
        block_size: 16,
        blocks: 1,
        swap_blocks: 0,
        dtype: KvDtype::Q8,
        queries_per_kv_head: 2,
    };
    for mut device in backends().1 {
        assert_eq!(device.block_bytes(&shape), 4 * 2 * 2 * (64 + 2 * 2) * 16);
        let odd = CacheShape { head_size: 40, ..shape };
        assert!(matches!(device.cache(&odd), Err(BackendError::Unsupported { .. })));
    }
}
