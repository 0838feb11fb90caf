//! How fast this machine reads: the limit of decoding, measured rather than looked up.
//!
//! Memory as weights lie in it (huge pages, one mapping), read by as many threads as compute, once a
//! pass. Nothing is done with what is read but an exclusive or, which is far faster than memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::backend::BackendError;
use crate::backend::cpu::memory::{Arena, Region};
use crate::backend::cpu::team::Team;

/// What a thread takes at a time: small enough that all threads end together.
const PART_WORDS: usize = (256 << 10) / size_of::<u64>();
/// Parts of a part that are read side by side: the processor follows several streams at once, and one
/// alone doesn't keep it busy.
const STREAMS: [usize; 2] = [1, 4];
/// Passes of each kind; the fastest counts, since others on the machine only ever add time.
const PASSES: usize = 8;

/// Bytes a second at which `threads` threads read a buffer of `bytes` in huge pages, over and over.
///
/// # Errors
/// [`BackendError`] when there are no threads or is no memory for it.
pub fn read_bandwidth(threads: usize, bytes: usize) -> Result<f64, BackendError> {
    let team = Team::new(threads)
        .map_err(|error| BackendError::Device(format!("cannot start threads: {error}")))?;
    let parts = bytes.div_ceil(PART_WORDS * size_of::<u64>()).max(1);
    let mut region: Region<u64> = Arena::default().take(parts * PART_WORDS)?;
    // A page that was never written is the same page of zeros as every other.
    region.as_mut_slice().fill(1);
    let words = region.as_slice();
    let mut fastest = Duration::MAX;
    for _ in 0..PASSES {
        for streams in STREAMS {
            let begun = Instant::now();
            team.run(parts, &|part| {
                black_box(read(&words[part * PART_WORDS..][..PART_WORDS], streams));
            });
            fastest = fastest.min(begun.elapsed());
        }
    }
    let seconds = fastest.max(Duration::from_nanos(1)).as_secs_f64();
    Ok(size_of_val(words) as f64 / seconds)
}

/// Reads every word, from `streams` places in turn.
fn read(words: &[u64], streams: usize) -> u64 {
    if streams == 1 {
        return words.iter().fold(0, |sum, word| sum ^ word);
    }
    let (front, back) = words.split_at(words.len() / 2);
    let (a, b) = front.split_at(front.len() / 2);
    let (c, d) = back.split_at(back.len() / 2);
    let both = a.iter().zip(b).zip(c.iter().zip(d));
    both.fold(0, |sum, ((a, b), (c, d))| sum ^ a ^ b ^ c ^ d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_whatever_the_order() {
        let words: Vec<u64> = (0..1024).map(|at| 1 << (at % 61)).collect();
        let expected = words.iter().fold(0, |sum, word| sum ^ word);
        for streams in STREAMS {
            assert_eq!(read(&words, streams), expected);
        }
    }

    #[test]
    fn any_size_has_a_bandwidth() {
        for bytes in [0, 1, 3 << 20] {
            assert!(read_bandwidth(2, bytes).unwrap() > 0.0);
        }
    }
}
