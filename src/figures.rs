//! What was measured, for people and for scripts.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::config::JsonOutput;
use crate::terminal;

/// Where figures go as JSON, beside what people read.
#[derive(Debug)]
pub(crate) enum Figures {
    Nowhere,
    Standard,
    File(File),
}

impl Figures {
    /// Opens the file, if one is asked for: that it cannot be written is better known before minutes of
    /// measuring.
    pub(crate) fn to(json: Option<JsonOutput>) -> anyhow::Result<Self> {
        Ok(match json {
            None => Self::Nowhere,
            Some(JsonOutput::Standard) => Self::Standard,
            Some(JsonOutput::File(path)) => Self::File(create(&path, "--json")?),
        })
    }

    /// Says `text`, on standard error where standard output is for the figures.
    pub(crate) fn say(self, figures: &impl Serialize, text: &str) -> anyhow::Result<()> {
        let written = serde_json::to_string_pretty(figures)?;
        match self {
            Self::Nowhere => terminal::say(text)?,
            Self::Standard => {
                terminal::remark(text);
                terminal::say(&written)?;
            }
            Self::File(mut file) => {
                terminal::say(text)?;
                writeln!(file, "{written}").context("--json: the file cannot be written")?;
            }
        }
        Ok(())
    }
}

/// Makes the file that `flag` names.
pub(crate) fn create(path: &Path, flag: &str) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("{flag}: cannot write {}", path.display()))
}
