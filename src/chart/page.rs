//! A page of charts that needs nothing else.

use std::fmt::Write as _;

use crate::chart::{Chart, HEIGHT, Picture, WIDTH, bars, escape, heat, lines};

const STYLE: &str = include_str!("page.css");

/// The page. `facts` is markup that stands above the charts; what came from outside is escaped in it.
pub(crate) fn page(title: &str, facts: &str, charts: &[Chart]) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{facts}\n<div class=\"charts\">\n"
    );
    for (nth, chart) in charts.iter().enumerate() {
        figure(&mut page, chart, nth);
    }
    page.push_str("</div>\n</main>\n</body>\n</html>\n");
    page
}

fn figure(page: &mut String, chart: &Chart, nth: usize) {
    let (svg, legend, table) = match &chart.picture {
        Picture::Lines(it) => (lines::svg(it), lines::legend(it), lines::table(it)),
        Picture::Bars(it) => (bars::svg(it), String::new(), bars::table(it)),
        Picture::Heat(it) => (heat::svg(it), String::new(), heat::table(it)),
    };
    let (title, note) = (escape(&chart.title), escape(&chart.note));
    writeln!(page, "<section>\n<h2 id=\"chart{nth}\">{title}</h2>").expect("a string");
    if !note.is_empty() {
        writeln!(page, "<p>{note}</p>").expect("a string");
    }
    match svg {
        Some(svg) => write!(
            page,
            "<svg class=\"chart\" role=\"img\" aria-labelledby=\"chart{nth}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">{svg}</svg>\n\
             {legend}<details><summary>Figures</summary><div class=\"wide\"><table>{table}</table></div></details>\n"
        ),
        None => writeln!(page, "<p>nothing was measured</p>"),
    }
    .expect("a string");
    page.push_str("</section>\n");
}
