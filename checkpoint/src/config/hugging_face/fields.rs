//! Typed access to a JSON object, with errors that name the field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::CheckpointError;

/// An object of a `config.json`. A field that is null counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Self { path, map }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::damaged(self.path, what)
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> CheckpointError {
        CheckpointError::unsupported(self.path, what)
    }

    /// Whether the field is there, null or not.
    pub(crate) fn says(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.damaged(format!("{key} is not {what}")))
    }

    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.typed(key, "a size", |value| {
            value.as_u64().and_then(|size| usize::try_from(size).ok())
        })
    }

    pub(crate) fn double(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(crate) fn array(&self, key: &str) -> Result<Option<&'a [Value]>, CheckpointError> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, CheckpointError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self::new(self.path, map)))
    }

    pub(crate) fn need_size(&self, key: &str) -> Result<usize, CheckpointError> {
        self.size(key)?.ok_or_else(|| self.damaged(format!("{key} is missing")))
    }

    pub(crate) fn need_double(&self, key: &str) -> Result<f64, CheckpointError> {
        self.double(key)?.ok_or_else(|| self.damaged(format!("{key} is missing")))
    }
}
