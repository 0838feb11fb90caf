//! What a tokenizer must do whatever the vocabulary; the real ones are held against another engine's
//! ids by the root crate's tests.

use super::toy::{END_OF_TEXT, FIRST_BYTE, IM_END, IM_START, toy};
use super::*;

use checkpoint::TokenKind::{Byte, Control, Normal, Unknown, UserDefined};
use proptest::prelude::*;

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| FIRST_BYTE + u32::from(byte)).collect()
}

fn bpe(pre: &str, tokens: &[&str], merges: &[&str]) -> Result<Tokenizer, TokenizerError> {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let source = VocabularySource::Bpe {
        pre: pre.to_owned(),
        tokens: owned(tokens),
        kinds: vec![Normal; tokens.len()],
        merges: owned(merges),
    };
    Tokenizer::from_source(source, None)
}

fn pieces(space: bool) -> Tokenizer {
    let mut list = vec![
        ("<unk>", Unknown, 0.0),
        ("<s>", Control, 0.0),
        ("▁", Normal, -9.0),
        ("a", Normal, -8.0),
        ("b", Normal, -8.0),
        ("ab", Normal, -2.0),
        ("ba", Normal, -1.0),
        ("▁a", Normal, -3.0),
        ("aa", Normal, -4.0),
        ("aaa", Normal, -5.0),
        ("\n\n", UserDefined, 0.0),
        ("  ", UserDefined, 0.0),
    ];
    list.extend([("<0xC3>", Byte, 0.0), ("<0xA9>", Byte, 0.0)]);
    let source = VocabularySource::SentencePiece {
        tokens: list.iter().map(|token| token.0.to_owned()).collect(),
        scores: list.iter().map(|token| token.2).collect(),
        kinds: list.iter().map(|token| token.1).collect(),
        add_space_prefix: space,
        unknown: Some(0),
    };
    Tokenizer::from_source(source, Some(1)).unwrap()
}

#[test]
fn merges_apply_and_every_other_byte_is_itself() {
    let tokenizer = toy();
    let encode = |text| tokenizer.encode(text, Specials::Parse, false).unwrap();
    let hello = FIRST_BYTE + 256 + 3;
    assert_eq!(encode("hello"), [hello]);
    assert_eq!(encode("ohé"), bytes("ohé"));
    assert_eq!(encode("hello<|im_end|>"), [hello, IM_END]);
    assert_eq!(tokenizer.decode(&[hello, IM_END], true).unwrap(), "hello");
    assert_eq!(tokenizer.decode(&[hello, IM_END], false).unwrap(), "hello<|im_end|>");
    assert_eq!(tokenizer.token_bytes(FIRST_BYTE + 0xe9), Some(&[0xe9][..]));
}

#[test]
fn control_tokens_are_letters_where_they_are_not_parsed() {
    let tokenizer = toy();
    let encode = |text| tokenizer.encode(text, Specials::Ignore, false).unwrap();
    assert_eq!(encode("<|im_end|>"), bytes("<|im_end|>"));
    assert_eq!(encode("a<think>b"), [bytes("a"), vec![3], bytes("b")].concat());
    assert!(tokenizer.is_special(END_OF_TEXT) && tokenizer.is_special(IM_START));
    assert!(!tokenizer.is_special(3), "a token that users added is text");
}

#[test]
fn there_is_no_token_beyond_the_vocabulary() {
    let tokenizer = toy();
    let beyond = u32::try_from(tokenizer.vocabulary()).unwrap();
    assert!(tokenizer.token_bytes(beyond).is_none());
    assert!(tokenizer.is_special(beyond));
    assert!(matches!(
        tokenizer.decode(&[beyond], false),
        Err(TokenizerError::NoSuchToken(token, _)) if token == beyond
    ));
}

#[test]
fn bytes_that_a_vocabulary_lacks_are_dropped_but_keep_their_neighbours_apart() {
    let tokenizer = bpe("gpt-2", &["a", "b", "ab"], &["a b"]).unwrap();
    let encode = |text| tokenizer.encode(text, Specials::Parse, false).unwrap();
    assert_eq!(encode("ab"), [2]);
    assert_eq!(encode("a\u{4}b"), [0, 1]);
    assert!(encode("\u{4}").is_empty());
}

#[test]
fn an_unknown_pre_tokenizer_is_named_with_those_that_are_known() {
    let error = bpe("klingon", &["a"], &[]).unwrap_err().to_string();
    assert!(error.contains("`klingon`") && error.contains("smollm"), "{error}");
}

#[test]
fn damaged_vocabularies_are_refused() {
    for merge in ["a", "a c", "a b", "", " ", "a b c"] {
        assert!(bpe("gpt-2", &["a", "b"], &[merge]).is_err(), "{merge}");
    }
    let source = VocabularySource::Bpe {
        pre: "gpt-2".to_owned(),
        tokens: vec!["a".to_owned()],
        kinds: vec![],
        merges: vec![],
    };
    assert!(Tokenizer::from_source(source, None).is_err());
    let source = VocabularySource::SentencePiece {
        tokens: vec!["<0xZZ>".to_owned()],
        scores: vec![0.0],
        kinds: vec![Byte],
        add_space_prefix: false,
        unknown: None,
    };
    assert!(Tokenizer::from_source(source, None).is_err());
}

