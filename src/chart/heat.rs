//! A cell for each moment and range, in a stronger colour the more, as SVG and as a table.

use std::fmt::Write as _;

use crate::chart::axis::{Axis, below};
use crate::chart::{BOTTOM, HEIGHT, Heat, LEFT, RIGHT, TOP, Unit, WIDTH, escape};

/// The picture; none where there is nothing to draw.
pub(super) fn svg(chart: &Heat) -> Option<String> {
    let rows = u32::try_from(chart.ranges.len()).ok().filter(|count| *count > 0)?;
    let columns = u32::try_from(chart.moments.len()).ok().filter(|count| *count > 0)?;
    let most = chart.counts.iter().flatten().copied().fold(0.0, f64::max);
    let (height, width) =
        ((HEIGHT - TOP - BOTTOM) / f64::from(rows), (WIDTH - LEFT - RIGHT) / f64::from(columns));
    let mut svg = String::new();
    let (first, last) = (chart.moments.first()?, chart.moments.last()?);
    below(&mut svg, &Axis::between(*first, *last), "s");
    let mut left = LEFT;
    for counts in &chart.counts {
        let mut bottom = HEIGHT - BOTTOM;
        for count in counts {
            bottom -= height;
            if *count > 0.0 && most > 0.0 {
                // A single one is to be seen as well.
                let shade = 0.15 + 0.85 * (count / most).sqrt();
                let (w, h) = (width + 0.3, height - 1.0);
                write!(
                    svg,
                    "<rect class=\"bar\" x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" opacity=\"{shade:.2}\"/>"
                )
                .expect("a string takes everything");
            }
        }
        left += width;
    }
    let mut y = HEIGHT - BOTTOM - height / 2.0 + 4.0;
    for range in &chart.ranges {
        let (x, range) = (LEFT - 6.0, escape(range));
        write!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{range}</text>")
            .expect("a string takes everything");
        y -= height;
    }
    Some(svg)
}

/// The figures: the count of each range, over all moments.
pub(super) fn table(chart: &Heat) -> String {
    let mut table = String::new();
    for (row, range) in chart.ranges.iter().enumerate() {
        let count = chart.counts.iter().filter_map(|counts| counts.get(row)).sum();
        let (range, count) = (escape(range), Unit::Count.show(count));
        write!(table, "<tr><th scope=\"row\">{range}</th><td>{count}</td></tr>").expect("a string");
    }
    table
}
