//! The queries of an item of attention, scaled and rounded.

use crate::backend::AttentionShape;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::amx_attend::PairQuery;
use crate::backend::cpu::attend::{Attend, Scratch, VECTORS};
use crate::backend::cpu::lanes::{LANES, Lanes, padded};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::plan::{Item, Plan};
use crate::backend::cpu::short::shortened_or_zero;

/// Puts an item's queries beside one another, as its kernels want them.
pub(crate) fn gather_queries(
    isa: Isa,
    attend: &Attend<'_>,
    (plan, item): (&Plan, Item),
    scratch: &mut Scratch,
) {
    let (tile, group) = (&plan.tiles[item.tile], &plan.groups[item.group]);
    let AttentionShape { head_size, query_heads, scale, .. } = *attend.shape;
    let heads = &plan.heads[group.heads.clone()];
    let vectors = tile.rows.len() * heads.len();
    let q_of = |vector: usize| {
        let (row, head) = (tile.rows.start + vector / heads.len(), heads[vector % heads.len()]);
        &attend.q[(row * query_heads + head) * head_size..][..head_size]
    };
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = isa.attends_in_tiles(vectors) {
        let avx512 = amx.lanes();
        let paired = &mut scratch.paired;
        paired.for_queries(vectors, head_size);
        for vector in 0..vectors {
            avx512.run(PairQuery { avx512, paired, vector, q: q_of(vector), scale });
        }
        return;
    }
    scratch.q.resize(VECTORS * head_size, 0.0);
    for vector in 0..vectors {
        isa.run(SpreadQuery { q: q_of(vector), scale, vector, to: &mut scratch.q });
    }
}

/// Puts a query in its lane, number by number.
struct SpreadQuery<'a> {
    q: &'a [f32],
    scale: f32,
    vector: usize,
    /// `(head size, VECTORS)`
    to: &'a mut [f32],
}

impl Kernel for SpreadQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (to, _) = self.to.as_chunks_mut::<VECTORS>();
        for (q, to) in self.q.chunks(LANES).zip(to.chunks_mut(LANES)) {
            let mut x = padded(q);
            let scaled = l.mul(l.load(&x), l.splat(self.scale));
            l.store(shortened_or_zero(l, scaled), &mut x);
            for (to, x) in to.iter_mut().zip(x) {
                to[self.vector] = x;
            }
        }
    }
}
