//! Tokens of an answer as clients are told of them, where they asked how likely each was.

use crate::api::openai::{ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob, TopLogprobs};
use crate::cluster::Likelihood;
use crate::prompt::Tokenizer;

/// A token, where its text begins, and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spoken {
    bytes: Vec<u8>,
    /// Characters before it, the echo counted.
    offset: usize,
    /// None: nothing comes before it.
    logprob: Option<f32>,
    /// The likeliest there.
    likeliest: Vec<(Vec<u8>, f32)>,
}

impl Spoken {
    pub(super) fn new(
        token: u32,
        offset: usize,
        likelihood: Option<&Likelihood>,
        tokenizer: &Tokenizer,
    ) -> Self {
        let bytes = |token| tokenizer.token_bytes(token).unwrap_or_default().to_vec();
        let likeliest = likelihood.map_or(&[][..], |it| &it.likeliest);
        Self {
            bytes: bytes(token),
            offset,
            logprob: likelihood.map(|it| it.logprob),
            likeliest: likeliest
                .iter()
                .map(|(token, logprob)| (bytes(token.0), *logprob))
                .collect(),
        }
    }
}

/// As a chat's choice has it.
pub(super) fn of_chat(spoken: &[Spoken]) -> ChatLogprobs {
    let content = spoken.iter().filter_map(|spoken| {
        let likeliest = spoken.likeliest.iter().map(|(bytes, logprob)| TopLogprob {
            token: name(bytes),
            logprob: *logprob,
            bytes: bytes.clone(),
        });
        Some(TokenLogprob {
            token: name(&spoken.bytes),
            logprob: spoken.logprob?,
            bytes: spoken.bytes.clone(),
            top_logprobs: likeliest.collect(),
        })
    });
    ChatLogprobs { content: content.collect(), refusal: None }
}

/// As a completion's choice has it.
pub(super) fn of_text(spoken: &[Spoken]) -> TextLogprobs {
    TextLogprobs {
        tokens: spoken.iter().map(|spoken| name(&spoken.bytes)).collect(),
        token_logprobs: spoken.iter().map(|spoken| spoken.logprob).collect(),
        top_logprobs: spoken.iter().map(top).collect(),
        text_offset: spoken.iter().map(|spoken| spoken.offset).collect(),
    }
}

/// The token itself is always among them, once.
fn top(spoken: &Spoken) -> Option<TopLogprobs> {
    let own = (spoken.bytes.as_slice(), spoken.logprob?);
    let mut top: Vec<(String, f32)> = vec![];
    let likeliest = spoken.likeliest.iter().map(|(bytes, logprob)| (bytes.as_slice(), *logprob));
    for (bytes, logprob) in likeliest.chain([own]) {
        let name = name(bytes);
        if !top.iter().any(|(known, _)| *known == name) {
            top.push((name, logprob));
        }
    }
    Some(TopLogprobs(top))
}

/// A token's text; where it is part of a character, its bytes.
fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(bytes: &[u8], logprob: Option<f32>, likeliest: &[(&[u8], f32)]) -> Spoken {
        let likeliest = likeliest.iter().map(|(bytes, logprob)| (bytes.to_vec(), *logprob));
        Spoken { bytes: bytes.to_vec(), offset: 3, logprob, likeliest: likeliest.collect() }
    }

    #[test]
    fn the_token_itself_is_among_the_likeliest_once() {
        let inside = spoken(b"a", Some(-1.0), &[(b"a", -1.0), (b"b", -2.0)]);
        assert_eq!(top(&inside).unwrap().0, [("a".to_owned(), -1.0), ("b".to_owned(), -2.0)]);
        let outside = spoken(b"c", Some(-3.0), &[(b"a", -1.0)]);
        assert_eq!(top(&outside).unwrap().0, [("a".to_owned(), -1.0), ("c".to_owned(), -3.0)]);
        assert_eq!(top(&spoken(b"c", None, &[])), None);
    }

    #[test]
    fn a_part_of_a_character_is_named_by_its_bytes() {
        assert_eq!(name("é".as_bytes()), "é");
        assert_eq!(name(&[0xc3]), "bytes:\\xc3");
        let told = of_text(&[spoken(&[0xe2, 0x82], Some(-0.5), &[])]);
        assert_eq!(told.tokens, ["bytes:\\xe2\\x82"]);
        assert_eq!((told.token_logprobs, told.text_offset), (vec![Some(-0.5)], vec![3]));
    }
}
