//! Byte-level BPE of GGUF files: which pre-tokenizer cuts a text up before pairs are merged.

use std::collections::HashSet;

use checkpoint::TokenKind;
use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use crate::prompt::tokenizer::added::AddedTokens;
use crate::prompt::tokenizer::table::{TokenTable, byte_letter};
use crate::prompt::tokenizer::{Model, Tokenizer, TokenizerError};

/// Words that the cache of the library may hold for each thread.
const CACHE_WORDS_MAX: usize = 4096;

/// How texts are cut up: each expression cuts what the one before left, and what lies between two
/// matches is a piece as well.
struct PreTokenizer {
    /// What GGUF files call it.
    names: &'static [&'static str],
    expressions: &'static [&'static str],
    /// A piece that is a token already is not merged.
    whole_tokens: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// The pre-tokenizers that are known, by the names that the tools which write GGUF files gave them.
const KNOWN: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["gpt-2", "phi-2", "gigachat", "mellum", "mpt", "olmo", "jais", "trillion"],
        expressions: &[GPT2],
        whole_tokens: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        expressions: &[r"\p{N}", GPT2],
        whole_tokens: false,
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        expressions: &[LLAMA3],
        whole_tokens: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        expressions: &[LLAMA3],
        whole_tokens: false,
    },
    PreTokenizer { names: &["glm4"], expressions: &[LLAMA3], whole_tokens: true },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        expressions: &[QWEN2],
        whole_tokens: false,
    },
    PreTokenizer { names: &["qwen35"], expressions: &[QWEN35], whole_tokens: false },
    PreTokenizer { names: &["tekken"], expressions: &[TEKKEN], whole_tokens: true },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2"],
        expressions: &[GPT4O],
        whole_tokens: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense"],
        expressions: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        whole_tokens: false,
    },
    PreTokenizer {
        names: &["falcon"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        whole_tokens: false,
    },
    PreTokenizer {
        names: &["default"],
        expressions: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_tokens: false,
    },
];

/// A tokenizer of a GGUF file's lists.
pub(super) fn build(
    pre: &str,
    tokens: &[String],
    kinds: &[TokenKind],
    merges: &[String],
) -> Result<Tokenizer, TokenizerError> {
    let known = find(pre)?;
    let table = TokenTable::byte_level(tokens, kinds)?;
    let mut library = tokenizers::Tokenizer::new(model(tokens, merges, known.whole_tokens)?);
    library.with_pre_tokenizer(Some(pre_tokenizer(known)?));
    Ok(Tokenizer {
        // Counted by the table, which refuses more than fit.
        model: Model::Bpe(Box::new(library), u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
        added: AddedTokens::of_kinds(tokens, kinds),
        table,
        begin: None,
        space_first: None,
        space_hidden: false,
    })
}

/// Cuts a text into pieces of `least` bytes or a little more, at places where all of the known
/// pre-tokenizers cut as well: after a letter, before something that cannot go on with it. A text
/// that has no such place for sixteen pieces is cut all the same.
pub(super) fn cut(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let most = boundary(rest, least.saturating_mul(16));
        let from = boundary(rest, least);
        let mut letters = rest[from..most].char_indices();
        let mut before = ' ';
        let place = letters.find_map(|(at, letter)| {
            let splits = is_letter(before) && ends_word(letter);
            before = letter;
            splits.then_some(from + at)
        });
        let (piece, after) = rest.split_at(place.unwrap_or(most));
        rest = after;
        Some(piece)
    })
}

/// The last place up to `most` where a character ends.
fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Surely a letter (many characters that Unicode calls alphabetic are marks): the common scripts.
fn is_letter(letter: char) -> bool {
    matches!(letter,
        'A'..='Z' | 'a'..='z' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ž' | 'Α'..='Ρ' | 'Σ'..='Ϋ' | 'ά'..='ώ'
        | 'А'..='я' | 'א'..='ת' | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='鿿' | '가'..='힣')
}

/// No word and no contraction goes on with this.
fn ends_word(letter: char) -> bool {
    letter.is_ascii() && !letter.is_ascii_alphabetic() && letter != '\''
        || matches!(letter, '。' | '，' | '、' | '！' | '？' | '；' | '：')
}

