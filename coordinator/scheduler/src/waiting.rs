//! The groups that wait, in the order in which they are let in.

use std::collections::{BTreeMap, BTreeSet};

use crate::rank::{Policy, Rank};
use crate::sequence_group::SequenceGroup;
use crate::units::{GroupId, TenantId, TokenCount};

/// A generated token weighs this many prompt tokens in what a tenant was served: it takes a step of its
/// own, of which a prompt has few.
const GENERATED_WEIGHT: u64 = 2;

/// One line, or one for each tenant where they take turns.
#[derive(Debug)]
pub(crate) struct Waiting {
    takes_turns: bool,
    lines: BTreeMap<TenantId, BTreeMap<Rank, SequenceGroup>>,
    /// Tenants that wait, by what they were served.
    turns: BTreeSet<(u64, TenantId)>,
    /// What tenants were served; those left out count as served `clock`.
    served: BTreeMap<TenantId, u64>,
    /// What the tenant that was last let in had been served: who comes back after a pause starts
    /// there, so that nobody saves up.
    clock: u64,
    /// All that wait, the oldest first.
    ids: BTreeSet<GroupId>,
}

impl Waiting {
    pub(crate) const fn new(policy: Policy) -> Self {
        Self {
            takes_turns: matches!(policy, Policy::Fair { .. }),
            lines: BTreeMap::new(),
            turns: BTreeSet::new(),
            served: BTreeMap::new(),
            clock: 0,
            ids: BTreeSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The group that has waited the longest.
    pub(crate) fn oldest(&self) -> Option<GroupId> {
        self.ids.first().copied()
    }

    /// The group that is let in next.
    pub(crate) fn first(&self) -> Option<&SequenceGroup> {
        let (_, tenant) = self.turns.first()?;
        self.lines[tenant].values().next()
    }

    pub(crate) fn take_first(&mut self) -> Option<SequenceGroup> {
        let (served, tenant) = *self.turns.first()?;
        self.clock = self.clock.max(served);
        let rank = *self.lines[&tenant].keys().next()?;
        self.remove(tenant, rank)
    }

    pub(crate) fn insert(&mut self, group: SequenceGroup) {
        let tenant = self.line(group.tenant);
        self.ids.insert(group.rank.id);
        let line = self.lines.entry(tenant).or_default();
        if line.is_empty() {
            let served = self.served.get(&tenant).copied().unwrap_or(0).max(self.clock);
            self.served.insert(tenant, served);
            self.turns.insert((served, tenant));
        }
        line.insert(group.rank, group);
    }

    pub(crate) fn get(&self, tenant: TenantId, rank: Rank) -> Option<&SequenceGroup> {
        self.lines.get(&self.line(tenant))?.get(&rank)
    }

    pub(crate) fn remove(&mut self, tenant: TenantId, rank: Rank) -> Option<SequenceGroup> {
        let tenant = self.line(tenant);
        let line = self.lines.get_mut(&tenant)?;
        let group = line.remove(&rank)?;
        self.ids.remove(&rank.id);
        if line.is_empty() {
            self.lines.remove(&tenant);
            let served = self.served.get(&tenant).copied().unwrap_or(self.clock);
            self.turns.remove(&(served, tenant));
            if served <= self.clock {
                self.served.remove(&tenant);
            }
        }
        Some(group)
    }

    /// A tenant was served so much.
    pub(crate) fn charge(&mut self, tenant: TenantId, prompt: TokenCount, generated: TokenCount) {
        if !self.takes_turns {
            return;
        }
        let waits = self.lines.contains_key(&tenant);
        let served = self.served.entry(tenant).or_insert(self.clock);
        if waits {
            self.turns.remove(&(*served, tenant));
        }
        *served += u64::from(prompt.0) + GENERATED_WEIGHT * u64::from(generated.0);
        if waits {
            self.turns.insert((*served, tenant));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SequenceGroup> {
        self.lines.values().flat_map(BTreeMap::values)
    }

    /// Every tenant that waits has one turn, and all that wait are in a line.
    pub(crate) fn check(&self) {
        assert_eq!(self.iter().count(), self.ids.len(), "who waits is in one line");
        let turns: BTreeSet<TenantId> = self.turns.iter().map(|(_, tenant)| *tenant).collect();
        assert!(turns.iter().eq(self.lines.keys()), "every line has its turn");
        assert_eq!(turns.len(), self.turns.len(), "a line has one turn");
    }

    const fn line(&self, tenant: TenantId) -> TenantId {
        if self.takes_turns { tenant } else { TenantId(0) }
    }
}
