//! An answer's text as it grows: whole characters only, nothing of a stop string.

/// Strings at which an answer ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopStrings {
    /// None is empty.
    strings: Vec<String>,
    /// The string itself is part of the answer.
    included: bool,
}

/// The text of one sequence.
///
/// Whatever the pieces in which the bytes come, the text is the same: the bytes as UTF-8, with U+FFFD
/// for what certainly is not, up to the stop string that is complete first (of several that end
/// there, the longest). A character that the answer's end cuts in two is left out.
#[derive(Debug)]
pub(crate) struct AnswerText {
    stop: StopStrings,
    /// Bytes that may be the beginning of a character: at most three.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Empty strings are left out: they would end every answer at once.
    pub(crate) fn new(mut strings: Vec<String>, included: bool) -> Self {
        strings.retain(|string| !string.is_empty());
        Self { strings, included }
    }

    /// The match that is complete first: where it begins and ends.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        self.strings
            .iter()
            .filter_map(|string| text.find(string).map(|start| (start, start + string.len())))
            .min_by_key(|&(start, end)| (end, start))
    }

    /// Bytes at the end of `text` that a stop string may begin with.
    fn held_back(&self, text: &str) -> usize {
        let begins = |string: &String| {
            let longest = (string.len() - 1).min(text.len());
            (1..=longest)
                .rev()
                .find(|&length| text.as_bytes().ends_with(&string.as_bytes()[..length]))
        };
        self.strings.iter().filter_map(begins).max().unwrap_or(0)
    }
}

impl AnswerText {
    pub(crate) fn new(stop: StopStrings) -> Self {
        Self { stop, bytes: Vec::new(), held: String::new(), stopped: false }
    }

    /// Adds a token's bytes and gives the text that is certain now. After a stop string, nothing.
    /// With `stoppable` false, no stop string that ends here counts.
    pub(crate) fn push(&mut self, bytes: &[u8], stoppable: bool) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if !stoppable {
            return std::mem::take(&mut self.held);
        }
        if let Some((start, end)) = self.stop.find(&self.held) {
            self.stopped = true;
            self.held.truncate(if self.stop.included { end } else { start });
            return std::mem::take(&mut self.held);
        }
        let keep = self.held.len() - self.stop.held_back(&self.held);
        let kept = self.held.split_off(keep);
        std::mem::replace(&mut self.held, kept)
    }

    /// The answer is over: what was held back.
    pub(crate) fn finish(&mut self) -> String {
        self.bytes.clear();
        std::mem::take(&mut self.held)
    }

    /// Characters of the text that is held back.
    pub(crate) fn held_characters(&self) -> usize {
        self.held.chars().count()
    }

    /// A stop string was found.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Moves whole characters, and U+FFFD for what cannot become one, from the bytes to the text.
    fn take_characters(&mut self) {
        let mut rest = self.bytes.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        rest = bad;
                        break;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    rest = &bad[length..];
                }
            }
        }
        let taken = self.bytes.len() - rest.len();
        self.bytes.drain(..taken);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(pieces: &[&[u8]], stop: &StopStrings) -> (String, bool) {
        let mut answer = AnswerText::new(stop.clone());
        let mut text: String = pieces.iter().map(|piece| answer.push(piece, true)).collect();
        text.push_str(&answer.finish());
        (text, answer.is_stopped())
    }

    fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    const REPLACED: &str = "\u{fffd}";

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(|&string| string.to_owned()).collect(), false)
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut answer = AnswerText::new(StopStrings::default());
        assert_eq!(answer.push(&[0xf0, 0x9f], true), "");
        assert_eq!(answer.push(&[0x8e], true), "");
        assert_eq!(answer.push(&[0x89, b'!'], true), "🎉!");
        assert_eq!(answer.push(&[0xe2, 0x82], true), "");
        assert_eq!(answer.finish(), "", "a character cut off by the end is left out");
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_once_that_is_certain() {
        let mut answer = AnswerText::new(StopStrings::default());
        assert_eq!(answer.push(&[0xe2, 0x82], true), "");
        assert_eq!(answer.push(b"x", true), "\u{fffd}x");
        assert_eq!(answer.push(&[0xff], true), "\u{fffd}");
    }

    #[test]
    fn a_stop_string_across_tokens_is_never_shown() {
        let mut answer = AnswerText::new(stops(&["\nUser:"]));
        assert_eq!(answer.push(b"fine\n", true), "fine");
        assert_eq!(answer.push(b"Us", true), "");
        assert_eq!(answer.push(b"ed", true), "\nUsed");
        assert_eq!(answer.push(b"\nUser", true), "");
        assert_eq!(answer.push(b": hello", true), "");
        assert!(answer.is_stopped());
        assert_eq!(answer.push(b"more", true), "");
        assert_eq!(answer.finish(), "");
    }

    #[test]
    fn a_stop_string_is_shown_if_asked_for() {
        let mut answer = AnswerText::new(StopStrings::new(vec!["END".to_owned()], true));
        assert_eq!(answer.push(b"a EN", true), "a ");
        assert_eq!(answer.push(b"D b", true), "END");
    }

    #[test]
    fn before_the_least_length_nothing_stops() {
        let mut answer = AnswerText::new(stops(&["a"]));
        assert_eq!(answer.push(b"aaa", false), "aaa");
        assert_eq!(answer.push(b"ba", true), "b");
        assert!(answer.is_stopped());
    }

    #[test]
    fn the_string_that_is_complete_first_wins() {
        for pieces in [vec!["xabcd"], vec!["x", "a", "b", "c", "d"], vec!["xab", "cd"]] {
            let pieces: Vec<&[u8]> = pieces.into_iter().map(str::as_bytes).collect();
            assert_eq!(stream(&pieces, &stops(&["abcd", "bc"])), ("xa".to_owned(), true));
            assert_eq!(stream(&pieces, &stops(&["bc", "abc"])), ("x".to_owned(), true));
        }
    }

    proptest! {
        #[test]
        fn the_text_does_not_depend_on_the_pieces(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'a'), Just(b'b'), Just(0xc3_u8), Just(0xa9), Just(0xf0), Just(0x9f), any::<u8>()],
                0..40,
            ),
            places in proptest::collection::vec(any::<usize>(), 0..20),
            strings in proptest::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let stop = StopStrings::new(strings, false);
            let whole = stream(&[&bytes], &stop);
            prop_assert_eq!(&stream(&cut(&bytes, &places), &stop), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&stream(&single, &stop), &whole);
            if !whole.1 {
                let lossy = String::from_utf8_lossy(&bytes);
                // Only a character cut off by the end is missing.
                let missing = lossy.strip_prefix(whole.0.as_str());
                prop_assert!(matches!(missing, Some("" | REPLACED)), "{:?}", missing);
            }
        }

        #[test]
        fn text_without_a_stop_string_comes_through_whole(
            text in ".{0,40}",
            places in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let stop = stops(&["\u{10fffd}"]);
            prop_assume!(!text.contains('\u{10fffd}'));
            prop_assert_eq!(stream(&cut(text.as_bytes(), &places), &stop), (text, false));
        }
    }
}