fn find(pre: &str) -> Result<&'static PreTokenizer, TokenizerError> {
    KNOWN.iter().find(|known| known.names.contains(&pre)).ok_or_else(|| {
        let names: Vec<&str> = KNOWN.iter().flat_map(|known| known.names).copied().collect();
        TokenizerError::UnknownPreTokenizer { pre: pre.to_owned(), known: names.join(", ") }
    })
}

/// Merges, checked: the library takes them on trust.
fn model(tokens: &[String], merges: &[String], whole_tokens: bool) -> Result<BPE, TokenizerError> {
    let texts: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut pairs: Merges = Vec::with_capacity(merges.len());
    for merge in merges {
        let damaged = || TokenizerError::Damaged(format!("`{merge}` merges what are no tokens"));
        let (left, right) = merge.split_once(' ').ok_or_else(damaged)?;
        let whole = format!("{left}{right}");
        if ![left, right, &whole].iter().all(|text| texts.contains(text)) {
            return Err(damaged());
        }
        pairs.push((left.to_owned(), right.to_owned()));
    }
    let mut vocabulary = Vocab::default();
    vocabulary.extend(tokens.iter().cloned().zip(0..));
    // Some vocabularies lack the symbols of bytes that were never seen. Such a byte gets a stand-in
    // beyond the vocabulary, so that it keeps its neighbours apart until it is dropped.
    let mut stand_in = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    for byte in 0..=u8::MAX {
        let letter = byte_letter(byte).to_string();
        if !texts.contains(letter.as_str()) {
            vocabulary.insert(letter, stand_in);
            stand_in = stand_in.saturating_add(1);
        }
    }
    BPE::builder()
        .vocab_and_merges(vocabulary, pairs)
        .ignore_merges(whole_tokens)
        .cache_capacity(CACHE_WORDS_MAX)
        .build()
        .map_err(|error| TokenizerError::Damaged(error.to_string()))
}

fn pre_tokenizer(known: &PreTokenizer) -> Result<PreTokenizerWrapper, TokenizerError> {
    let mut steps = Vec::new();
    for expression in known.expressions {
        let pattern = SplitPattern::Regex((*expression).to_owned());
        let split = Split::new(pattern, Isolated, false)
            .map_err(|error| TokenizerError::Text(error.to_string()))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    /// All that are known: making them takes long.
    static MADE: LazyLock<Vec<PreTokenizerWrapper>> =
        LazyLock::new(|| KNOWN.iter().map(|known| pre_tokenizer(known).unwrap()).collect());

    fn words(pre_tokenizer: &PreTokenizerWrapper, text: &str) -> Vec<String> {
        let mut cut_up = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut cut_up).unwrap();
        let splits = cut_up.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
    }

    #[test]
    fn a_name_is_known_once() {
        let names: Vec<_> = KNOWN.iter().flat_map(|known| known.names).collect();
        let distinct: HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn a_text_without_a_place_to_cut_is_cut_all_the_same() {
        let text = "é".repeat(100);
        let pieces: Vec<&str> = cut(&text, 3).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.len() <= 48));
        assert_eq!(cut("", 3).count(), 0);
        assert_eq!(cut("日本", 1).collect::<Vec<_>>(), ["日本"]);
    }

    proptest! {
        #[test]
        fn cutting_a_text_up_first_changes_no_word(
            text in "([a-zA-Zé'’ \n\r\t.,!?0-9日本。，_+<>-]|\\PC| 's|'LL|\\p{M}){0,60}",
            least in 1_usize..8,
        ) {
            // A cut that there is no good place for is another matter.
            if cut(&text, least).any(|piece| piece.len() >= least * 12) {
                return Ok(());
            }
            for (known, made) in KNOWN.iter().zip(MADE.iter()) {
                let pieces: Vec<String> =
                    cut(&text, least).flat_map(|piece| words(made, piece)).collect();
                prop_assert_eq!(pieces, words(made, &text), "{:?}", known.names);
            }
        }
    }
}
