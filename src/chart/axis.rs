//! From values to places, and the round values in between.

use std::fmt::Write as _;

use crate::chart::{BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Unit, WIDTH};

/// An axis from a least value to a most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    least: f64,
    most: f64,
    step: f64,
}

impl Axis {
    /// From 0 to at least the greatest value, in about five round steps.
    pub(super) fn up_to(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round(most / 5.0);
        Self { least: 0.0, most: (most / step).ceil() * step, step }
    }

    /// From one value to another, with round steps in between.
    pub(super) fn between(least: f64, most: f64) -> Self {
        let most = if most > least { most } else { least + 1.0 };
        Self { least, most, step: round((most - least) / 6.0) }
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.least) / (self.most - self.least)).clamp(0.0, 1.0)
    }

    /// Where a value is, from the left.
    pub(super) fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    /// Where a value is, from the top.
    pub(super) fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// Round values within it.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let first = (self.least / self.step).ceil();
        (0..20)
            .map(|nth| (first + f64::from(nth)) * self.step)
            .take_while(|tick| *tick <= self.most * (1.0 + 1e-9))
            .collect()
    }
}

/// 1, 2 or 5 of some power of ten, no less than the value.
fn round(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let lead = [1.0, 2.0, 5.0].into_iter().find(|lead| lead * power >= value * (1.0 - 1e-9));
    lead.unwrap_or(10.0) * power
}

/// Lines across, with what they stand for.
pub(super) fn across(svg: &mut String, axis: &Axis, unit: Unit) {
    for tick in axis.ticks() {
        let y = axis.y(tick);
        let shown = unit.show(tick);
        let (right, text, below) = (WIDTH - RIGHT, LEFT - 6.0, y + 4.0);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{text}\" y=\"{below:.1}\" text-anchor=\"end\">{shown}</text>"
        )
        .expect("a string takes everything");
    }
}

/// What stands below.
pub(super) fn below(svg: &mut String, axis: &Axis, unit: &str) {
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let y = HEIGHT - BOTTOM + 18.0;
        let shown = Unit::Count.show(tick);
        write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{shown} {unit}</text>")
            .expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(Axis::up_to(9.3).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Axis::up_to(0.0).ticks().len(), 6);
        assert_eq!(Axis::between(0.0, 60.0).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        let axis = Axis::between(10.0, 13.0);
        assert!(axis.ticks().iter().all(|tick| (10.0..=13.0).contains(tick)));
        assert!(axis.x(10.0) < axis.x(12.0) && axis.y(10.0) > axis.y(12.0));
    }
}
