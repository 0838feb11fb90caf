//! The tensor table of a GGUF file.

use std::collections::HashMap;
use std::ops::Range;

use crate::block::BlockKind;
use crate::error::{CheckpointError, shown};
use crate::gguf::reader::Reader;
use crate::stored::Stored;

/// What ggml allows.
const DIMENSIONS_MAX: u32 = 4;

/// Reads `count` entries. Their bytes count from the beginning of the tensor data; see [`place`].
pub(crate) fn read(
    reader: &mut Reader<'_>,
    count: u64,
) -> Result<HashMap<String, Stored>, CheckpointError> {
    let mut tensors = HashMap::new();
    for _ in 0..count {
        let name = reader.text("a tensor's name")?;
        let stored = entry(reader, name)?;
        if tensors.insert(name.to_owned(), stored).is_some() {
            return Err(reader.damaged(format!("there are two tensors {}", shown(name))));
        }
    }
    Ok(tensors)
}

fn entry(reader: &mut Reader<'_>, name: &str) -> Result<Stored, CheckpointError> {
    let dimensions = reader.u32("a tensor's rank")?;
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        let what = format!("tensor {} has {dimensions} dimensions", shown(name));
        return Err(reader.damaged(what));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(reader.u64("a tensor's shape")?);
    }
    let kind = reader.u32("a tensor's type")?;
    let offset = reader.u64("a tensor's offset")?;
    let kind = block_kind(kind).map_err(|kind_name| {
        CheckpointError::unsupported(
            reader.path(),
            format!(
                "tensor {} is of type {kind_name}; served are F32, F16, BF16, Q4_0, Q4_1, Q5_0, \
                 Q5_1, Q8_0, Q4_K, Q5_K and Q6_K",
                shown(name)
            ),
        )
    })?;
    let Some((shape, bytes)) = extent(&shape, kind, offset) else {
        return Err(reader.damaged(format!(
            "tensor {} of shape {shape:?} can't be {kind:?} at {offset}",
            shown(name)
        )));
    };
    Ok(Stored { file: 0, shape, kind, bytes })
}

/// Our shape, and the bytes it takes; none where that is not a whole number of blocks or too many.
fn extent(shape: &[u64], kind: BlockKind, offset: u64) -> Option<(Vec<usize>, Range<usize>)> {
    let shape: Vec<usize> =
        shape.iter().rev().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
    let columns = *shape.last()?;
    let numbers = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size))?;
    if numbers == 0 || columns % kind.block_numbers() != 0 {
        return None;
    }
    let bytes = (numbers / kind.block_numbers()).checked_mul(kind.block_bytes())?;
    let start = usize::try_from(offset).ok()?;
    Some((shape, start..start.checked_add(bytes)?))
}

/// Turns offsets into places in a file of `length` bytes whose tensor data begins at `start`.
pub(crate) fn place(
    tensors: &mut HashMap<String, Stored>,
    start: usize,
    length: usize,
    alignment: usize,
    damaged: impl Fn(String) -> CheckpointError,
) -> Result<(), CheckpointError> {
    for (name, stored) in tensors.iter_mut() {
        if stored.bytes.start % alignment != 0 {
            return Err(damaged(format!("tensor {} is not aligned to {alignment}", shown(name))));
        }
        let end = start.checked_add(stored.bytes.end).filter(|&end| end <= length);
        let Some(end) = end else {
            return Err(damaged(format!(
                "tensor {} ends {} bytes after the tensor data begins, and there are {}; \
                 was it downloaded whole?",
                shown(name),
                stored.bytes.end,
                length.saturating_sub(start)
            )));
        };
        stored.bytes = start + stored.bytes.start..end;
    }
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, stored)| stored.bytes.start);
    for pair in order.windows(2) {
        if pair[0].1.bytes.end > pair[1].1.bytes.start {
            let (one, other) = (shown(pair[0].0), shown(pair[1].0));
            return Err(damaged(format!("tensors {one} and {other} overlap")));
        }
    }
    Ok(())
}

/// ggml's number for a type, or what the type is called that we can't read.
fn block_kind(number: u32) -> Result<BlockKind, String> {
    Ok(match number {
        0 => BlockKind::F32,
        1 => BlockKind::F16,
        2 => BlockKind::Q4_0,
        3 => BlockKind::Q4_1,
        6 => BlockKind::Q5_0,
        7 => BlockKind::Q5_1,
        8 => BlockKind::Q8_0,
        12 => BlockKind::Q4K,
        13 => BlockKind::Q5K,
        14 => BlockKind::Q6K,
        30 => BlockKind::Bf16,
        other => return Err(foreign(other)),
    })
}

fn foreign(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}
