//! Tensors of one or many safetensors files.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::block::BlockKind;
use crate::error::{CheckpointError, shown};
use crate::folder::json;
use crate::mapped::Mapped;
use crate::stored::Stored;

/// Which tensor is in which file, where there are several.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// More files than any model has.
const FILES_MAX: usize = 4096;
/// Length of the header, little-endian, in front of it.
const LENGTH_BYTES: usize = 8;

/// Prefixes that the decoder's tensors have: plain, and within a model that also sees.
const PREFIXES: [&str; 4] = ["model.", "language_model.model.", "model.language_model.", ""];

/// The tensor table.
#[derive(Debug)]
pub(crate) struct Tensors {
    files: Vec<Mapped>,
    /// Bytes in front of each file's tensor data.
    header_bytes: Vec<usize>,
    stored: HashMap<String, Stored>,
    /// Tensors of types that are not served, which is an error only if they are needed.
    foreign: HashMap<String, Dtype>,
    prefix: &'static str,
}

impl Tensors {
    /// Maps the files and reads their headers.
    pub(crate) fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let index = Index::read(folder)?;
        let mut tensors = Self {
            files: Vec::new(),
            header_bytes: Vec::new(),
            stored: HashMap::new(),
            foreign: HashMap::new(),
            prefix: "",
        };
        for name in index.file_names(folder)? {
            tensors.add(Mapped::open(&folder.join(&name))?, |tensor| index.is_in(tensor, &name))?;
        }
        let has_embedding =
            |prefix: &&str| tensors.stored.contains_key(&format!("{prefix}embed_tokens.weight"));
        tensors.prefix = PREFIXES.into_iter().find(has_embedding).unwrap_or(PREFIXES[0]);
        Ok(tensors)
    }

    fn add(&mut self, file: Mapped, wanted: impl Fn(&str) -> bool) -> Result<(), CheckpointError> {
        let (length, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(|error| {
            CheckpointError::damaged(file.path(), format!("{error}; was it downloaded whole?"))
        })?;
        let header = LENGTH_BYTES + length;
        for (name, info) in metadata.tensors() {
            if !wanted(&name) {
                continue;
            }
            let kind = match info.dtype {
                Dtype::F32 => BlockKind::F32,
                Dtype::F16 => BlockKind::F16,
                Dtype::BF16 => BlockKind::Bf16,
                other => {
                    self.foreign.insert(name, other);
                    continue;
                }
            };
            let (start, end) = info.data_offsets;
            let stored = Stored {
                file: self.files.len(),
                shape: info.shape.clone(),
                kind,
                bytes: header + start..header + end,
            };
            let what = format!("tensor {} is in two files", shown(&name));
            if self.stored.insert(name, stored).is_some() {
                return Err(CheckpointError::damaged(file.path(), what));
            }
        }
        self.header_bytes.push(header);
        self.files.push(file);
        Ok(())
    }

    pub(crate) fn files(&self) -> &[Mapped] {
        &self.files
    }

    /// A file's header.
    pub(crate) fn header(&self, file: usize) -> &[u8] {
        &self.files[file].bytes()[..self.header_bytes[file]]
    }

    /// What all tensors of the decoder begin with; the head may be outside.
    pub(crate) const fn prefix(&self) -> &'static str {
        self.prefix
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Stored> {
        self.stored.get(name)
    }

    /// The type of a tensor that is there and can't be read.
    pub(crate) fn foreign(&self, name: &str) -> Option<Dtype> {
        self.foreign.get(name).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().chain(self.foreign.keys()).map(String::as_str)
    }
}

/// Which file holds which tensor, where the folder says so.
struct Index(Option<HashMap<String, String>>);

impl Index {
    fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(INDEX);
        let Some(json) = json::read_optional(&path)? else { return Ok(Self(None)) };
        let damaged = |what: &str| CheckpointError::damaged(&path, what);
        let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
            return Err(damaged("it has no weight_map"));
        };
        let mut files = HashMap::new();
        for (tensor, file) in map {
            let file = file.as_str().ok_or_else(|| damaged("a file is not a text"))?;
            if !is_plain_name(file) {
                let what = format!("{} is not the name of a file beside it", shown(file));
                return Err(damaged(&what));
            }
            files.insert(tensor.clone(), file.to_owned());
        }
        Ok(Self(Some(files)))
    }

    /// The files to open, in an order that is always the same.
    fn file_names(&self, folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let names: BTreeSet<PathBuf> = match &self.0 {
            Some(map) => map.values().map(PathBuf::from).collect(),
            None if folder.join(SINGLE).exists() => BTreeSet::from([PathBuf::from(SINGLE)]),
            None => every_file(folder)?,
        };
        if names.is_empty() {
            return Err(CheckpointError::unsupported(folder, "it holds no safetensors"));
        }
        if names.len() > FILES_MAX {
            let what = format!("it holds {} safetensors files", names.len());
            return Err(CheckpointError::unsupported(folder, what));
        }
        Ok(names.into_iter().collect())
    }

    fn is_in(&self, tensor: &str, file: &Path) -> bool {
        let Some(map) = &self.0 else { return true };
        map.get(tensor).is_some_and(|name| Path::new(name) == file)
    }
}

/// A name within the folder, and of a safetensors file.
fn is_plain_name(name: &str) -> bool {
    let path = Path::new(name);
    let mut components = path.components();
    let single = matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(only)), None) if only == OsStr::new(name)
    );
    single && path.extension() == Some(OsStr::new("safetensors"))
}

fn every_file(folder: &Path) -> Result<BTreeSet<PathBuf>, CheckpointError> {
    let io = |source| CheckpointError::io(folder, source);
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let name = PathBuf::from(entry.map_err(io)?.file_name());
        if name.extension() == Some(OsStr::new("safetensors")) {
            names.insert(name);
        }
        if names.len() > FILES_MAX {
            break;
        }
    }
    Ok(names)
}
