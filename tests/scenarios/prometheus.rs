//! A real Prometheus scrapes real processes under load, and every question that `monitor/` asks of it has an
//! answer. Needs the programs `prometheus` and `promtool`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fixture::machine::{MadeCard, MadeMachine};
use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::site::{Site, question};

/// Rounds of load after which what has no answer yet has none.
const ROUNDS_MAX: usize = 60;
/// A card's alert needs a card that is held back.
const KERNEL: &str = "6.14.0";

/// What the usual dashboard of this kind of server draws, panel by panel, names of the older generation.
const USUAL: &[&str] = &[
    "histogram_quantile(0.99, sum by(le) (rate(vllm:e2e_request_latency_seconds_bucket{model_name=\"small\"}[1m])))",
    "rate(vllm:e2e_request_latency_seconds_sum{model_name=\"small\"}[1m]) / rate(vllm:e2e_request_latency_seconds_count{model_name=\"small\"}[1m])",
    "rate(vllm:prompt_tokens_total{model_name=\"small\"}[1m])",
    "rate(vllm:generation_tokens_total{model_name=\"small\"}[1m])",
    "histogram_quantile(0.95, sum by(le) (rate(vllm:time_per_output_token_seconds_bucket{model_name=\"small\"}[1m])))",
    "rate(vllm:time_per_output_token_seconds_sum{model_name=\"small\"}[1m]) / rate(vllm:time_per_output_token_seconds_count{model_name=\"small\"}[1m])",
    "vllm:num_requests_running{model_name=\"small\"}",
    "vllm:num_requests_swapped{model_name=\"small\"}",
    "vllm:num_requests_waiting{model_name=\"small\"}",
    "histogram_quantile(0.5, sum by(le) (rate(vllm:time_to_first_token_seconds_bucket{model_name=\"small\"}[1m])))",
    "vllm:gpu_cache_usage_perc{model_name=\"small\"}",
    "vllm:cpu_cache_usage_perc{model_name=\"small\"}",
    "sum by(le) (increase(vllm:request_prompt_tokens_bucket{model_name=\"small\"}[1m]))",
    "sum by(le) (increase(vllm:request_generation_tokens_bucket{model_name=\"small\"}[1m]))",
    "sum by(finished_reason) (increase(vllm:request_success_total{model_name=\"small\"}[1m]))",
    "rate(vllm:request_queue_time_seconds_sum{model_name=\"small\"}[1m])",
    "rate(vllm:request_prefill_time_seconds_sum{model_name=\"small\"}[1m])",
    "rate(vllm:request_decode_time_seconds_sum{model_name=\"small\"}[1m])",
    "rate(vllm:request_max_num_generation_tokens_sum{model_name=\"small\"}[1m])",
];

fn monitor() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitor")
}

/// What `promtool` says in `monitor/` of `input`; whether it is content.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(monitor());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// A page of metrics is well-formed, and well named where the names are ours.
fn check_page(page: &str) {
    let (_, said) = promtool(&["check", "metrics"], page);
    let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("vllm:")).collect();
    assert!(ours.is_empty(), "promtool check metrics: {ours:#?}");
}

#[test]
fn promtool_is_content_with_configuration_rules_and_every_alert() {
    if !fixture::has("promtool", "prometheus") {
        return;
    }
    for arguments in [
        &["check", "config", "prometheus.yaml"][..],
        &["check", "rules", "rules.yaml", "alerts.yaml"],
        &["test", "rules", "alerts_test.yaml"],
    ] {
        let (content, said) = promtool(arguments, "");
        assert!(content, "promtool {arguments:?}:\n{said}");
    }
}

#[test]
fn every_alert_has_a_case_that_fires_one_that_does_not_a_reason_and_a_first_action() {
    let alerts = fs::read_to_string(monitor().join("alerts.yaml")).unwrap();
    let cases = fs::read_to_string(monitor().join("alerts_test.yaml")).unwrap();
    let mut found = 0;
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        for part in ["expr:", "severity:", "summary:", "description:", "action:"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        for case in ["fires", "is silent"] {
            assert!(cases.contains(&format!("\"{name} {case}: ")), "no case where {name} {case}");
        }
        found += 1;
    }
    assert!(found >= 10, "{found} alerts");
}

/// A Prometheus that scrapes a site.
struct Prometheus {
    child: Child,
    base: String,
    client: reqwest::Client,
    _folder: TempDir,
}

