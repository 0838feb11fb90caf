//! `arcmesh doctor` on machines that are made of files, each with another fault, and a worker's metrics
//! of a card on such a machine.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use fixture::machine::{FIRST_CARD, MadeCard, MadeDriver, MadeMachine};
use fixture::{Architecture, Toy};
use serde_json::Value;
use tempfile::TempDir;

const KERNEL: &str = "6.8.0-45-generic";

fn arcmesh(words: &[&str]) -> Command {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(words);
    command
}

fn doctor(root: &Path, words: &[&str]) -> Output {
    let root = root.to_str().unwrap();
    let words = [&["doctor", "--threads", "1", "--sysfs-root", root], words].concat();
    arcmesh(&words).output().unwrap()
}

/// What is found on a machine with this card: severities and codes, and whether all is said to be well.
fn found(kernel: &str, card: MadeCard) -> Vec<(String, String)> {
    let root = tempfile::tempdir().unwrap();
    let (_made, address) = MadeMachine::at(root.path(), kernel).with_card(card);
    let output = doctor(root.path(), &["--json", "-"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let findings = json["findings"].as_array().unwrap();
    let found: Vec<(String, String)> = findings
        .iter()
        .map(|finding| {
            assert_eq!(finding["card"], address.as_str());
            // Whatever is told to a program is told to people, and with something to do.
            let [what, remedy] = ["what", "remedy"].map(|key| finding[key].as_str().unwrap());
            assert!(said.contains(what) && said.contains(remedy), "{said}");
            let text = |key: &str| finding[key].as_str().unwrap().to_owned();
            (text("severity"), text("code"))
        })
        .collect();
    let wrong = found.iter().any(|(severity, _)| severity == "wrong");
    assert_eq!(output.status.code(), Some(i32::from(wrong)), "{said}");
    assert_eq!(said.contains("nothing is wrong"), !wrong, "{said}");
    found
}

fn assert_found(card: MadeCard, expected: &[(&str, &str)]) {
    let found = found(KERNEL, card);
    let found: Vec<(&str, &str)> =
        found.iter().map(|(severity, code)| (severity.as_str(), code.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn cards_as_they_should_be_are_well_with_either_driver() {
    for driver in [MadeDriver::I915, MadeDriver::Xe] {
        assert_found(MadeCard { driver, ..MadeCard::default() }, &[]);
    }
}

#[test]
fn a_card_without_a_driver_or_with_another_is_wrong() {
    assert_found(
        MadeCard { driver: MadeDriver::None, ..MadeCard::default() },
        &[("wrong", "no-driver")],
    );
    assert_found(
        MadeCard { driver: MadeDriver::Vfio, ..MadeCard::default() },
        &[("wrong", "other-driver")],
    );
}

#[test]
fn a_node_that_was_not_passed_in_is_wrong() {
    assert_found(
        MadeCard { has_node: false, ..MadeCard::default() },
        &[("wrong", "no-render-node")],
    );
}

#[test]
fn a_window_that_was_not_resized_is_wrong() {
    for driver in [MadeDriver::I915, MadeDriver::Xe] {
        assert_found(
            MadeCard { driver, bar_bytes: 256 << 20, ..MadeCard::default() },
            &[("wrong", "small-bar")],
        );
    }
}

#[test]
fn a_link_is_judged_by_what_it_carries() {
    let narrow = MadeCard { width: 4, speed: "8.0 GT/s PCIe", ..MadeCard::default() };
    assert_found(narrow, &[("wrong", "narrow-link")]);
    let half = MadeCard { width: 8, ..MadeCard::default() };
    assert_found(half, &[("remark", "narrow-link")]);
}

#[test]
fn what_slows_a_card_down_is_remarked() {
    assert_found(
        MadeCard { throttled: Some("pl1"), ..MadeCard::default() },
        &[("remark", "throttled")],
    );
    assert_found(
        MadeCard { clock_limit: 1600, ..MadeCard::default() },
        &[("remark", "clock-limited")],
    );
}

#[test]
fn an_early_kernel_is_wrong() {
    let early = found("6.1.0-30-amd64", MadeCard::default());
    assert_eq!(early, [("wrong".to_owned(), "old-kernel".to_owned())]);
}

#[test]
fn several_cards_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let narrow = MadeCard { width: 1, ..MadeCard::default() };
    let (made, _) = MadeMachine::at(root.path(), KERNEL).with_card(MadeCard::default());
    let (_made, second) = made.with_card(narrow);
    let output = doctor(root.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("card ")).count(), 2, "{text}");
    assert!(text.contains(&format!("wrong      {second}: its link")), "{text}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(complaint, "arcmesh: one thing is wrong: see above\n");
}

#[test]
fn without_cards_the_processor_is_measured_and_a_model_predicted() {
    let root = tempfile::tempdir().unwrap();
    let _made = MadeMachine::at(root.path(), KERNEL);
    let model = fixture::gguf(root.path(), &Toy::new(Architecture::Llama));
    let file = root.path().join("found.json");
    let output = doctor(
        root.path(),
        &["--model", model.to_str().unwrap(), "--json", file.to_str().unwrap()],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("there is no Intel Arc card"), "{text}");
    let json: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let measured = &json["measured"];
    assert!(measured["host_read_bytes_per_second"].as_f64().unwrap() > 0.0);
    for link in ["in_process", "loopback"] {
        assert!(measured[link]["latency_seconds"].as_f64().unwrap() > 0.0);
        assert!(measured[link]["bytes_per_second"].as_f64().unwrap() > 0.0);
    }
    // Ranks of one processor read no faster together than one alone, and the toy's layers are nothing
    // beside an all-reduce: it is said that more are slower.
    for way in json["predicted"]["ways"].as_array().unwrap() {
        assert_eq!(way["best_world"], 1);
        let steps = way["steps"].as_array().unwrap();
        assert_eq!(steps.iter().map(|step| step["world"].as_u64().unwrap()).max(), Some(4));
    }
    assert!(text.contains("more ranks are slower here: use one"), "{text}");
}

#[test]
fn an_opencl_device_is_measured_and_predicted_for() {
    let root = tempfile::tempdir().unwrap();
    let _made = MadeMachine::at(root.path(), KERNEL);
    let model = fixture::gguf(root.path(), &Toy::new(Architecture::Llama));
    for (_, library) in fixture::device::opencl() {
        let device = ["--device", "cpu", "--opencl-library", library.to_str().unwrap()];
        let words = ["--json", "-", "--model", model.to_str().unwrap()];
        let output = doctor(root.path(), &[&device[..], &words].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let device = &json["measured"]["devices"][0];
        assert_eq!(device["kind"], "cpu", "{json}");
        for figure in [
            "read_bytes_per_second",
            "launch_seconds",
            "round_trip_seconds",
            "to_device_bytes_per_second",
            "from_device_bytes_per_second",
            "exchange_seconds",
        ] {
            assert!(device[figure].as_f64().unwrap() > 0.0, "{figure} in {json}");
        }
        let ways = json["predicted"]["ways"].as_array().unwrap();
        assert_eq!(ways.len(), 3, "two on the processor and one on the device");
        assert_eq!(ways[2]["fits"][0], true);
    }
}

#[test]
fn a_device_that_was_asked_for_and_is_not_there_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let _made = MadeMachine::at(root.path(), KERNEL);
    let absent = ["--device", "cpu", "--opencl-library", "/no/such/library.so"];
    let output = doctor(root.path(), &absent);
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("--device") && line.contains("/no/such/library.so"), "{line}");
}

/// A worker on a made machine, ended with the test.
struct Worker(Child, String);

impl Worker {
    fn start(root: &TempDir, words: &[&str]) -> Self {
        let model = fixture::gguf(root.path(), &Toy::new(Architecture::Llama));
        let local = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--threads", "1"];
        let made = ["--sysfs-root", root.path().to_str().unwrap()];
        let model = ["worker", "--model", model.to_str().unwrap()];
        let words = [&model[..], &local, &made, words].concat();
        let mut child = arcmesh(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.split("metrics on http://").nth(1).unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        Self(child, address)
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_workers_page_tells_of_the_card_that_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let (made, first) = MadeMachine::at(root.path(), KERNEL).with_card(MadeCard::default());
    let xe = MadeCard { driver: MadeDriver::Xe, ..MadeCard::default() };
    let (_made, second) = made.with_card(xe);
    let worker = Worker::start(&root, &["--telemetry", &second]);
    let page = worker.metrics();
    for line in [
        format!("arcmesh_device_present{{pci=\"{second}\"}} 1"),
        format!("arcmesh_device_temperature_celsius{{pci=\"{second}\",sensor=\"vram\"}} 70"),
        format!("arcmesh_device_energy_joules_total{{pci=\"{second}\"}} 0"),
        format!("arcmesh_device_pcie_link_width{{kind=\"current\",pci=\"{second}\"}} 16"),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains(&first), "{page}");
}

#[test]
fn a_card_that_is_not_there_is_named_beside_those_that_are() {
    let root = tempfile::tempdir().unwrap();
    let (_made, _) = MadeMachine::at(root.path(), KERNEL).with_card(MadeCard::default());
    let words = ["--sysfs-root", root.path().to_str().unwrap(), "--telemetry", "0000:99:00.0"];
    let output = arcmesh(&[&["worker"], &words[..]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("0000:99:00.0; there are: ") && line.contains(FIRST_CARD), "{line}");
}
