//! Metadata values: small ones read, texts and arrays left where they are.

use std::ops::Range;

use crate::error::CheckpointError;
use crate::gguf::reader::Reader;

/// Arrays within arrays that we follow; more is an attack on the stack.
const ARRAY_DEPTH_MAX: usize = 4;

/// The types that GGUF metadata has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueKind {
    fn read(reader: &mut Reader<'_>) -> Result<Self, CheckpointError> {
        Ok(match reader.u32("a metadata type")? {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            other => return Err(reader.damaged(format!("there is no metadata type {other}"))),
        })
    }

    /// Bytes of one; none where that varies.
    pub(crate) const fn bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value, or where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A whole number or a truth value.
    Integer(i128),
    /// A number.
    Float(f64),
    /// Bytes of a text.
    Text(Range<usize>),
    /// `count` elements of one kind.
    Array { element: ValueKind, count: usize, span: Range<usize> },
}

impl Value {
    /// Reads a value with its type in front.
    pub(crate) fn read(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let kind = ValueKind::read(reader)?;
        match (kind.bytes(), kind) {
            (Some(size), _) => {
                let span = reader.skip(size as u64, "a metadata value")?;
                Ok(number(kind, &bytes[span]))
            }
            (None, ValueKind::Text) => Ok(Self::Text(reader.span("a metadata text")?)),
            (None, _) => {
                let element = ValueKind::read(reader)?;
                let count = reader.u64("a metadata array")?;
                let start = reader.position();
                skip_elements(reader, element, count, ARRAY_DEPTH_MAX)?;
                let count = usize::try_from(count)
                    .map_err(|_| reader.damaged("a metadata array is too long"))?;
                Ok(Self::Array { element, count, span: start..reader.position() })
            }
        }
    }
}

/// A plain number; `bytes` is as long as its kind.
pub(crate) fn number(kind: ValueKind, bytes: &[u8]) -> Value {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let sign_bits = 64 - 8 * bytes.len();
    match kind {
        ValueKind::I8 | ValueKind::I16 | ValueKind::I32 | ValueKind::I64 => {
            Value::Integer(i128::from((unsigned << sign_bits).cast_signed() >> sign_bits))
        }
        ValueKind::F32 => {
            Value::Float(f32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]).into())
        }
        ValueKind::F64 => Value::Float(f64::from_le_bytes(wide)),
        _ => Value::Integer(unsigned.into()),
    }
}

/// Every element takes bytes, so a count can't cost more time than the file is long.
fn skip_elements(
    reader: &mut Reader<'_>,
    element: ValueKind,
    count: u64,
    depth: usize,
) -> Result<(), CheckpointError> {
    match element.bytes() {
        Some(size) => {
            let bytes = count.saturating_mul(size as u64);
            reader.skip(bytes, "a metadata array")?;
        }
        None if element == ValueKind::Text => {
            for _ in 0..count {
                reader.span("a text of a metadata array")?;
            }
        }
        None => {
            if depth == 0 {
                return Err(reader.damaged("metadata arrays are nested too deeply"));
            }
            for _ in 0..count {
                let inner = ValueKind::read(reader)?;
                let inner_count = reader.u64("a metadata array")?;
                skip_elements(reader, inner, inner_count, depth - 1)?;
            }
        }
    }
    Ok(())
}
