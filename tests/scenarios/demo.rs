//! `arcmesh demo`, for as long as it takes to see that it works.

use serde_json::Value;

#[test]
fn a_short_demo_serves_checks_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    // How fast a shared machine is changes from second to second: latency is shown, not judged.
    command.args(["demo", "--minutes", "0.5", "--world", "2", "--threads", "1"]);
    command.args(["--concurrency", "3", "--prompt-tokens", "32", "--answer-tokens", "4"]);
    command.args(["--latency-drift", "1000000", "--folder"]).arg(folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let passed = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("{name} is not checked: {said}"))["passed"] == true
    };
    for name in [
        "every request answered",
        "figures are what clients saw",
        "every page could be read",
        "memory of coordinator",
        "memory of worker 1",
        "handles of coordinator",
        "handles of worker 0",
        "coordinator ends",
        "worker-0 ends",
        "worker-1 ends",
    ] {
        assert!(passed(name), "{name}: {said}");
    }
    if said.contains("Prometheus scrapes them") {
        for name in ["Prometheus sees all", "no scrape failed", "prometheus ends"] {
            assert!(passed(name), "{name}: {said}");
        }
    } else {
        assert!(said.contains("Prometheus is not installed"), "{said}");
    }
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.matches("<svg class=\"chart\"").count() >= 16,
        "twelve families, ranks, processes"
    );
    // Few requests on a slow machine are too few to tell of latency: that alone may fail.
    let failed: Vec<&Value> = checks.iter().filter(|check| check["passed"] != true).collect();
    let too_few = |check: &&Value| check["found"].as_str().unwrap().starts_with("too few requests");
    assert!(failed.iter().all(too_few), "{failed:?}");
    assert_eq!(output.status.success(), failed.is_empty());
}
