//! How much of the model each rank takes on: as fast as it is, as far as its memory holds it.

/// Ranks that differ less from the fastest are as fast: a step's time varies by that much anyway, whole
/// heads are dealt out, and a rank whose share changes loads anew.
const AS_FAST: f64 = 1.3;
/// Tenths of a rank's memory that weights may take. The rest is for KV blocks and room to work.
const TENTHS_FOR_WEIGHTS: u64 = 9;
/// Unequal shares are given in parts of the model.
const PARTS: f64 = 1000.0;

/// What a rank can take on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Able {
    /// Its memory, bytes; 0: not known.
    pub(super) memory_bytes: u64,
    /// Weight bytes that it gets through in a second, or anything in proportion; more than 0.
    pub(super) speed: f64,
}

/// The weights do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the model's weights take {weight_bytes} bytes, and {ranks} ranks have room for {room_bytes}: add workers, \
     or take a smaller model"
)]
pub(super) struct Shortage {
    weight_bytes: u64,
    ranks: usize,
    room_bytes: u64,
}

/// The share of each rank: relative weights, all 1 where nothing tells the ranks apart. Shares go by speed; what
/// does not fit into a rank goes to the others, by speed again.
///
/// # Errors
/// All ranks together have too little memory.
///
/// # Panics
/// A speed is not more than 0.
pub(super) fn shares(ranks: &[Able], weight_bytes: u64) -> Result<Vec<u32>, Shortage> {
    assert!(ranks.iter().all(|rank| rank.speed > 0.0), "whoever takes part computes");
    let fastest = ranks.iter().map(|rank| rank.speed).fold(0.0, f64::max);
    let are_equal = ranks.iter().all(|rank| rank.speed * AS_FAST >= fastest);
    let speed = |rank: &Able| if are_equal { 1.0 } else { rank.speed };
    let room = |rank: &Able| rank.memory_bytes / 10 * TENTHS_FOR_WEIGHTS;
    let holds = |rank: &Able| match rank.memory_bytes {
        0 => 1.0,
        _ => room(rank) as f64 / weight_bytes.max(1) as f64,
    };
    let mut full = vec![None; ranks.len()];
    loop {
        let taken: f64 = full.iter().flatten().sum();
        let open = || ranks.iter().zip(&full).filter(|(_, full)| full.is_none());
        let speeds: f64 = open().map(|(rank, _)| speed(rank)).sum();
        let part = |rank: &Able| (1.0 - taken) * speed(rank) / speeds;
        let too_full = ranks
            .iter()
            .zip(&full)
            .position(|(rank, full)| full.is_none() && part(rank) > holds(rank));
        let Some(at) = too_full else {
            if speeds == 0.0 && taken < 1.0 {
                let room_bytes = ranks.iter().map(room).sum();
                return Err(Shortage { weight_bytes, ranks: ranks.len(), room_bytes });
            }
            if are_equal && full.iter().all(Option::is_none) {
                return Ok(vec![1; ranks.len()]);
            }
            let parts =
                ranks.iter().zip(&full).map(|(rank, full)| full.unwrap_or_else(|| part(rank)));
            return Ok(parts.map(whole).collect());
        };
        full[at] = Some(holds(&ranks[at]));
    }
}

/// A part of the model as a share, at least 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of PARTS")]
fn whole(part: f64) -> u32 {
    (part * PARTS).round().max(1.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn able(all: &[(u64, f64)]) -> Vec<Able> {
        all.iter().map(|&(memory, speed)| Able { memory_bytes: memory * GB, speed }).collect()
    }

    #[test]
    fn ranks_that_nothing_tells_apart_take_the_same() {
        let ranks = able(&[(16, 100.0), (16, 90.0), (16, 78.0), (0, 100.0)]);
        assert_eq!(shares(&ranks, 20 * GB), Ok(vec![1; 4]));
    }

    #[test]
    fn a_slow_rank_takes_less_and_all_take_as_long() {
        assert_eq!(
            shares(&able(&[(16, 100.0), (16, 50.0), (16, 100.0)]), GB),
            Ok(vec![400, 200, 400])
        );
    }

    #[test]
    fn what_does_not_fit_goes_to_the_others_by_speed() {
        // 3.6 of 20 GB fit into the first; the others are twice as fast and as fast as each other.
        let ranks = able(&[(4, 100.0), (16, 200.0), (16, 200.0)]);
        assert_eq!(shares(&ranks, 20 * GB), Ok(vec![180, 410, 410]));
        // Then the second is full too.
        let ranks = able(&[(4, 100.0), (8, 200.0), (16, 200.0)]);
        assert_eq!(shares(&ranks, 20 * GB), Ok(vec![180, 360, 460]));
    }

    #[test]
    fn equals_of_unequal_memory_are_unequal() {
        assert_eq!(shares(&able(&[(8, 1.0), (16, 1.0)]), 20 * GB), Ok(vec![360, 640]));
    }

    #[test]
    fn a_model_that_fits_nowhere_is_refused_with_the_numbers() {
        let error = shares(&able(&[(8, 1.0), (8, 1.0)]), 20 * GB).expect_err("14.4 GB of room");
        assert_eq!(
            error.to_string(),
            "the model's weights take 20000000000 bytes, and 2 ranks have room for 14400000000: add workers, or \
             take a smaller model"
        );
    }

    #[test]
    fn every_rank_has_a_share() {
        let shares = shares(&able(&[(16, 1e9), (16, 1.0)]), GB).expect("there is room");
        assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    }
}
