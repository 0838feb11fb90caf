//! A Prometheus beside the demo, where one is installed: it scrapes every process, and is asked in the end.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::time::sleep;

use crate::demo::check::Check;
use crate::demo::process::Process;
use crate::demo::site::Site;
use crate::exposition::Exposition;
use crate::load::{Origin, Target};

/// How often it is asked whether it is there, and how long in between.
const ASKED_MAX: u32 = 100;
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// A Prometheus that runs.
#[derive(Debug)]
pub(super) struct Prometheus {
    process: Process,
    origin: Origin,
    url: String,
    scrape: Duration,
    targets: usize,
}

impl Prometheus {
    /// Starts one; none: there is none on this machine.
    pub(super) async fn start(
        folder: &Path,
        site: &Site,
        duration: Duration,
    ) -> anyhow::Result<Option<Self>> {
        let pages = site.pages();
        let scrape = Duration::from_secs((duration.as_secs() / 720).clamp(1, 5));
        let config = folder.join("prometheus.yaml");
        fs::write(&config, settings(&pages, scrape))
            .with_context(|| format!("--folder: cannot write {}", config.display()))?;
        // What an earlier demo saw is not this one's.
        let data = folder.join("prometheus");
        if data.exists() {
            fs::remove_dir_all(&data)
                .with_context(|| format!("--folder: cannot remove {}", data.display()))?;
        }
        // It cannot take any free port by itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&config);
        command.arg("--storage.tsdb.path").arg(data);
        command.arg(format!("--web.listen-address={address}"));
        let process = match Process::start("prometheus", &mut command, folder) {
            Ok(process) => process,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let url = format!("http://{address}");
        let origin = Origin::new(&url, None)?;
        let running = Self { process, origin, url, scrape, targets: pages.len() };
        for _ in 0..ASKED_MAX {
            if running.origin.page("/-/ready").await.is_ok() {
                return Ok(Some(running));
            }
            sleep(ASK_PAUSE).await;
        }
        bail!("prometheus does not answer: see prometheus.log")
    }

    /// Where people see it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether it saw everybody all the time, and what the coordinator says.
    pub(super) async fn checks(&self, target: &Target) -> anyhow::Result<Vec<Check>> {
        // Two more scrapes, so that the newest counts are in.
        sleep(self.scrape * 2 + Duration::from_millis(500)).await;
        let up = self.ask("sum(up)").await?;
        let always = self.ask("min(min_over_time(up[8d]))").await?;
        let series = "vllm:generation_tokens_total";
        let scraped = self.ask(&format!("sum({series})")).await?;
        let page = Exposition::read(&target.origin.page("/metrics").await?);
        let said = page.total(series, &[]);
        let targets = self.targets.to_string();
        let shown =
            |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), |it| it.to_string());
        Ok(vec![
            Check::that(
                shown(up) == targets,
                "Prometheus sees all",
                format!("{} of {targets}", shown(up)),
            ),
            Check::that(
                always == Some(1.0),
                "no scrape failed",
                format!("least up: {}", shown(always)),
            ),
            Check::that(
                scraped.is_some() && scraped == said,
                "Prometheus has the last count",
                format!("{series}: {}, the coordinator says {}", shown(scraped), shown(said)),
            ),
        ])
    }

    /// The value of an expression that has one.
    async fn ask(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let text = self.origin.page(&format!("/api/v1/query?query={query}")).await?;
        let answer: Value = serde_json::from_str(&text).context("prometheus answers JSON")?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.and_then(|value| value.parse().ok()))
    }

    /// Ends it.
    pub(super) fn end(self) -> Vec<Check> {
        vec![self.process.end()]
    }
}

fn absent(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(ErrorKind::NotFound)
}

/// The coordinator is one job and the workers another, as people name them.
fn settings(pages: &[String], scrape: Duration) -> String {
    let mut text = format!(
        "global:\n  scrape_interval: {0}s\n  scrape_timeout: {0}s\nscrape_configs:\n",
        scrape.as_secs()
    );
    let (coordinator, workers) = pages.split_at(1);
    for (job, targets) in [("arcmesh", coordinator), ("arcmesh-workers", workers)] {
        let hosts = targets.iter().map(|url| format!("\"{}\"", url.trim_start_matches("http://")));
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        writeln!(text, "  - job_name: {job}\n    static_configs:\n      - targets: [{hosts}]")
            .expect("a string takes everything");
    }
    text
}