impl Prometheus {
    /// With the configuration of `monitor/`, but for addresses and how often.
    fn start(coordinator: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["rules.yaml", "alerts.yaml"] {
            fs::copy(monitor().join(name), at(name)).unwrap();
        }
        let config = fs::read_to_string(monitor().join("prometheus.yaml")).unwrap();
        let config = config
            .replace("host.docker.internal:8000", coordinator)
            .replace("host.docker.internal:$1", "127.0.0.1:$1")
            .replace("scrape_interval: 5s", "scrape_interval: 1s")
            .replace("evaluation_interval: 15s", "evaluation_interval: 1s")
            .replace("refresh_interval: 10s", "refresh_interval: 1s");
        fs::write(at("prometheus.yaml"), config).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {said:#?}")).unwrap();
            let is_it = line.contains("Listening on");
            let address =
                line.rsplit_once("address=").map(|(_, address)| address.trim_matches('"'));
            if let (true, Some(address)) = (is_it, address) {
                break address.to_owned();
            }
            said.push(line);
        };
        // Whatever it says later is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let client = reqwest::Client::new();
        Self { child, base: format!("http://{address}/api/v1"), client, _folder: folder }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut url = reqwest::Url::parse(&format!("{}/{path}", self.base)).unwrap();
        url.query_pairs_mut().extend_pairs(query);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{query:?}: {text}");
        answer["data"].clone()
    }

    /// The values that an expression has now.
    async fn values(&self, expression: &str) -> Vec<f64> {
        let data = self.get("query", &[("query", expression)]).await;
        let value = |sample: &Value| sample["value"][1].as_str().unwrap().parse::<f64>().unwrap();
        data["result"].as_array().unwrap().iter().map(value).collect()
    }

    /// Rules and alerts as they were loaded: kind and expression.
    async fn rules(&self) -> Vec<(String, String)> {
        let data = self.get("rules", &[]).await;
        let groups = data["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rules.map(|rule| (text(&rule["type"]), text(&rule["query"]))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // One that has ended already cannot be ended: that is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The dashboard's questions, its variables filled in.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(monitor().join("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|expr| expr.replace("$model_name", ".*").replace("$__rate_interval", "1m"))
        .collect()
}

/// An alert has a value only while it fires: what is asked is what it compares.
fn without_comparison(expression: &str) -> String {
    let mut text = expression.to_owned();
    for sign in [" > ", " < ", " == "] {
        text = text.replace(sign, &format!("{sign}bool "));
    }
    text
}

/// A coordinator with two workers; the first of them watches a card that is held back.
fn site(root: &Path) -> Site {
    let made = MadeCard { throttled: Some("pl1"), ..MadeCard::default() };
    let (machine, card) = MadeMachine::at(root, KERNEL).with_card(made);
    machine.write_client(&card);
    let root = root.to_str().unwrap();
    let worker = |more: &[&str]| {
        let address = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--threads", "1"];
        Process::start(&[&["worker"], address.as_slice(), more].concat(), "worker on ")
    };
    let workers = vec![worker(&["--sysfs-root", root, "--telemetry", &card]), worker(&[])];
    Site::over(workers, &["--served-model-name", "small", "--max-model-len", "512"])
}

/// Requests of every kind that the dashboard shows.
async fn load(site: &Site, round: usize) {
    let body = |at: usize| question(&format!("Round {round}: say something about {at}."), 6);
    join_all((0..4).map(|at| site.chat(body(at)))).await;
    drop(site.post("/v1/chat/completions", &json!({ "messages": [] })).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_asked_of_prometheus_has_a_finite_answer_under_load() {
    if !fixture::has("prometheus", "prometheus") || !fixture::has("promtool", "prometheus") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let site = site(root.path());
    let prometheus = Prometheus::start(site.base.trim_start_matches("http://"));
    let mut asked: BTreeSet<String> = dashboard().into_iter().collect();
    assert!(asked.len() > 60, "{} expressions", asked.len());
    asked.extend(USUAL.iter().map(|&expression| expression.to_owned()));
    asked.insert("up{job=\"arcmesh-coordinator\"}".to_owned());
    let mut is_first = true;
    for round in 0..ROUNDS_MAX {
        load(&site, round).await;
        if is_first {
            let rules = prometheus.rules().await;
            asked.extend(rules.into_iter().map(|(kind, expression)| match kind.as_str() {
                "alerting" => without_comparison(&expression),
                _ => expression,
            }));
            is_first = false;
        }
        let mut open = BTreeSet::new();
        for expression in asked {
            let values = prometheus.values(&expression).await;
            if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
                open.insert(expression);
            }
        }
        asked = open;
        if asked.is_empty() {
            break;
        }
    }
    assert!(asked.is_empty(), "no finite answer to {asked:#?}");

    let up = prometheus.values("up").await;
    assert_eq!(up, [1.0; 3], "a coordinator and two workers");
    let held_back = prometheus.values("arcmesh_device_throttled{reason=\"status\"}").await;
    assert_eq!(held_back, [1.0]);
    check_page(&site.page("/metrics").await);
    check_page(&site.worker_metrics(0).await);
}
