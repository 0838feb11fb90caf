//! Logits as a request bends them: bias, bans and penalties.

use crate::batch::Adjustment;

/// Bends logits, of tokens from `first` on. A finite logit stays finite, but for a ban.
pub(super) fn adjust(logits: &mut [f32], first: usize, adjustment: &Adjustment) {
    for &(token, bias) in &adjustment.bias {
        change(logits, first, token, |logit| logit + bias);
    }
    for &token in &adjustment.banned {
        change(logits, first, token, |_| f32::NEG_INFINITY);
    }
    if adjustment.repetition != 1.0 {
        // a token of both is penalised once
        let fresh = |token: &&u32| adjustment.prompt.binary_search(token).is_err();
        let answer = adjustment.answer.iter().map(|(token, _)| token).filter(fresh);
        for &token in adjustment.prompt.iter().chain(answer) {
            change(logits, first, token, |logit| repeated(logit, adjustment.repetition));
        }
    }
    for &(token, count) in &adjustment.answer {
        #[expect(clippy::cast_precision_loss, reason = "a sequence has fewer than 2²⁴ tokens")]
        let often = adjustment.frequency * count as f32;
        change(logits, first, token, |logit| logit - often - adjustment.presence);
    }
}

/// Bends the logit of a token, if it is here.
fn change(logits: &mut [f32], first: usize, token: u32, change: impl FnOnce(f32) -> f32) {
    let here = (token as usize).checked_sub(first).and_then(|at| logits.get_mut(at));
    if let Some(logit) = here.filter(|logit| **logit > f32::NEG_INFINITY) {
        let changed = change(*logit);
        *logit =
            if changed == f32::NEG_INFINITY { changed } else { changed.clamp(f32::MIN, f32::MAX) };
    }
}

fn repeated(logit: f32, penalty: f32) -> f32 {
    if logit > 0.0 { logit / penalty } else { logit * penalty }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bent(adjustment: &Adjustment) -> Vec<f32> {
        let mut logits = vec![2.0, -2.0, 0.0, 4.0];
        adjust(&mut logits, 0, adjustment);
        logits
    }

    #[test]
    fn each_penalty_does_what_its_formula_says() {
        let none = Adjustment::default();
        assert_eq!(bent(&none), [2.0, -2.0, 0.0, 4.0]);
        let bias = Adjustment { bias: vec![(0, 1.5), (3, -100.0)], ..none.clone() };
        assert_eq!(bent(&bias), [3.5, -2.0, 0.0, -96.0]);
        let seen = Adjustment { prompt: vec![0, 1], answer: vec![(1, 3), (3, 2)], ..none };
        assert_eq!(bent(&Adjustment { repetition: 2.0, ..seen.clone() }), [1.0, -4.0, 0.0, 2.0]);
        assert_eq!(bent(&Adjustment { presence: 0.5, ..seen.clone() }), [2.0, -2.5, 0.0, 3.5]);
        assert_eq!(bent(&Adjustment { frequency: 0.5, ..seen }), [2.0, -3.5, 0.0, 3.0]);
    }

    #[test]
    fn a_ban_is_not_lifted_and_nothing_becomes_infinite() {
        let all = Adjustment {
            banned: vec![3],
            bias: vec![(3, 100.0), (0, f32::MAX)],
            prompt: vec![0, 3],
            repetition: 1e-30,
            ..Adjustment::default()
        };
        let logits = bent(&all);
        assert_eq!(logits[3], f32::NEG_INFINITY);
        assert_eq!(logits[0], f32::MAX);
    }

    #[test]
    fn a_part_of_the_vocabulary_is_bent_as_that_part_of_it_all() {
        let all = Adjustment {
            bias: vec![(0, 1.0), (3, 2.0)],
            banned: vec![1],
            repetition: 1.5,
            presence: 0.25,
            prompt: vec![0, 2],
            answer: vec![(3, 2)],
            ..Adjustment::default()
        };
        let mut part = vec![0.0, 4.0];
        adjust(&mut part, 2, &all);
        assert_eq!(part, bent(&all)[2..]);
    }
}
