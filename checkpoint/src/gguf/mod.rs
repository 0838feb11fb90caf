//! A GGUF file: metadata by key, tensors by name. Versions 2 and 3, little-endian.

pub(crate) mod reader;
pub(crate) mod tensors;
pub(crate) mod value;
pub(crate) mod vocabulary;

use std::collections::HashMap;
use std::path::Path;

use crate::error::{CheckpointError, shown};
use crate::gguf::reader::Reader;
use crate::gguf::value::{Value, ValueKind};
use crate::mapped::Mapped;
use crate::stored::Stored;

/// First bytes of the file.
const MAGIC: &[u8; 4] = b"GGUF";
/// Where tensors begin, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;
/// What the format asks for at least.
const ALIGNMENT_MIN: u64 = 8;
/// More than a huge page makes no sense.
const ALIGNMENT_MAX: u64 = 1 << 21;
/// What the format allows.
const KEY_BYTES_MAX: usize = 65535;

/// An opened file whose header has been checked.
#[derive(Debug)]
pub(crate) struct Gguf {
    file: Mapped,
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, Stored>,
    header_bytes: usize,
}

impl Gguf {
    /// Reads the header; every count, length and offset in it is checked against the file.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = Mapped::open(path)?;
        let bytes = file.bytes();
        let damaged = |what: String| CheckpointError::damaged(path, what);

        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(damaged("it does not begin with GGUF".to_owned()));
        }
        let mut reader = Reader::new(path, bytes, MAGIC.len());
        check_version(&mut reader)?;
        let tensor_count = reader.u64("the tensor count")?;
        let metadata_count = reader.u64("the metadata count")?;

        let metadata = read_metadata(&mut reader, bytes, metadata_count)?;
        let alignment = alignment(&metadata).ok_or_else(|| {
            damaged("general.alignment is not a power of two of a sane size".to_owned())
        })?;
        let mut tensors = tensors::read(&mut reader, tensor_count)?;
        let header_bytes = reader.position();
        let start = header_bytes.next_multiple_of(alignment);
        tensors::place(&mut tensors, start, bytes.len(), alignment, damaged)?;
        Ok(Self { file, metadata, tensors, header_bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn file(&self) -> &Mapped {
        &self.file
    }

    /// Everything before the tensor data.
    pub(crate) fn header(&self) -> &[u8] {
        &self.file.bytes()[..self.header_bytes]
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(self.path(), what)
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::unsupported(self.path(), what)
    }

    fn wrong(&self, key: &str, wanted: &str) -> CheckpointError {
        self.damaged(format!("{key} is not {wanted}"))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(span)) => std::str::from_utf8(&self.file.bytes()[span.clone()])
                .map(Some)
                .map_err(|_| self.wrong(key, "UTF-8")),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A whole number, not negative.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => {
                usize::try_from(*number).map(Some).map_err(|_| self.wrong(key, "a size"))
            }
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// As [`Gguf::size`]; also where the file says it once for every layer and always the same.
    pub(crate) fn uniform_size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        let Some(Value::Array { .. }) = self.metadata.get(key) else {
            return self.size(key);
        };
        let all = self.integers(key)?.unwrap_or_default();
        let first = all.first().copied().ok_or_else(|| self.wrong(key, "a size"))?;
        if all.iter().any(|&other| other != first) {
            return Err(self.unsupported(format!("{key} differs from layer to layer")));
        }
        usize::try_from(first).map(Some).map_err(|_| self.wrong(key, "a size"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "an f64 is rounded to f32 on purpose")]
    #[expect(clippy::cast_precision_loss, reason = "a whole number where a fraction may stand")]
    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, CheckpointError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number as f32)),
            Some(Value::Integer(number)) => Ok(Some(*number as f32)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(*number != 0)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// An id of a token.
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>, CheckpointError> {
        // Writers say −1 or the largest number for "there is none".
        match self.metadata.get(key) {
            Some(Value::Integer(number)) => {
                Ok(u32::try_from(*number).ok().filter(|&id| id != u32::MAX))
            }
            None => Ok(None),
            Some(_) => Err(self.wrong(key, "a token id")),
        }
    }

    pub(crate) fn is_array(&self, key: &str) -> bool {
        matches!(self.metadata.get(key), Some(Value::Array { .. }))
    }

    /// An array of whole numbers or truth values.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, CheckpointError> {
        self.numbers(key, |value| match value {
            Value::Integer(number) => i64::try_from(number).ok(),
            _ => None,
        })
    }

    /// An array of f32.
    #[expect(clippy::cast_possible_truncation, reason = "an f64 is rounded to f32 on purpose")]
    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, CheckpointError> {
        self.numbers(key, |value| match value {
            Value::Float(number) => Some(number as f32),
            _ => None,
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        convert: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, CheckpointError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let wrong = || self.wrong(key, "an array of numbers");
        let Value::Array { element, span, .. } = value else { return Err(wrong()) };
        let size = element.bytes().ok_or_else(wrong)?;
        self.file.bytes()[span.clone()]
            .chunks_exact(size)
            .map(|bytes| convert(value::number(*element, bytes)).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// How many texts there are in an array of texts.
    pub(crate) fn text_count(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key) {
            Some(Value::Array { element: ValueKind::Text, count, .. }) => Some(*count),
            _ => None,
        }
    }

    /// Calls `each` with the index and the bytes of every text of an array.
    pub(crate) fn each_text(
        &self,
        key: &str,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let Some(Value::Array { element: ValueKind::Text, count, span }) = self.metadata.get(key)
        else {
            return Err(self.wrong(key, "an array of texts"));
        };
        let bytes = self.file.bytes();
        let mut reader = Reader::new(self.path(), bytes, span.start);
        for index in 0..*count {
            let text = reader.span(key)?;
            each(index, &bytes[text])?;
        }
        Ok(())
    }

    /// An array of texts.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>, CheckpointError> {
        let mut all = Vec::new();
        self.each_text(key, |index, bytes| {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| self.damaged(format!("text {index} of {key} is not UTF-8")))?;
            all.push(text.to_owned());
            Ok(())
        })?;
        Ok(all)
    }
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), CheckpointError> {
    let version = reader.u32("the version")?;
    let what = match version {
        2 | 3 => return Ok(()),
        _ if matches!(version.swap_bytes(), 1..=3) => "it is big-endian".to_owned(),
        _ => format!("it is GGUF version {version}, and versions 2 and 3 are served"),
    };
    Err(CheckpointError::unsupported(reader.path(), what))
}

fn read_metadata(
    reader: &mut Reader<'_>,
    bytes: &[u8],
    count: u64,
) -> Result<HashMap<String, Value>, CheckpointError> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = reader.text("a metadata key")?;
        if key.len() > KEY_BYTES_MAX {
            return Err(reader.damaged("a metadata key is too long"));
        }
        let value = Value::read(reader, bytes)?;
        if metadata.insert(key.to_owned(), value).is_some() {
            return Err(reader.damaged(format!("metadata key {} is there twice", shown(key))));
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &HashMap<String, Value>) -> Option<usize> {
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(number)) => u64::try_from(*number).ok()?,
        Some(_) => return None,
    };
    let sane = alignment.is_power_of_two() && (ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&alignment);
    usize::try_from(alignment).ok().filter(|_| sane)
}
