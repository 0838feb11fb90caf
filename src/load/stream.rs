//! An answer as it streams: events out of bytes, and when each piece of text came.

use bytes::Bytes;
use serde::Deserialize;

/// Longest event, in bytes.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Bytes that are not an event yet.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    /// Where the search for the end of the next event goes on.
    searched: usize,
}

/// What a chunk says, as far as it matters here.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    /// It has text.
    pub(crate) text: bool,
    /// Why the answer ended, if it has.
    pub(crate) finish: Option<String>,
    /// Tokens of prompt and answer, if it tells.
    pub(crate) usage: Option<(u32, u32)>,
    /// The server gave up.
    pub(crate) error: Option<String>,
    /// Nothing follows.
    pub(crate) done: bool,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

impl Events {
    /// Takes in what came; gives each chunk that is complete.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<Vec<Chunk>, String> {
        self.buffer.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        let mut chunks = Vec::new();
        while let Some(at) = self.buffer[self.searched..].windows(2).position(|two| two == b"\n\n")
        {
            let end = self.searched + at + 2;
            let event: Vec<u8> = self.buffer.drain(..end).collect();
            self.searched = 0;
            if let Some(chunk) = chunk(&event)? {
                chunks.push(chunk);
            }
        }
        self.searched = self.buffer.len().saturating_sub(1);
        if self.buffer.len() > EVENT_BYTES_MAX {
            return Err(format!("an event is longer than {EVENT_BYTES_MAX} bytes"));
        }
        Ok(chunks)
    }
}

fn chunk(event: &[u8]) -> Result<Option<Chunk>, String> {
    let text = std::str::from_utf8(event).map_err(|_| "an event is not UTF-8".to_owned())?;
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let data = data.join("\n");
    match data.trim() {
        "" => Ok(None),
        "[DONE]" => Ok(Some(Chunk { done: true, ..Chunk::default() })),
        json => read(json).map(Some),
    }
}

fn read(json: &str) -> Result<Chunk, String> {
    let wire: Wire = serde_json::from_str(json)
        .map_err(|error| format!("an event is not a chunk of an answer: {error}"))?;
    let error = wire.error.filter(|error| !error.is_null()).map(|error| {
        let message = error.get("message").and_then(|message| message.as_str());
        message.map_or_else(|| error.to_string(), str::to_owned)
    });
    let usage = wire.usage.map(|usage| (usage.prompt_tokens, usage.completion_tokens));
    let filled = |text: Option<String>| text.is_some_and(|text| !text.is_empty());
    let mut chunk = Chunk { usage, error, ..Chunk::default() };
    for choice in wire.choices {
        chunk.text |= filled(choice.text);
        if let Some(delta) = choice.delta {
            chunk.text |= filled(delta.content) || filled(delta.reasoning_content);
        }
        chunk.finish = choice.finish_reason.or(chunk.finish);
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, piece: usize) -> Vec<Chunk> {
        let mut events = Events::default();
        let pieces = text.as_bytes().chunks(piece);
        pieces.flat_map(|bytes| events.take(&Bytes::copy_from_slice(bytes)).unwrap()).collect()
    }

    #[test]
    fn chunks_are_the_same_however_the_bytes_come() {
        let text = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n\
            : waiting\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"hé\"}}],\"usage\":null}\n\n\
            data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n\
            data: [DONE]\n\n";
        let found = all(text, 1000);
        assert_eq!(found.len(), 5);
        assert!(!found[0].text && found[1].text);
        assert_eq!(found[2].finish.as_deref(), Some("stop"));
        assert_eq!(found[3].usage, Some((3, 2)));
        assert!(found[4].done);
        for piece in 1..20 {
            assert_eq!(all(text, piece), found);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let take = |text: &str| Events::default().take(&Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(
            take("data: {\"error\":{\"message\":\"lost\"}}\n\n").unwrap()[0].error.as_deref(),
            Some("lost")
        );
        assert!(take("data: x\n\n").unwrap_err().contains("not a chunk"));
        assert!(take(&"x".repeat(EVENT_BYTES_MAX + 1)).unwrap_err().contains("longer than"));
    }
}
