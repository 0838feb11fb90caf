//! What a file says about its tokens; the coordinator builds a tokenizer of it.

use std::path::PathBuf;

/// Control tokens that end an answer in the models we serve, whether or not a file says so.
pub(crate) const END_TEXTS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Texts that chat templates know as `bos_token` and `eos_token`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemplateTokens {
    /// Begins a sequence.
    pub begin: Option<String>,
    /// Ends one.
    pub end: Option<String>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Steers the model; never text.
    Control,
    /// Added to the vocabulary; matched before the rest.
    UserDefined,
    /// Takes up an id.
    Unused,
    /// One byte, `<0x41>`.
    Byte,
}

/// Where a tokenizer comes from.
#[derive(Debug, Clone)]
pub enum VocabularySource {
    /// A `tokenizer.json`.
    Json(PathBuf),
    /// Byte-level BPE of a GGUF file (`tokenizer.ggml.model` = `gpt2`).
    Bpe {
        /// Which pre-tokenizer: `smollm`, `llama-bpe`, `qwen2`, `deepseek-r1-qwen`, …
        pre: String,
        /// Token texts in byte-level alphabet, by id.
        tokens: Vec<String>,
        /// By id.
        kinds: Vec<TokenKind>,
        /// `left right`, best first.
        merges: Vec<String>,
    },
    /// `SentencePiece` of a GGUF file (`tokenizer.ggml.model` = `llama`): BPE by score.
    SentencePiece {
        /// Token texts, `▁` for a space, by id.
        tokens: Vec<String>,
        /// Higher merges first; by id.
        scores: Vec<f32>,
        /// By id.
        kinds: Vec<TokenKind>,
        /// Put a space before the text.
        add_space_prefix: bool,
        /// The unknown token.
        unknown: Option<u32>,
    },
}
