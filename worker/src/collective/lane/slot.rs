//! One part of what a rank brings, and what it is for.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::collective::lane::layout::{HEADER_WORDS, SLOT_NUMBERS};

/// f32 in a slot.
pub(super) const SLOT_GATHERED: usize = 2 * SLOT_NUMBERS;

/// What a part is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) epoch: u64,
    pub(super) step: u64,
    pub(super) index: u32,
    pub(super) part: u32,
    pub(super) operation: Operation,
    /// Numbers of all parts together.
    pub(super) numbers: u64,
}

/// What a rank brings a part for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// To be added by everyone.
    Sum,
    /// For rank 0.
    Gather,
}

/// A slot in shared memory. Its first word is the turn that it holds, written last; a slot of which nobody
/// has written holds turn 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    turn: &'a AtomicU64,
    header: &'a [AtomicU64],
    numbers: &'a [AtomicU64],
}

const EPOCH: usize = 0;
const STEP: usize = 1;
const PLACE: usize = 2;
const OPERATION: usize = 3;
const NUMBERS: usize = 4;

impl<'a> Slot<'a> {
    pub(super) fn of(words: &'a [AtomicU64]) -> Self {
        let (header, numbers) = words.split_at(HEADER_WORDS);
        Self { turn: &header[0], header: &header[1..], numbers }
    }

    /// The turn that it holds: all that was written for it can be read.
    pub(super) fn turn(self) -> u64 {
        self.turn.load(Ordering::SeqCst)
    }

    /// Shows what was written to everyone.
    pub(super) fn show(self, turn: u64, tag: &Tag) {
        let Tag { epoch, step, index, part, operation, numbers } = *tag;
        let place = u64::from(index) << 32 | u64::from(part);
        for (at, word) in [
            (EPOCH, epoch),
            (STEP, step),
            (PLACE, place),
            (OPERATION, operation as u64),
            (NUMBERS, numbers),
        ] {
            self.header[at].store(word, Ordering::Relaxed);
        }
        self.turn.store(turn, Ordering::SeqCst);
    }

    /// What it is for; none when its writer does not know what it does.
    pub(super) fn tag(self) -> Option<Tag> {
        let word = |at: usize| self.header[at].load(Ordering::Relaxed);
        let place = word(PLACE);
        let operation = [Operation::Sum, Operation::Gather]
            .into_iter()
            .find(|operation| *operation as u64 == word(OPERATION))?;
        Some(Tag {
            epoch: word(EPOCH),
            step: word(STEP),
            index: u32::try_from(place >> 32).ok()?,
            part: u32::try_from(place & u64::from(u32::MAX)).ok()?,
            operation,
            numbers: word(NUMBERS),
        })
    }

    pub(super) fn write(self, values: &[f64]) {
        for (word, value) in self.numbers[..values.len()].iter().zip(values) {
            word.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    /// Adds its first numbers to `values`.
    pub(super) fn add_to(self, values: &mut [f64]) {
        let words = &self.numbers[..values.len()];
        for (value, word) in values.iter_mut().zip(words) {
            *value += f64::from_bits(word.load(Ordering::Relaxed));
        }
    }

    /// Two to a word.
    pub(super) fn write_gathered(self, values: &[f32]) {
        for (word, pair) in self.numbers[..values.len().div_ceil(2)].iter().zip(values.chunks(2)) {
            let high = pair.get(1).map_or(0, |value| value.to_bits());
            word.store(u64::from(high) << 32 | u64::from(pair[0].to_bits()), Ordering::Relaxed);
        }
    }

    /// Appends its first `count` gathered numbers.
    #[expect(clippy::cast_possible_truncation, reason = "each half of a word is a number")]
    pub(super) fn read_gathered(self, count: usize, out: &mut Vec<f32>) {
        let words = self.numbers[..count.div_ceil(2)].iter();
        let pairs = words.map(|word| word.load(Ordering::Relaxed));
        let end = out.len() + count;
        out.extend(pairs.flat_map(|pair| [pair as u32, (pair >> 32) as u32].map(f32::from_bits)));
        out.truncate(end);
    }
}

/// The parts that a vector goes in; an empty one goes in one empty part.
pub(super) fn parts(
    numbers: usize,
    most: usize,
) -> impl Iterator<Item = (u32, Range<usize>)> + Clone {
    let count = numbers.div_ceil(most).max(1);
    (0..).zip((0..count).map(move |part| part * most..numbers.min((part + 1) * most)))
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, step, index, part, operation, numbers } = self;
        let operation = match operation {
            Operation::Sum => "an all-reduce",
            Operation::Gather => "a gather",
        };
        write!(
            f,
            "part {part} of collective {index} of step {step} of epoch {epoch}, {operation} of {numbers} numbers"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..HEADER_WORDS + SLOT_NUMBERS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_is_shown_is_read() {
        let words = words();
        let slot = Slot::of(&words);
        assert_eq!(slot.turn(), 0);
        let operation = Operation::Gather;
        let tag = Tag { epoch: u64::MAX, step: 2, index: 3, part: u32::MAX, operation, numbers: 5 };
        slot.write(&[1.0, 2.0, 3.0]);
        slot.show(9, &tag);
        assert_eq!((slot.turn(), slot.tag()), (9, Some(tag)));
        let mut values = [10.0, 20.0];
        slot.add_to(&mut values);
        assert_eq!(values, [11.0, 22.0]);
        words[1 + OPERATION].store(7, Ordering::Relaxed);
        assert_eq!(slot.tag(), None);
    }

    #[test]
    fn any_count_is_gathered() {
        let words = words();
        for count in [0, 1, 2, 3, SLOT_GATHERED] {
            let values: Vec<f32> = (0..count).map(|value| value as f32 + 0.5).collect();
            Slot::of(&words).write_gathered(&values);
            let mut out = vec![7.0];
            Slot::of(&words).read_gathered(count, &mut out);
            assert_eq!(out[1..], values);
        }
    }

    #[test]
    fn parts_cover_a_vector_once_and_an_empty_one_takes_one() {
        let cut =
            |numbers| parts(numbers, 4).map(|(_, part)| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(cut(0), [(0, 0)]);
        assert_eq!(cut(4), [(0, 4)]);
        assert_eq!(cut(5), [(0, 4), (4, 5)]);
    }
}
