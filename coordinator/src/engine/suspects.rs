//! Ranks that computed what cannot be: suspected once, put out when it happens again.
//!
//! Whether the rank or the question is to blame shows in the next try, which the rank takes no part in.
//! If that fails too the question is given up, and the rank is welcome again.

use std::collections::BTreeMap;

use scheduler::GroupId;

/// A rank is put out after it alone made so many steps come out wrong.
const SUSPECTED_MAX: u32 = 2;
/// Steps in a row that came out well, after which nobody is suspected any more.
const FORGIVEN_AFTER: u64 = 1000;

/// Who is suspected, and who was put out.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    suspected: BTreeMap<String, u32>,
    /// By name: the groups that were in the step.
    out: BTreeMap<String, Vec<GroupId>>,
    well: u64,
}

impl Suspects {
    /// A step came out well.
    pub(super) fn well(&mut self) {
        self.well += 1;
        if self.well >= FORGIVEN_AFTER {
            self.suspected.clear();
        }
    }

    /// A step with these groups came out wrong, and this rank alone brought it about. Whether it is put
    /// out: not when it is the last of the `candidates`, who are there and not out.
    pub(super) fn suspect(&mut self, name: &str, groups: &[GroupId], candidates: usize) -> bool {
        self.well = 0;
        let times = self.suspected.entry(name.to_owned()).or_default();
        *times += 1;
        if *times < SUSPECTED_MAX || candidates <= 1 {
            return false;
        }
        self.suspected.remove(name);
        self.out.insert(name.to_owned(), groups.to_vec());
        true
    }

    /// A group is given up since its steps come out wrong whoever computes them. Whom that clears.
    pub(super) fn given_up(&mut self, group: GroupId) -> Vec<String> {
        let cleared = |groups: &Vec<GroupId>| groups.contains(&group);
        let names: Vec<_> =
            self.out.iter().filter(|(_, g)| cleared(g)).map(|(name, _)| name.clone()).collect();
        self.out.retain(|_, groups| !cleared(groups));
        names
    }

    /// Whether this rank takes part in nothing any more.
    pub(super) fn is_out(&self, name: &str) -> bool {
        self.out.contains_key(name)
    }

    /// Who is out.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.out.keys()
    }
}
