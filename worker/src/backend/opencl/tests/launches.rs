//! How many kernels a layer is.

use checkpoint::{Activation, BlockKind, Matrix};
use proto::worker::KvDtype;

use super::backends;
use crate::backend::cpu::tests::support::{Random, batch, part};
use crate::backend::opencl::LAUNCHES_PER_LAYER;
use crate::backend::{AttentionShape, Backend, CacheShape};

#[test]
fn a_layer_is_few_launches_however_many_rows() {
    let (hidden, inner, size) = (64, 96, 32);
    let bytes = Random::new(1).blocks(BlockKind::Q8_0, 4 * inner, inner);
    let matrix = |rows, columns| {
        let end = rows * columns / 32 * BlockKind::Q8_0.block_bytes();
        part(Matrix::new(rows, columns, BlockKind::Q8_0, &bytes[..end]), 0..rows)
    };
    for mut b in backends().1 {
        let (query_heads, kv_heads) = (2, 1);
        let cache = CacheShape {
            layers: 1,
            kv_heads,
            head_size: size,
            block_size: 16,
            blocks: 4,
            swap_blocks: 0,
            dtype: KvDtype::F16,
            queries_per_kv_head: query_heads / kv_heads,
        };
        let mut cache = b.cache(&cache).unwrap();
        let shape = AttentionShape {
            layer: 0,
            query_heads,
            kv_heads,
            head_size: size,
            scale: 1.0,
            window: None,
        };
        let rope = b.rope(&[0.5; 16], 1.0, 64).unwrap();
        let weight = b.vector(&[1.0; 64]).unwrap();
        let qkv = b.matrix(&[matrix(4 * size, hidden)]).unwrap();
        let output = b.segmented(&matrix(hidden, 2 * size), size).unwrap();
        let gate_up = b.gated(&matrix(inner, hidden), &matrix(inner, hidden)).unwrap();
        let down = b.segmented(&matrix(hidden, inner), 96).unwrap();
        for rows in [1, 40] {
            let batch = batch(16, &[(0, rows, &[2, 0, 3])]);
            let mut residual = b.upload(&vec![0.5; rows * hidden], hidden);
            let x = b.norm(&residual, &weight, 1e-5);
            let before = b.launches();
            let q = b.linear(&x, &qkv);
            let q = b.rope_append(q, None, &rope, &shape, &mut cache, &batch);
            let attended = b.attend(&q, &shape, &[0, 0], &cache, &batch);
            let sum = b.whole(&attended, &output, hidden).unwrap();
            let x = b.add_norm(&mut residual, sum, None, &weight, 1e-5);
            let gated = b.glu(&x, &gate_up, Activation::Silu);
            let sum = b.whole(&gated, &down, hidden).unwrap();
            b.add_norm(&mut residual, sum, None, &weight, 1e-5);
            let launches = b.launches() - before;
            assert_eq!(launches, u64::from(LAUNCHES_PER_LAYER));
        }
    }
}
