//! Where to look, where to keep, how long to wait.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where to look for models, and where to keep them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the models that came from the package index.
    pub cache: PathBuf,
    /// The package index: the address under which each project has a page.
    pub index: String,
    /// The Hugging Face hub.
    pub hub: HubSettings,
    /// How long to wait, how often to try.
    pub patience: Patience,
}

impl Settings {
    /// The public package index.
    pub const INDEX: &str = "https://pypi.org/simple";
}

/// Where the Hugging Face hub is, and where its files are kept.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Folder in the hub's own layout, shared with other tools.
    pub cache: PathBuf,
    /// Address of the hub.
    pub endpoint: String,
    /// Opens private and gated repositories.
    pub token: Option<Secret>,
    /// Never use the network for a repository.
    pub offline: bool,
}

impl HubSettings {
    /// The public hub.
    pub const ENDPOINT: &str = "https://huggingface.co";
}

/// How long to wait, and how often to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one file, while nothing more of it comes.
    pub tries_max: u32,
    /// Pause after the first failure; doubled after each.
    pub pause: Duration,
    /// Longest time to find and reach a server.
    pub connect_max: Duration,
    /// Longest silence of a server that was reached.
    pub silence_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries_max: 5,
            pause: Duration::from_millis(500),
            connect_max: Duration::from_secs(10),
            silence_max: Duration::from_secs(30),
        }
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}
