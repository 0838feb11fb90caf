//! Keeps what users write from steering the model.
//!
//! A conversation is rendered by the model's own template into one text, and control tokens such as
//! `<|im_end|>` are then found in it. Those that the template wrote must be found; the same letters
//! in a message must not. So before rendering, a mark (a character that occurs nowhere in the
//! conversation) is put inside every control token's text that a message contains. Whatever the
//! template does with the message (trims it, cuts it, moves it), the mark goes along. After
//! rendering the marks are taken out again and their places remembered: a control token is accepted
//! only where none lies inside of it.
//!
//! What a template sees of such a message is therefore longer by the marks, and a template that
//! looks for control tokens in messages does not find them. Tokens that are not control tokens, such
//! as `<think>` of many models, are left alone.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;

use crate::prompt::tokenizer::Tokenizer;

/// A rendered conversation, and where in it control tokens are only letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Byte offsets of marks that were taken out, ascending.
    marks: Vec<usize>,
}

impl Rendered {
    /// The text, marks taken out.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A mark lay inside of this range.
    pub(crate) fn is_guarded(&self, range: Range<usize>) -> bool {
        let after = self.marks.partition_point(|&mark| mark <= range.start);
        self.marks.get(after).is_some_and(|&mark| mark < range.end)
    }
}

/// The mark of one rendering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard {
    mark: char,
}

impl Guard {
    /// Chooses a mark that occurs in none of these. None: somebody used every candidate up.
    pub(crate) fn new<'a>(texts: impl Iterator<Item = &'a Value>, template: &str) -> Option<Self> {
        let mut used: HashSet<char> = template.chars().filter(|&c| is_candidate(c)).collect();
        for value in texts {
            collect(value, &mut used);
        }
        // Noncharacters first: no text is meant to hold one.
        let mark = ('\u{fdd0}'..='\u{fdef}')
            .chain('\u{f0000}'..='\u{ffffd}')
            .find(|candidate| !used.contains(candidate))?;
        Some(Self { mark })
    }

    /// Marks every control token in the strings of a value.
    pub(crate) fn apply(self, value: &mut Value, tokenizer: &Tokenizer) {
        match value {
            Value::String(text) => {
                if let Some(marked) = self.marked(text, tokenizer) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item, tokenizer)),
            Value::Object(fields) => {
                let entries = std::mem::take(fields);
                for (key, mut field) in entries {
                    self.apply(&mut field, tokenizer);
                    fields.insert(self.marked(&key, tokenizer).unwrap_or(key), field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Takes the marks out.
    pub(crate) fn finish(self, rendered: &str) -> Rendered {
        let mut text = String::with_capacity(rendered.len());
        let mut marks = Vec::new();
        for (place, part) in rendered.split(self.mark).enumerate() {
            if place > 0 {
                marks.push(text.len());
            }
            text.push_str(part);
        }
        Rendered { text, marks }
    }

    /// With marks; none: it needs none.
    fn marked(self, text: &str, tokenizer: &Tokenizer) -> Option<String> {
        let mut places: Vec<usize> = tokenizer
            .control_ranges(text)
            .into_iter()
            .map(|range| after_first(text, range.start))
            .collect();
        // What follows may complete a control token that begins at the end of this text.
        let prefix = tokenizer.control_prefix(text);
        if prefix > 0 {
            places.push(after_first(text, text.len() - prefix));
        }
        if places.is_empty() {
            return None;
        }
        let mut marked = String::with_capacity(text.len() + 4 * places.len());
        let mut from = 0;
        for place in places {
            if place < from {
                continue;
            }
            marked.push_str(&text[from..place]);
            marked.push(self.mark);
            from = place;
        }
        marked.push_str(&text[from..]);
        Some(marked)
    }
}

/// Past the character that begins at `start`.
fn after_first(text: &str, start: usize) -> usize {
    start + text[start..].chars().next().map_or(0, char::len_utf8)
}

/// The character may be a mark.
pub(crate) fn is_candidate(letter: char) -> bool {
    matches!(letter, '\u{fdd0}'..='\u{fdef}' | '\u{f0000}'..='\u{ffffd}')
}

fn collect(value: &Value, used: &mut HashSet<char>) {
    match value {
        Value::String(text) => used.extend(text.chars().filter(|&c| is_candidate(c))),
        Value::Array(items) => items.iter().for_each(|item| collect(item, used)),
        Value::Object(fields) => {
            for (key, field) in fields {
                used.extend(key.chars().filter(|&c| is_candidate(c)));
                collect(field, used);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
