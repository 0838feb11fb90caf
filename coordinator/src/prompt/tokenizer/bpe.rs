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
        model: Model::Library(Box::new(library), u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
        added: AddedTokens::of_kinds(tokens, kinds),
        table,
        begin: None,
        space_first: None,
        space_hidden: false,
    })
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
