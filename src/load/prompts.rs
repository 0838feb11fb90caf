//! What is asked: made-up words of a wanted length, or the first messages of real conversations.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::config::{AskedConfig, Lengths, Prompts};
use crate::load::random::Random;

/// Words that most vocabularies have whole, so that a word is about a token.
const WORDS: &[&str] = &[
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
];
/// Longest file of conversations, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Longest that a length can be.
const LENGTH_MAX: u32 = 1 << 24;
/// Most words of a synthetic prompt.
const WORDS_MAX: f64 = 1e7;

/// Where prompts come from.
#[derive(Debug)]
pub(crate) struct PromptSource {
    kind: Kind,
    answer: Lengths,
    seed: u64,
}

#[derive(Debug)]
enum Kind {
    Synthetic { lengths: Lengths, words: WordLength },
    Conversations(Vec<String>),
}

/// What a prompt of words costs in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WordLength {
    /// Tokens around the words: the chat template.
    pub(crate) around: f64,
    /// Tokens of a word.
    pub(crate) each: f64,
}

/// A request's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The prompt.
    pub(crate) prompt: String,
    /// Most tokens of the answer.
    pub(crate) tokens_max: u32,
}

/// One entry of ShareGPT's JSON.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default, alias = "conversation")]
    conversations: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(alias = "role")]
    from: String,
    #[serde(alias = "content")]
    value: String,
}

impl PromptSource {
    /// Reads the file, if there is one. `words`: what a word costs the server.
    pub(crate) fn new(config: &AskedConfig, seed: u64, words: WordLength) -> anyhow::Result<Self> {
        let kind = match &config.prompts {
            Prompts::Synthetic(lengths) => Kind::Synthetic { lengths: *lengths, words },
            Prompts::File(path) => Kind::Conversations(conversations(path)?),
        };
        Ok(Self { kind, answer: config.answer, seed })
    }

    /// What the request of this number asks; whatever else is asked, and in whichever order.
    pub(crate) fn asked(&self, number: u64) -> Asked {
        let mut random = Random::new(self.seed, number);
        let prompt = match &self.kind {
            Kind::Synthetic { lengths, words } => {
                words.text(lengths.draw(&mut random), &mut random)
            }
            Kind::Conversations(all) => all[random.below(all.len())].clone(),
        };
        Asked { prompt, tokens_max: self.answer.draw(&mut random) }
    }
}

impl WordLength {
    /// As good as any guess: nothing was measured.
    pub(crate) const UNKNOWN: Self = Self { around: 0.0, each: 1.0 };

    /// From the tokens of two prompts of so many words.
    pub(crate) fn measured(short: (usize, u32), long: (usize, u32)) -> Self {
        let words = f64::from(u32::try_from(long.0.saturating_sub(short.0)).unwrap_or(u32::MAX));
        let each = (f64::from(long.1) - f64::from(short.1)) / words.max(1.0);
        if each <= 0.0 {
            return Self::UNKNOWN;
        }
        let of_short = each * f64::from(u32::try_from(short.0).unwrap_or(u32::MAX));
        Self { around: f64::from(short.1) - of_short, each }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded")]
    fn text(self, tokens: u32, random: &mut Random) -> String {
        let words = (f64::from(tokens) - self.around) / self.each;
        words_of(words.round().clamp(1.0, WORDS_MAX) as usize, random)
    }
}

/// So many words, each any of them.
pub(crate) fn words_of(count: usize, random: &mut Random) -> String {
    let mut text = String::with_capacity(count * 7);
    for nth in 0..count {
        if nth > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[random.below(WORDS.len())]);
    }
    text
}

impl Lengths {
    /// A length that next to none exceeds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded")]
    pub(crate) fn usual_max(self) -> u32 {
        let most = match self {
            Self::Fixed(tokens) | Self::Uniform(_, tokens) => return tokens,
            Self::Normal(mean, deviation) => mean + 4.0 * deviation,
            Self::Exponential(mean) => 8.0 * mean,
        };
        most.ceil().clamp(1.0, f64::from(LENGTH_MAX)) as u32
    }

    /// One of them, at least 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded")]
    pub(crate) fn draw(self, random: &mut Random) -> u32 {
        let drawn = match self {
            Self::Fixed(tokens) => return tokens,
            Self::Uniform(least, most) => {
                f64::from(least) + (random.unit() * f64::from(most - least + 1)).floor()
            }
            Self::Normal(mean, deviation) => mean + deviation * random.normal(),
            Self::Exponential(mean) => mean * random.exponential(),
        };
        drawn.round().clamp(1.0, f64::from(LENGTH_MAX)) as u32
    }
}

/// The first thing that a person says, in each conversation that begins with a person.
fn conversations(path: &Path) -> anyhow::Result<Vec<String>> {
    let named = || format!("--prompts: cannot read {}", path.display());
    let file = File::open(path).with_context(named)?;
    ensure!(
        file.metadata().with_context(named)?.len() <= FILE_BYTES_MAX,
        "--prompts: {} is longer than {FILE_BYTES_MAX} bytes",
        path.display()
    );
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).with_context(named)?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes)
        .with_context(|| format!("--prompts: {} is not ShareGPT's JSON", path.display()))?;
    let first = entries.into_iter().filter_map(|entry| entry.conversations.into_iter().next());
    let asked = first.filter(|message| ["human", "user"].contains(&message.from.as_str()));
    let texts: Vec<String> =
        asked.map(|message| message.value).filter(|text| !text.trim().is_empty()).collect();
    if texts.is_empty() {
        bail!("--prompts: no conversation in {} begins with a person", path.display());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prompts: Prompts) -> AskedConfig {
        AskedConfig { prompts, answer: Lengths::Uniform(2, 5), ignore_eos: false, temperature: 0.0 }
    }

    #[test]
    fn a_number_decides_what_is_asked() {
        let config = asked(Prompts::Synthetic(Lengths::Fixed(30)));
        let words = WordLength::measured((4, 14), (24, 34));
        assert_eq!(words, WordLength { around: 10.0, each: 1.0 });
        let source = PromptSource::new(&config, 3, words).unwrap();
        assert_eq!(source.asked(5), source.asked(5));
        assert_ne!(source.asked(5), source.asked(6));
        assert_eq!(source.asked(5).prompt.split(' ').count(), 20);
        assert!((0..100).all(|number| (2..=5).contains(&source.asked(number).tokens_max)));
    }

    #[test]
    fn conversations_give_what_a_person_said_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conversations.json");
        let content = r#"[
            {"id": "a", "conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "x"}]},
            {"id": "b", "conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "no"}]},
            {"id": "c", "conversations": []},
            {"id": "d", "conversations": [{"from": "human", "value": " "}]}
        ]"#;
        std::fs::write(&path, content).unwrap();
        let read = |path: &Path| {
            let config = asked(Prompts::File(path.to_path_buf()));
            PromptSource::new(&config, 1, WordLength::UNKNOWN)
        };
        assert_eq!(read(&path).unwrap().asked(0).prompt, "one");
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is not ShareGPT's JSON"));
        std::fs::write(&path, "[]").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no conversation in"));
        assert!(read(Path::new("/absent")).unwrap_err().to_string().contains("/absent"));
    }
}
