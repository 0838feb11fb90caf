//! Lines over something, as SVG and as a table.

use std::fmt::Write as _;

use crate::chart::axis::{Axis, across, below};
use crate::chart::{Line, Lines, Unit, escape};

/// Strokes by which lines differ, besides their colours.
const DASHES: [&str; 5] = ["none", "7 3", "2 3", "9 3 2 3", "1 5"];
/// Rows of the table.
const ROWS_MAX: usize = 20;

/// The picture; none where there is nothing to draw.
pub(super) fn svg(chart: &Lines) -> Option<String> {
    let values = || {
        let points = chart.lines.iter().flat_map(|line| &line.points);
        points.filter_map(|(x, y)| Some((*x, y.filter(|y| y.is_finite())?)))
    };
    let (first, last) = values()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), (x, _)| {
            (least.min(x), most.max(x))
        });
    if first > last {
        return None;
    }
    let x = Axis::between(first, last);
    let y = Axis::up_to(values().map(|(_, y)| y).fold(0.0, f64::max));
    let mut svg = String::new();
    across(&mut svg, &y, chart.unit);
    below(&mut svg, &x, chart.below);
    for (nth, line) in chart.lines.iter().enumerate() {
        draw(&mut svg, line, nth, (&x, &y));
    }
    Some(svg)
}

fn draw(svg: &mut String, line: &Line, nth: usize, (x, y): (&Axis, &Axis)) {
    let dash = DASHES[nth % DASHES.len()];
    let nth = nth % 5;
    for part in line.points.split(|(_, value)| !value.is_some_and(f64::is_finite)) {
        let place = |&(at, value): &(f64, Option<f64>)| (x.x(at), y.y(value.unwrap_or(0.0)));
        if let [only] = part {
            let (x, y) = place(only);
            write!(svg, "<circle class=\"dot{nth}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>")
                .expect("a string takes everything");
        } else if !part.is_empty() {
            let points: Vec<String> =
                part.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let points = points.join(" ");
            write!(
                svg,
                "<polyline class=\"line{nth}\" stroke-dasharray=\"{dash}\" points=\"{points}\"/>"
            )
            .expect("a string takes everything");
        }
    }
}

/// What each stroke is, and its newest value.
pub(super) fn legend(chart: &Lines) -> String {
    let mut legend = String::from("<ul class=\"legend\">");
    for (nth, line) in chart.lines.iter().enumerate() {
        let dash = DASHES[nth % DASHES.len()];
        let (nth, name) = (nth % 5, escape(&line.name));
        write!(
            legend,
            "<li><svg viewBox=\"0 0 28 8\" width=\"28\" height=\"8\" aria-hidden=\"true\">\
             <line class=\"line{nth}\" stroke-dasharray=\"{dash}\" x1=\"0\" x2=\"28\" y1=\"4\" y2=\"4\"/>\
             </svg> {name}</li>"
        )
        .expect("a string takes everything");
    }
    legend + "</ul>"
}

/// The figures: rows at even distances where there are many.
pub(super) fn table(chart: &Lines) -> String {
    let mut table = format!("<tr><th scope=\"col\">{}</th>", escape(chart.below));
    for line in &chart.lines {
        write!(table, "<th scope=\"col\">{}</th>", escape(&line.name)).expect("a string");
    }
    table.push_str("</tr>");
    let places = chart.lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
    let stride = places.div_ceil(ROWS_MAX).max(1);
    for at in (0..places).step_by(stride) {
        let x = chart.lines.iter().find_map(|line| line.points.get(at)).map_or(0.0, |it| it.0);
        write!(table, "<tr><th scope=\"row\">{}</th>", Unit::Count.show(x)).expect("a string");
        for line in &chart.lines {
            let value = line.points.get(at).and_then(|point| point.1);
            let shown = value.filter(|value| value.is_finite()).map(|value| chart.unit.show(value));
            let shown = shown.unwrap_or_else(|| "–".to_owned());
            write!(table, "<td>{shown}</td>").expect("a string");
        }
        table.push_str("</tr>");
    }
    table
}
