//! A `tokenizer.json`, by the library that defined the format.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use crate::prompt::tokenizer::added::{Added, AddedTokens};
use crate::prompt::tokenizer::table::{TokenTable, byte_level, byte_token};
use crate::prompt::tokenizer::{Model, Tokenizer, TokenizerError};

/// Bytes of the largest file that is read; those of the large vocabularies have about 40 million.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Largest id: a table of this many is made.
const TOKENS_MAX: u32 = 1 << 22;

/// How the tokens of a vocabulary spell bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    ByteLevel,
    SentencePiece,
    Plain,
}

/// Opens a `tokenizer.json`.
pub(super) fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let failed = |what: String| TokenizerError::Json { path: path.display().to_string(), what };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!("it has {size} bytes, more than {FILE_BYTES_MAX}")));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    // The library indexes by what the file says: a hostile one would end the process.
    let parsed = catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(&bytes)))
        .map_err(|_| failed("it contradicts itself".to_owned()))?;
    let mut library = parsed.map_err(|error| failed(error.to_string()))?;
    let plain = |error: Box<dyn std::error::Error + Send + Sync>| error.to_string();
    library.with_truncation(None).map_err(plain).map_err(failed)?;
    library.with_padding(None);
    library.set_encode_special_tokens(true);
    let space_first = take_first_space(&mut library).then(|| added_tokens(&library, false));
    let table = table(&library).map_err(failed)?;
    Ok(Tokenizer {
        added: added_tokens(&library, true),
        table,
        begin: None,
        space_first,
        space_hidden: hides_space(library.get_decoder()),
        model: Model::Json(Box::new(library)),
    })
}

/// "A space before the first word, and only there" is ours to do: the library sees pieces of a text.
fn take_first_space(library: &mut tokenizers::Tokenizer) -> bool {
    let Some(mut pre_tokenizer) = library.get_pre_tokenizer().cloned() else { return false };
    let is_first = |space: &mut Metaspace| {
        let first = space.get_prepend_scheme() == PrependScheme::First;
        if first {
            space.set_prepend_scheme(PrependScheme::Never);
        }
        first
    };
    let first = match &mut pre_tokenizer {
        PreTokenizerWrapper::Metaspace(space) => is_first(space),
        PreTokenizerWrapper::Sequence(steps) => steps.as_mut().iter_mut().any(|step| match step {
            PreTokenizerWrapper::Metaspace(space) => is_first(space),
            _ => false,
        }),
        _ => false,
    };
    if first {
        library.with_pre_tokenizer(Some(pre_tokenizer));
    }
    first
}

fn added_tokens(library: &tokenizers::Tokenizer, control: bool) -> AddedTokens {
    let added = library.get_added_tokens_decoder().into_iter();
    let chosen = added.filter(|(_, token)| token.special == control).map(|(id, token)| Added {
        text: token.content,
        id,
        control,
        strips_left: token.lstrip,
        strips_right: token.rstrip,
    });
    AddedTokens::new(chosen.collect())
}

fn table(library: &tokenizers::Tokenizer) -> Result<TokenTable, String> {
    let spelling = spelling(library.get_decoder());
    let added = library.get_added_tokens_decoder();
    let vocabulary = library.get_vocab(true);
    let count = vocabulary.values().max().map_or(0, |&id| id.saturating_add(1));
    if count > TOKENS_MAX {
        return Err(format!("it has a token with the id {}", count - 1));
    }
    let mut texts = vec![None; count as usize];
    for (text, id) in vocabulary {
        texts[id as usize] = Some(text);
    }
    let mut table = TokenTable::default();
    for (text, id) in texts.into_iter().zip(0..) {
        match (added.get(&id), text) {
            (Some(token), _) => table.push(token.content.as_bytes(), token.special),
            (None, None) => table.push(&[], true),
            (None, Some(text)) => table.push(&spell(&text, spelling), false),
        }
    }
    Ok(table)
}

fn spell(text: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => byte_level(text),
        Spelling::SentencePiece => {
            byte_token(text).map_or_else(|| text.replace('▁', " ").into_bytes(), |byte| vec![byte])
        }
        Spelling::Plain => text.as_bytes().to_vec(),
    }
}

fn spelling(decoder: Option<&DecoderWrapper>) -> Spelling {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => Spelling::ByteLevel,
        Some(
            DecoderWrapper::Metaspace(_)
            | DecoderWrapper::ByteFallback(_)
            | DecoderWrapper::Replace(_),
        ) => Spelling::SentencePiece,
        Some(DecoderWrapper::Sequence(steps)) => steps
            .get_decoders()
            .iter()
            .map(|step| spelling(Some(step)))
            .find(|&spelling| spelling != Spelling::Plain)
            .unwrap_or(Spelling::Plain),
        _ => Spelling::Plain,
    }
}

/// The decoder takes a first space away again.
fn hides_space(decoder: Option<&DecoderWrapper>) -> bool {
    match decoder {
        Some(DecoderWrapper::Metaspace(space)) => {
            space.get_prepend_scheme() != PrependScheme::Never
        }
        Some(DecoderWrapper::Strip(strip)) => strip.content == ' ' && strip.start > 0,
        Some(DecoderWrapper::Sequence(steps)) => {
            steps.get_decoders().iter().any(|step| hides_space(Some(step)))
        }
        _ => false,
    }
}
