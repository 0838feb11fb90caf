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
pub(crate) struct Figures {
    json: Option<JsonOutput>,
    file: Option<File>,
}

impl Figures {
    /// Opens the file, if one is asked for: that it cannot be written is better known before minutes of
    /// measuring.
    pub(crate) fn to(json: Option<JsonOutput>) -> anyhow::Result<Self> {
        let file = match &json {
            Some(JsonOutput::File(path)) => Some(create(path, "--json")?),
            Some(JsonOutput::Standard) | None => None,
        };
        Ok(Self { json, file })
    }

    /// Says `text`, on standard error where standard output is for the figures.
    pub(crate) fn say(self, figures: &impl Serialize, text: &str) -> anyhow::Result<()> {
        let written = serde_json::to_string_pretty(figures)?;
        if self.json == Some(JsonOutput::Standard) {
            terminal::remark(text);
            terminal::say(&written)?;
        } else {
            terminal::say(text)?;
        }
        if let Some(mut file) = self.file {
            writeln!(file, "{written}").context("--json: the file cannot be written")?;
        }
        Ok(())
    }
}

/// Makes the file that `flag` names.
pub(crate) fn create(path: &Path, flag: &str) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("{flag}: cannot write {}", path.display()))
}