#[test]
fn pieces_merge_by_score_and_leftmost_first() {
    let tokenizer = pieces(false);
    let encode = |text| tokenizer.encode(text, Specials::Parse, false).unwrap();
    assert_eq!(encode("aba"), [3, 6], "`ba` has the better score");
    assert_eq!(encode("aaaa"), [8, 8], "equal scores: the leftmost, then the rest");
    assert_eq!(encode(" a"), [7]);
    assert_eq!(encode("a\n\nb"), [3, 10, 4]);
    assert_eq!(encode("a  b"), [3, 11, 4], "added tokens hold real spaces");
}

#[test]
fn what_is_no_piece_becomes_bytes_or_one_unknown_token() {
    let tokenizer = pieces(false);
    let encode = |text| tokenizer.encode(text, Specials::Parse, false).unwrap();
    assert_eq!(encode("é"), [12, 13]);
    assert_eq!(encode("a日本b"), [3, 0, 4]);
    assert_eq!(tokenizer.decode(&[12, 13, 7], false).unwrap(), "é a");
}

#[test]
fn a_space_is_put_before_words_where_the_vocabulary_wants_it() {
    let tokenizer = pieces(true);
    assert_eq!(tokenizer.encode("a", Specials::Parse, false).unwrap(), [7]);
    assert_eq!(tokenizer.decode(&[7], false).unwrap(), "a");
    assert_eq!(tokenizer.decode(&[4, 7], false).unwrap(), "b a");
}

#[test]
fn the_begin_token_comes_once() {
    let tokenizer = pieces(false);
    let encode = |text, begin| tokenizer.encode(text, Specials::Parse, begin).unwrap();
    assert_eq!(encode("a", true), [1, 3]);
    assert_eq!(encode("a", false), [3]);
    assert_eq!(encode("<s>a", true), [1, 3]);
    assert_eq!(encode("", true), [1]);
    assert_eq!(tokenizer.encode("<s>a", Specials::Ignore, true).unwrap(), [1, 0, 3]);
}

#[test]
fn a_tokenizer_json_gives_the_same_tokens_as_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, JSON).unwrap();
    let tokenizer = Tokenizer::from_source(VocabularySource::Json(path.clone()), Some(0)).unwrap();
    let library = tokenizers::Tokenizer::from_file(&path).unwrap();
    for text in ["a b", "b a b", "<s> a", "a<s> b a", "é", "<x> b", ""] {
        let expected = library.encode(text, false).unwrap();
        let found = tokenizer.encode(text, Specials::Parse, false).unwrap();
        assert_eq!(found, expected.get_ids(), "{text}");
    }
    assert_eq!(tokenizer.encode("a<s>", Specials::Ignore, true).unwrap()[..2], [0, 5]);
    assert_eq!(tokenizer.token_bytes(5), Some(" a".as_bytes()));
    assert_eq!(tokenizer.token_bytes(7), Some(&[0xc3][..]));
    assert_eq!(tokenizer.decode(&[0, 5, 7, 8], true).unwrap(), "aé");
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(9));
}

#[test]
fn a_tokenizer_json_that_contradicts_itself_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let hostile = JSON.replace(r#"["▁", "a"]"#, r#"["▁a", "▁a"]"#);
    for text in ["", "{", "[]", &hostile] {
        std::fs::write(&path, text).unwrap();
        let error = Tokenizer::from_source(VocabularySource::Json(path.clone()), None).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

/// `SentencePiece` as newer conversions write it: a space before the first word only.
const JSON: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
  "added_tokens": [
    {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false, "special": true},
    {"id": 9, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}
  ],
  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false},
  "decoder": {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
    "vocab": {"<s>": 0, "<unk>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5, "▁b": 6, "<0xC3>": 7, "<0xA9>": 8},
    "merges": [["▁", "a"], ["▁", "b"]]}
}"#;

proptest! {
    #[test]
    fn bytes_come_back(text in ".{0,60}") {
        let tokenizer = toy();
        for specials in [Specials::Parse, Specials::Ignore] {
            let tokens = tokenizer.encode(&text, specials, false).unwrap();
            prop_assert_eq!(&tokenizer.decode(&tokens, false).unwrap(), &text);
        }
    }

    #[test]
    fn added_tokens_are_found_as_a_search_by_hand_finds_them(
        texts in proptest::collection::vec("[ab<é]{1,4}", 0..6),
        text in "[ab<é]{0,20}",
    ) {
        let added = texts.iter().zip(0..).map(|(text, id)| Added {
            text: text.clone(), id, control: true, strips_left: false, strips_right: false,
        });
        let tokens = AddedTokens::new(added.collect());
        let found = tokens.find(&text, 0, |_, _| true).map(|(range, _)| range);
        let by_hand = (0..text.len()).filter(|&at| text.is_char_boundary(at)).find_map(|at| {
            let here = texts.iter().filter(|token| text[at..].starts_with(token.as_str()));
            here.map(String::len).max().map(|length| at..at + length)
        });
        prop_assert_eq!(found, by_hand);
        let prefix = tokens.control_prefix(&text);
        let by_hand = (1..=text.len()).rev().find(|&length| {
            let tail = &text.as_bytes()[text.len() - length..];
            texts.iter().any(|token| token.as_bytes().starts_with(tail) && token.len() > length)
        });
        prop_assert_eq!(prefix, by_hand.unwrap_or(0));
    }
}
