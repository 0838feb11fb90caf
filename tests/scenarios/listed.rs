//! `docs/metrics.md` lists every series, as the code declares it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;

use coordinator::Metrics;
use fixture::machine::{MadeCard, MadeMachine};
use worker::metrics::WorkerMetrics;
use worker::telemetry::Machine;

/// A family as a page shows it.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
}

fn families(page: &str) -> BTreeMap<String, Family> {
    let mut found: BTreeMap<String, Family> = BTreeMap::new();
    let mut name = String::new();
    for line in page.lines() {
        if let Some((named, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            name = named.to_owned();
            help.clone_into(&mut found.entry(name.clone()).or_default().help);
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            kind.clone_into(&mut found.entry(name.clone()).or_default().kind);
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split("=\"").map(|part| part.rsplit(['"', ',']).next().unwrap());
            let names =
                names.filter(|name| !name.is_empty() && !name.contains('}') && *name != "le");
            found.get_mut(&name).unwrap().labels.extend(names.map(str::to_owned));
        }
    }
    found
}

fn table(page: &str) -> String {
    let mut text = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for (name, Family { help, kind, labels }) in families(page) {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        writeln!(text, "| `{name}` | {kind} | {labels} | {} |", help.trim_end_matches('.'))
            .unwrap();
    }
    text
}

#[test]
fn every_series_is_listed_as_it_is() {
    let coordinator = Metrics::new("a-model", 4096);
    coordinator.http_request("/v1/chat/completions", "POST", 200, 0.1);
    let worker = WorkerMetrics::new();
    let _rank = worker.rank(Some(0));
    let root = tempfile::tempdir().unwrap();
    let (made, address) = MadeMachine::at(root.path(), "6.14.0").with_card(MadeCard::default());
    made.write_client(&address);
    let machine = Machine::at(root.path());
    let card = machine.card(address.parse().unwrap()).unwrap();
    let _watch = worker.watch(&machine, card).unwrap();

    // What is told of the time between two readings is there after the second.
    let mut page = worker.render();
    while !page.contains("arcmesh_device_engine_busy_ratio{") {
        thread::yield_now();
        page = worker.render();
    }

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(&docs).unwrap();
    let mut expected = text.clone();
    for (part, page) in [("coordinator", coordinator.render()), ("worker", page)] {
        let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->"));
        let (head, rest) = expected.split_once(&begin).unwrap();
        let (_, tail) = rest.split_once(&end).unwrap();
        expected = format!("{head}{begin}{}{end}{tail}", table(&page));
    }
    if text != expected {
        let right = Path::new(env!("CARGO_TARGET_TMPDIR")).join("metrics.md");
        fs::write(&right, expected).unwrap();
        panic!("docs/metrics.md does not list what there is: {} does", right.display());
    }
}
