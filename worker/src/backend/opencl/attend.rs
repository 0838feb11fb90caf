//! Rotary embedding, and attention over the cache.

use opencl::Buffer;

use crate::backend::AttentionShape;
use crate::backend::cpu::attend::SPLIT;
use crate::backend::cpu::tensor::GROUP;
use crate::backend::opencl::cache::Cache;
use crate::backend::opencl::driver::{Arg, Driver, u32_of};
use crate::backend::opencl::programs::Part;
use crate::backend::opencl::rows;
use crate::backend::opencl::steps::Arrays;
use crate::backend::opencl::tensor::Tensor;

/// Work-items of a head.
const ITEMS: usize = 64;
/// Bytes that results of splits may take; rows that need more wait for the next launch.
const PARTS_BYTES_MAX: usize = 64 << 20;

/// Norms and rotates q and k of `qkv`, puts k and v in the cache and q in `out`.
#[expect(clippy::too_many_arguments, reason = "fused, so that k and v are touched once")]
pub(crate) fn rope_append(
    driver: &mut Driver,
    arrays: &Arrays,
    qkv: &Tensor,
    norms: Option<(&Buffer, &Buffer, f32)>,
    table: &Buffer,
    shape: &AttentionShape,
    cache: &Cache,
    out: &Tensor,
) {
    let (query_norm, key_norm, epsilon) = norms.unwrap_or((table, table, 0.0));
    let args = [
        Arg::Lease(&qkv.values),
        Arg::Buffer(query_norm),
        Arg::Buffer(key_norm),
        Arg::Buffer(table),
        Arg::Lease(arrays.positions.lease()),
        Arg::Lease(arrays.slots.lease()),
        Arg::Buffer(&cache.layers[shape.layer]),
        Arg::Lease(&out.values),
        Arg::U32(u32_of(shape.query_heads)),
        Arg::U32(u32_of(shape.kv_heads)),
        Arg::U32(u32::from(norms.is_some())),
        Arg::F32(epsilon),
    ];
    let heads = shape.query_heads + 2 * shape.kv_heads;
    let global = [heads * ITEMS, qkv.rows, 1];
    driver.launch((Part::Append(cache.heads), "rope_append"), &args, global, [ITEMS, 1, 1]);
}

/// Attention of all rows of `q`; no row sees beyond the first `positions`.
#[expect(clippy::too_many_arguments, reason = "what a layer's attention is made of")]
pub(crate) fn attend(
    driver: &mut Driver,
    arrays: &Arrays,
    q: &Tensor,
    shape: &AttentionShape,
    cache: &Cache,
    positions: usize,
    out: &mut Tensor,
) {
    let twin = rows::empty_twin(driver, out);
    let splits = positions.div_ceil(SPLIT);
    let row_bytes = shape.query_heads * splits * (shape.head_size + 2) * 4;
    let rows_max = (PARTS_BYTES_MAX / row_bytes.max(1)).max(1);
    let window = Arg::U32(shape.window.map_or(u32::MAX, u32_of));
    let heads = Arg::U32(u32_of(shape.query_heads));
    for first in (0..q.rows).step_by(rows_max) {
        let rows = rows_max.min(q.rows - first);
        let parts = driver.lease(rows * row_bytes);
        let (first, splits_arg) = (Arg::U32(u32_of(first)), Arg::U32(u32_of(splits)));
        let args = [
            Arg::Lease(&q.values),
            Arg::Buffer(&cache.layers[shape.layer]),
            Arg::Lease(arrays.positions.lease()),
            Arg::Lease(arrays.tables.lease()),
            Arg::Lease(arrays.blocks.lease()),
            Arg::Lease(arrays.shares.lease()),
            Arg::Lease(&parts),
            heads,
            Arg::U32(u32_of(shape.kv_heads)),
            Arg::F32(shape.scale),
            window,
            first,
            splits_arg,
        ];
        let global = [splits * SPLIT, arrays.lots, rows];
        let part = Part::Attention { heads: cache.heads, sharing: cache.sharing };
        driver.launch((part, "attend_split"), &args, global, [SPLIT, 1, 1]);
        let args = [
            Arg::Lease(&parts),
            Arg::Lease(arrays.positions.lease()),
            Arg::Lease(&out.values),
            Arg::Lease(&twin.codes),
            Arg::Lease(&twin.groups),
            heads,
            window,
            first,
            splits_arg,
        ];
        let global = [shape.query_heads * ITEMS, rows, 1];
        driver.launch((Part::Append(cache.heads), "attend_fold"), &args, global, [ITEMS, 1, 1]);
    }
    // Else groups of columns span heads, and whoever wants codes has them made.
    if shape.head_size.is_multiple_of(GROUP) {
        out.twin = twin.into();
    }
}
