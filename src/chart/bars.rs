//! A bar for each of a few names, as SVG and as a table.

use std::fmt::Write as _;

use crate::chart::axis::{Axis, across};
use crate::chart::{BOTTOM, Bars, HEIGHT, LEFT, RIGHT, WIDTH, escape};

/// Names below; where there are more bars, some stay without.
const NAMES_MAX: usize = 12;

/// The picture; none where there is nothing to draw.
pub(super) fn svg(chart: &Bars) -> Option<String> {
    let count = u32::try_from(chart.bars.len()).ok().filter(|count| *count > 0)?;
    let y = Axis::up_to(chart.bars.iter().map(|bar| bar.1).fold(0.0, f64::max));
    let each = (WIDTH - LEFT - RIGHT) / f64::from(count);
    let stride = chart.bars.len().div_ceil(NAMES_MAX);
    let mut svg = String::new();
    across(&mut svg, &y, chart.unit);
    let mut left = LEFT;
    for (nth, (name, value)) in chart.bars.iter().enumerate() {
        let top = y.y(*value);
        let (x, width) = (left + each * 0.1, each * 0.8);
        let (middle, under) = (left + each / 2.0, HEIGHT - BOTTOM + 18.0);
        let height = HEIGHT - BOTTOM - top;
        write!(
            svg,
            "<rect class=\"bar\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        )
        .expect("a string takes everything");
        if nth % stride == 0 {
            let name = escape(name);
            write!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{under}\" text-anchor=\"middle\">{name}</text>"
            )
            .expect("a string takes everything");
        }
        left += each;
    }
    Some(svg)
}

/// The figures.
pub(super) fn table(chart: &Bars) -> String {
    let mut table = String::new();
    for (name, value) in &chart.bars {
        let (name, value) = (escape(name), chart.unit.show(*value));
        write!(table, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>").expect("a string");
    }
    table
}
