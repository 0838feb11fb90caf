//! What each token adds to a text, byte for byte.

use checkpoint::TokenKind;

use crate::prompt::tokenizer::TokenizerError;

/// Bytes and kind of every token, in two flat arrays.
#[derive(Debug, Default)]
pub(super) struct TokenTable {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
    /// By id.
    special: Vec<bool>,
    longest: usize,
}

impl TokenTable {
    /// Tokens in the byte-level alphabet; control tokens and added ones as they stand.
    pub(super) fn byte_level(
        tokens: &[String],
        kinds: &[TokenKind],
    ) -> Result<Self, TokenizerError> {
        let mut table = Self::sized(tokens, kinds)?;
        for (token, &kind) in tokens.iter().zip(kinds) {
            match kind {
                TokenKind::Normal | TokenKind::Byte => table.push(&byte_level(token), false),
                _ => table.push(token.as_bytes(), kind != TokenKind::UserDefined),
            }
        }
        Ok(table)
    }

    /// Tokens with `▁` for a space and `<0x41>` for a byte; control tokens and added ones as they stand.
    pub(super) fn sentencepiece(
        tokens: &[String],
        kinds: &[TokenKind],
    ) -> Result<Self, TokenizerError> {
        let mut table = Self::sized(tokens, kinds)?;
        for (token, &kind) in tokens.iter().zip(kinds) {
            match kind {
                TokenKind::Normal => table.push(token.replace('▁', " ").as_bytes(), false),
                TokenKind::Byte => {
                    let byte = byte_token(token).ok_or_else(|| {
                        TokenizerError::Damaged(format!("`{token}` is said to be a byte"))
                    })?;
                    table.push(&[byte], false);
                }
                _ => table.push(token.as_bytes(), kind != TokenKind::UserDefined),
            }
        }
        Ok(table)
    }

    /// The next token.
    pub(super) fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.special.push(special);
        self.longest = self.longest.max(bytes.len());
    }

    pub(super) fn bytes(&self, token: u32) -> Option<&[u8]> {
        let id = usize::try_from(token).ok()?;
        let end = *self.ends.get(id)?;
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        self.special.get(token as usize).copied().unwrap_or(true)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn longest(&self) -> usize {
        self.longest.max(1)
    }

    fn sized(tokens: &[String], kinds: &[TokenKind]) -> Result<Self, TokenizerError> {
        if tokens.len() != kinds.len() {
            let what = format!("{} tokens, but the kinds of {}", tokens.len(), kinds.len());
            return Err(TokenizerError::Damaged(what));
        }
        if u32::try_from(tokens.len()).is_err() {
            return Err(TokenizerError::Damaged("too many tokens".to_owned()));
        }
        Ok(Self::default())
    }
}

/// The byte that `<0x41>` stands for.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// The bytes behind a token in the byte-level alphabet; what is not of the alphabet stays as it is.
pub(super) fn byte_level(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for letter in token.chars() {
        match letter_byte(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The letter that stands for a byte: printable Latin-1 for itself, the others from U+0100 on, in order.
pub(super) fn byte_letter(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !is_printable(other)).count();
    u32::try_from(before).ok().and_then(|before| char::from_u32(0x100 + before)).unwrap_or('?')
}

fn letter_byte(letter: char) -> Option<u8> {
    if let Ok(byte) = u8::try_from(u32::from(letter)) {
        return is_printable(byte).then_some(byte);
    }
    // Bytes without a letter of their own, in the order of their stand-ins.
    let place = match u32::from(letter).checked_sub(0x100)? {
        place @ 0..=32 => place,              // 00 … 20
        place @ 33..=66 => place - 33 + 0x7f, // 7f … a0
        67 => 0xad,
        _ => return None,
    };
    u8::try_from(place).ok()
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}
