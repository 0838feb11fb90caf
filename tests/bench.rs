//! `arcmesh bench engine` on a toy: which figures there are, and what it says when there can be none.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::process::Output;

use fixture::{Architecture, Toy};
use serde_json::Value;
use tempfile::TempDir;

/// A toy's file, in a folder that is a home as well.
fn toy(architecture: Architecture) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let file = fixture::gguf(home.path(), &Toy::new(architecture));
    (home, file)
}

fn bench(home: &Path, words: &[&str]) -> Output {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.args(["bench", "engine", "--runs", "2"]).args(words);
    command.env("HOME", home).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The JSON that goes to standard output, alone.
fn figures(home: &Path, words: &[&str]) -> Value {
    let output = bench(home, &[words, &["--json", "-"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("resident"), "the table is on standard error");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The last line of a command that failed with this code.
fn complaint(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    said.lines().last().unwrap().strip_prefix("arcmesh: ").unwrap().to_owned()
}

#[test]
fn a_batch_with_prompt_and_answer_has_every_figure() {
    let (home, file) = toy(Architecture::Llama);
    let file = file.to_str().unwrap();
    // Three prompts of 20 do not fit in a step of 16 tokens: some steps hold parts of two.
    let words = ["--model", file, "--threads", "2", "--prompt", "20", "--generate", "5"];
    let chunks = ["--batch", "3", "--max-num-batched-tokens", "16", "--block-size", "4"];
    let found = figures(home.path(), &[&words[..], &chunks].concat());
    for (name, expected) in [
        ("threads", 2),
        ("prompt_tokens", 20),
        ("generate_tokens", 5),
        ("batch", 3),
        ("runs", 2),
        ("chunk_tokens", 16),
        ("block_size", 4),
    ] {
        assert_eq!(found[name], expected, "{name}");
    }
    assert_eq!(found["model"], file);
    assert_eq!(found["file_kind"], "Q8_0");
    assert_eq!(found["backend"], "cpu");
    assert!(found["device"].is_string() && found["instructions"].is_string());
    for name in ["prefill", "decode", "output"] {
        let rate = found[format!("{name}_tokens_per_second")].as_f64().unwrap();
        let of_runs = found[format!("{name}_tokens_per_second_of_runs")].as_array().unwrap();
        let sum: f64 = of_runs.iter().map(|rate| rate.as_f64().unwrap()).sum();
        assert_eq!(of_runs.len(), 2);
        assert!(rate > 0.0 && (rate - sum / 2.0).abs() <= 1e-6 * rate, "{name}: {of_runs:?}");
    }
    for name in [
        "load_seconds",
        "rss_bytes",
        "rss_peak_bytes",
        "weight_bytes",
        "kv_cache_bytes",
        "time_to_first_token_seconds",
        "decode_bytes_per_second",
        "read_bandwidth_bytes_per_second",
        "bandwidth_ratio",
    ] {
        assert!(found[name].as_f64().unwrap() > 0.0, "{name}");
    }
    // Four steps at positions 20 to 23 see 22.5 tokens each; 7 blocks of 4 slots a sequence are kept.
    let kv = found["kv_cache_bytes"].as_f64().unwrap() / (3.0 * 7.0 * 4.0) * 22.5 * 3.0;
    let read = found["weight_bytes"].as_f64().unwrap() + kv;
    assert_eq!(found["bytes_read_per_step"], read);
    assert_eq!(found["bytes_read_per_token"], read / 3.0);
}

#[test]
fn either_half_can_be_left_out() {
    let (home, file) = toy(Architecture::Gemma3);
    let model = ["--model", file.to_str().unwrap(), "--threads", "1"];
    let prefill =
        figures(home.path(), &[&model[..], &["--generate", "0", "--prompt", "30"]].concat());
    assert!(prefill["prefill_tokens_per_second"].is_f64());
    assert!(prefill["time_to_first_token_seconds"].is_f64());
    let decode =
        figures(home.path(), &[&model[..], &["--prompt", "0", "--generate", "30"]].concat());
    assert!(decode["decode_tokens_per_second"].is_f64());
    for (found, absent) in [(&prefill, "decode"), (&decode, "prefill")] {
        for name in [absent, "output"] {
            assert!(found[format!("{name}_tokens_per_second")].is_null(), "{name}");
            assert_eq!(found[format!("{name}_tokens_per_second_of_runs")], Value::Array(vec![]));
        }
    }
    assert!(prefill["bandwidth_ratio"].is_null());
    // A sliding layer reads its window only: 0 … 15 tokens, then 16 each; the other one all there are.
    let layer = decode["kv_cache_bytes"].as_f64().unwrap() / 32.0 / 2.0;
    let tokens = (16.0 * 17.0 / 2.0 + 14.0 * 16.0 + 30.0 * 31.0 / 2.0) / 30.0;
    let read = decode["weight_bytes"].as_f64().unwrap() + layer * tokens;
    assert!((decode["bytes_read_per_step"].as_f64().unwrap() - read).abs() < 1.0);
}

#[test]
fn a_table_is_for_people_and_a_file_for_programs() {
    let (home, file) = toy(Architecture::Llama);
    let json = home.path().join("figures.json");
    let (file, json) = (file.to_str().unwrap(), json.to_str().unwrap());
    let words = ["--model", file, "--backend", "candle", "--prompt", "8", "--generate", "4"];
    let output = bench(home.path(), &[&words[..], &["--json", json]].concat());
    let table = text(&output.stdout);
    for name in ["model", "threads", "resident", "prefill", "decode", "output", "memory"] {
        assert!(table.lines().any(|line| line.starts_with(name)), "{name}:\n{table}");
    }
    let found: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(found["backend"], "candle");
    assert!(found["instructions"].is_null());
}

#[test]
fn what_cannot_be_measured_is_one_line() {
    let (home, file) = toy(Architecture::Llama);
    let model = ["--model", file.to_str().unwrap()];
    let run = |words: &[&str]| bench(home.path(), &[&model[..], words].concat());
    assert_eq!(
        complaint(&run(&["--prompt", "250", "--generate", "7"]), 2),
        "--prompt 250 and --generate 7 make sequences of 257 tokens; the model's context is 256"
    );
    assert_eq!(
        complaint(&run(&["--prompt", "0", "--generate", "0"]), 2),
        "--prompt and --generate are both 0: there is nothing to measure"
    );
    assert_eq!(
        complaint(&run(&["--batch", "9", "--max-num-batched-tokens", "8"]), 2),
        "--batch: 9 sequences do not fit in a step of 8 tokens (see --max-num-batched-tokens)"
    );
    assert!(complaint(&run(&["--batch", "0"]), 2).starts_with("--batch: '0' is not"));
    assert!(
        complaint(&run(&["--json", "/absent/x"]), 1).starts_with("--json: cannot write /absent/x")
    );
    let output = bench(home.path(), &["--model", "no-such-model"]);
    assert!(complaint(&output, 2).contains("there is no model 'no-such-model'"));
    let output = bench(home.path(), &["--model", "/absent/x.gguf"]);
    assert!(complaint(&output, 2).starts_with("--model: "));
}
