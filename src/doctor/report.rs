//! What the doctor says: for people a page, for scripts JSON.

use forecast::Link;
use serde::Serialize;

use crate::doctor::findings::{Finding, Severity};
use crate::doctor::measure::Measured;
use crate::doctor::predict::Prediction;
use crate::doctor::survey::{CardSurvey, Survey};

/// All of it. Field names are what scripts read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) survey: Survey,
    pub(super) findings: Vec<Finding>,
    pub(super) measured: Measured,
    pub(super) predicted: Option<Prediction>,
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let kernel = self.survey.kernel.as_deref().unwrap_or("unknown");
        let mut lines = vec![format!("machine    kernel {kernel}")];
        lines.extend(self.survey.cards.iter().map(card));
        lines.extend(self.findings.iter().map(finding));
        if !self.findings.iter().any(|finding| finding.severity == Severity::Wrong) {
            lines.push("well       nothing is wrong".to_owned());
        }
        lines.push(measured(&self.measured));
        lines.extend(self.predicted.iter().map(Prediction::text));
        lines.join("\n")
    }
}

fn card(card: &CardSurvey) -> String {
    let gib = |bytes: Option<u64>| {
        bytes.map_or_else(
            || "?".to_owned(),
            |bytes| format!("{:.1}", bytes as f64 / 1_073_741_824.0),
        )
    };
    let link = card.link.map_or_else(
        || "link unknown".to_owned(),
        |link| {
            format!(
                "PCIe {} GT/s x{}, {:.1} GB/s",
                link.transfers_per_second / 1e9,
                link.width,
                link.bytes_per_second / 1e9
            )
        },
    );
    format!(
        "card       {} {}: driver {}, {} GiB behind a window of {} GiB, {link}",
        card.pci,
        card.name,
        card.driver.as_deref().unwrap_or("none"),
        gib(card.memory_bytes),
        gib(card.memory_bar_bytes),
    )
}

fn finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Wrong => "wrong",
        Severity::Remark => "remark",
    };
    let card = finding.card.as_ref().map_or_else(String::new, |card| format!("{card}: "));
    format!("{severity:<11}{card}{}\n           do: {}", finding.what, finding.remedy)
}

fn measured(measured: &Measured) -> String {
    let link = |name: &str, link: Link| {
        format!(
            "           all-reduce of two ranks {name}: {:.1} µs, then {:.2} GB/s",
            link.latency_seconds * 1e6,
            link.bytes_per_second / 1e9
        )
    };
    let mut lines = vec![
        format!(
            "measured   this machine's memory: {:.1} GB/s with {} threads",
            measured.host_read_bytes_per_second / 1e9,
            measured.threads
        ),
        link("in one process", measured.in_process),
        link("over loopback gRPC", measured.loopback),
    ];
    lines.extend(measured.devices.iter().map(|device| format!("           {}", device.text())));
    lines.join("\n")
}
