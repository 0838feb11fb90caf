//! Norms: what reads whole rows.

use crate::backend::cpu::disjoint::by_rows;
use crate::backend::cpu::lanes::{LANES, Lanes, padded};
use crate::backend::cpu::path::{Isa, Kernel};
use crate::backend::cpu::quantise::rows_a_grain;
use crate::backend::cpu::team::Team;

/// RMS norm of each row of `x` to `out`.
pub(crate) fn norm(
    isa: Isa,
    team: &Team,
    x: &[f32],
    (weight, epsilon): (&[f32], f32),
    out: &mut [f32],
) {
    let columns = weight.len();
    let rows = x.len() / columns;
    let none: &mut [f32] = &mut [];
    by_rows(team, rows, rows_a_grain(columns), (out, columns), (none, 0), &|rows, out, _| {
        out.copy_from_slice(&x[rows.start * columns..rows.end * columns]);
        isa.run(Norm { rows: out, weight, epsilon });
    });
}

/// What [`add_norm`] works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddNorm<'a> {
    pub(crate) post: Option<&'a [f32]>,
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f32,
}

/// Adds each row of `sum`, normed first where there is a `post`, to `residual`, and replaces it by the
/// norm of the residual.
pub(crate) fn add_norm(
    isa: Isa,
    team: &Team,
    residual: &mut [f32],
    sum: &mut [f32],
    norms: AddNorm<'_>,
) {
    let columns = norms.weight.len();
    let rows = sum.len() / columns;
    let grain = rows_a_grain(columns);
    by_rows(team, rows, grain, (residual, columns), (sum, columns), &|_, residual, sum| {
        isa.run(AddThenNorm { residual, sum, norms });
    });
}

/// Rounds rows to f32.
pub(crate) fn narrow(isa: Isa, team: &Team, (x, columns): (&[f64], usize), out: &mut [f32]) {
    let rows = x.len() / columns;
    let none: &mut [f32] = &mut [];
    by_rows(team, rows, rows_a_grain(columns), (out, columns), (none, 0), &|rows, out, _| {
        isa.run(Narrow { x: &x[rows.start * columns..rows.end * columns], out });
    });
}

struct Narrow<'a> {
    x: &'a [f64],
    out: &'a mut [f32],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounded once to f32")]
    fn run<L: Lanes>(self, _l: L) {
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = *x as f32;
        }
    }
}

struct Norm<'a> {
    rows: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for row in self.rows.chunks_exact_mut(self.weight.len()) {
            norm_row(l, row, self.weight, self.epsilon);
        }
    }
}

struct AddThenNorm<'a> {
    residual: &'a mut [f32],
    sum: &'a mut [f32],
    norms: AddNorm<'a>,
}

impl Kernel for AddThenNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let AddNorm { post, weight, epsilon } = self.norms;
        let columns = weight.len();
        for (residual, sum) in
            self.residual.chunks_exact_mut(columns).zip(self.sum.chunks_exact_mut(columns))
        {
            if let Some(post) = post {
                norm_row(l, sum, post, epsilon);
            }
            for (residual, sum) in residual.iter_mut().zip(&mut *sum) {
                *residual += *sum;
                *sum = *residual;
            }
            norm_row(l, sum, weight, epsilon);
        }
    }
}

/// `row / sqrt(mean(row²) + epsilon) × weight`
#[inline(always)]
pub(crate) fn norm_row<L: Lanes>(l: L, row: &mut [f32], weight: &[f32], epsilon: f32) {
    let mut squares = l.splat(0.0);
    let (whole, rest) = row.as_chunks::<LANES>();
    for x in whole {
        let x = l.load(x);
        squares = l.fma(x, x, squares);
    }
    if !rest.is_empty() {
        let x = l.load(&padded(rest));
        squares = l.fma(x, x, squares);
    }
    let mean = l.sum(squares) / columns_as_f32(row.len());
    let scale = 1.0 / (mean + epsilon).sqrt();
    for (x, weight) in row.iter_mut().zip(weight) {
        *x = *x * scale * weight;
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows have far fewer than 2^24 columns")]
fn columns_as_f32(columns: usize) -> f32 {
    columns as f32
}
