//! How many tokens the operator lets a request generate, whatever it asks for.

/// The operator's limits on generated tokens; none: not limited here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceiling {
    /// For a sequence of a request that says nothing.
    pub usual: Option<u32>,
    /// For any sequence.
    pub sequence: Option<u32>,
    /// For all sequences of a prompt together; each may have its part.
    pub group: Option<u32>,
}

impl Ceiling {
    /// Most tokens for each of `sequences` that continue a prompt, where the request asked for `asked`.
    /// 0: there are more sequences than tokens for them.
    #[must_use]
    pub fn of(&self, asked: Option<u32>, sequences: u32) -> Option<u32> {
        let usual = self.usual.filter(|_| asked.is_none());
        let part = self.group.map(|all| all / sequences.max(1));
        [usual, self.sequence, part].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit() -> impl Strategy<Value = Option<u32>> {
        prop::option::of(prop_oneof![1_u32..50, Just(u32::MAX)])
    }

    proptest! {
        #[test]
        fn there_is_no_way_around_it(
            (usual, sequence, group) in (limit(), limit(), limit()),
            asked in prop::option::of(any::<u32>()),
            sequences in 0_u32..200,
        ) {
            let ceiling = Ceiling { usual, sequence, group };
            let most = ceiling.of(asked, sequences);
            let got = most.unwrap_or(u32::MAX).min(asked.unwrap_or(u32::MAX));
            prop_assert!(got <= sequence.unwrap_or(u32::MAX));
            let all = u64::from(got) * u64::from(sequences);
            prop_assert!(group.is_none_or(|group| all <= u64::from(group)));
            if asked.is_none() {
                prop_assert!(got <= usual.unwrap_or(u32::MAX));
            }
            // and nobody gets less than there is, but for a part of a token
            if let (Some(most), Some(group), None, None) = (most, group, sequence, usual) {
                prop_assert!((u64::from(most) + 1) * u64::from(sequences.max(1)) > u64::from(group));
            }
        }
    }
}
