//! What lies where in the memory that ranks of one host share.
//!
//! First the bells, one for each rank; then words of 8 bytes: the mark, then a *seat* for each rank. A seat
//! has whether its rank has left, how much rank 0 took of what it gathered, and two rings of slots: one for
//! parts of sums, that everyone reads, and one for what is gathered, that rank 0 reads.

/// Slots of a ring.
pub(super) const SLOTS: usize = 4;

/// Numbers in a slot: 64 KiB of f64, so that a part is still in its writer's cache when the others read it.
pub(super) const SLOT_NUMBERS: usize = 8192;

/// Bytes from one bell to the next: two cache lines, since processors fetch pairs.
pub(super) const BELL_BYTES: usize = 128;

/// Words of the mark.
pub(super) const MARK_WORDS: usize = 2;

/// Words of two cache lines.
const LINES: usize = 16;

/// Words of a slot before its numbers: a cache line, which says what the slot is for.
pub(super) const HEADER_WORDS: usize = 8;

const SLOT_WORDS: usize = HEADER_WORDS + SLOT_NUMBERS;
const RING_WORDS: usize = SLOTS * SLOT_WORDS;
const SEAT_WORDS: usize = 2 * LINES + 2 * RING_WORDS;

const _: () =
    assert!(SEAT_WORDS.is_multiple_of(LINES), "no two ranks write to the same cache line");

/// Which of a seat's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    Sums = 0,
    Gathered = 1,
}

/// Words behind the bells, for a group of `world` ranks.
pub(super) fn words(world: usize) -> usize {
    LINES + world * SEAT_WORDS
}

/// Bytes of it all.
pub(super) fn bytes(world: usize) -> usize {
    world * BELL_BYTES + words(world) * size_of::<u64>()
}

/// Where it says whether `rank` has left.
pub(super) fn left(rank: usize) -> usize {
    LINES + rank * SEAT_WORDS
}

/// Where it says how many slots of `rank`'s ring of gathered parts rank 0 has read.
pub(super) fn taken(rank: usize) -> usize {
    left(rank) + LINES
}

/// Where the slot of `rank` begins that holds its `turn`-th part, and its words.
pub(super) fn slot(rank: usize, ring: Ring, turn: u64) -> std::ops::Range<usize> {
    let at = usize::try_from(turn % SLOTS as u64).expect("it is below the number of slots");
    let start = left(rank) + 2 * LINES + ring as usize * RING_WORDS + at * SLOT_WORDS;
    start..start + SLOT_WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_on_anything_else_and_all_is_inside() {
        let world = 3;
        let mark = 0..MARK_WORDS;
        let mut used = vec![mark];
        for rank in 0..world {
            used.extend([left(rank), taken(rank)].map(|word| word..word + 1));
            for turn in 0..SLOTS as u64 {
                used.extend([Ring::Sums, Ring::Gathered].map(|ring| slot(rank, ring, turn)));
            }
        }
        used.sort_by_key(|range| range.start);
        assert!(used.windows(2).all(|pair| pair[0].end <= pair[1].start), "{used:?}");
        assert_eq!(used.last().unwrap().end, words(world));
        assert_eq!(slot(1, Ring::Sums, 1), slot(1, Ring::Sums, 1 + SLOTS as u64));
    }

    #[test]
    fn eight_ranks_fit_into_what_containers_have() {
        assert!(bytes(8) < 32 << 20, "{}", bytes(8));
    }
}
