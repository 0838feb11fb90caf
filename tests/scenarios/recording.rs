//! A hundred answers to one prompt are one group to the scheduler: forked once, copied where they write, and
//! recorded so that the same decisions can be made again.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::site::Site;

const SEQUENCES: usize = 128;
const TOKENS: usize = 6;

fn replay(file: &Path) -> Output {
    let mut command = fixture::program(env!("CARGO_BIN_EXE_arcmesh"));
    command.arg("replay").arg(file).output().unwrap()
}

fn asked(sequences: usize, seed: usize) -> Value {
    json!({
        "prompt": "Once upon a time, in a small village between the hills and the sea, there lived an old",
        "n": sequences, "seed": seed, "max_tokens": TOKENS, "ignore_eos": true, "stop": "never said",
    })
}

async fn texts(site: &Site, body: &Value) -> (Vec<String>, Value) {
    let response = site.post("/v1/completions", body).await;
    assert_eq!(response.status(), 200);
    let mut answer: Value = response.json().await.unwrap();
    let choices = answer["choices"].as_array().unwrap();
    let texts = choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned());
    (texts.collect(), answer["usage"].take())
}

/// What the recording says of each kind, in order.
fn recorded(text: &str, kind: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|mut line| line.get_mut(kind).map(Value::take)).collect()
}

#[tokio::test]
async fn a_hundred_sequences_are_one_group_that_forks_once_and_replays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.jsonl");
    let mut site = Site::serve(&["--record", file.to_str().unwrap()]);
    let (many, usage) = texts(&site, &asked(SEQUENCES, 7)).await;
    assert_eq!(many.len(), SEQUENCES);
    assert_eq!(usage["completion_tokens"], json!(SEQUENCES * TOKENS));
    // Each is what its seed gives alone.
    for index in [0, 1, 77, 127] {
        let (alone, _) = texts(&site, &asked(1, 7 + index)).await;
        assert_eq!(alone[0], many[index], "{index}");
    }
    assert!(site.front.end());

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("village"));
    let groups = recorded(&text, "submit");
    assert_eq!(groups.len(), 5, "one for each request");
    assert_eq!(groups[0]["sequences"], json!(SEQUENCES));
    let prompt = groups[0]["prompt"].as_array().unwrap().len();
    assert_eq!(usage["prompt_tokens"], json!(prompt));
    let plans = recorded(&text, "plan");
    let copies: Vec<u64> = plans.iter().map(|plan| plan["copies"].as_u64().unwrap()).collect();
    let forks = copies.iter().filter(|copies| **copies > 0).count();
    // All but the last to write to the block at the fork point take a copy of it.
    let shared_is_full = (prompt - 1).is_multiple_of(16);
    assert_eq!(forks, usize::from(!shared_is_full), "{copies:?}");
    assert_eq!(copies.iter().sum::<u64>(), if shared_is_full { 0 } else { 127 });
    let most = plans.iter().map(|plan| plan["blocks_held"].as_u64().unwrap()).max().unwrap();
    let (full, length) = ((prompt - 1) / 16, prompt + TOKENS);
    let own = length.div_ceil(16) - full;
    assert!(usize::try_from(most).unwrap() <= full + SEQUENCES * own, "{most} blocks");

    let replayed = replay(&file);
    let told = String::from_utf8(replayed.stdout).unwrap();
    assert!(replayed.status.success() && told.contains("of 5 groups"), "{told}");
    assert!(told.contains("every plan is the same"), "{told}");

    let tampered = folder.path().join("tampered.jsonl");
    std::fs::write(&tampered, text.replacen("\"blocks_held\":", "\"blocks_held\":9", 1)).unwrap();
    let replayed = replay(&tampered);
    let told = String::from_utf8(replayed.stderr).unwrap();
    assert_eq!(replayed.status.code(), Some(1));
    assert!(told.contains("tampered.jsonl: line 3: step 1 differs: "), "{told}");
    assert_eq!(told.lines().count(), 1);
    std::fs::write(&tampered, "{}\n").unwrap();
    let told = String::from_utf8(replay(&tampered).stderr).unwrap();
    assert!(told.ends_with(": it is no recording of arcmesh's scheduler\n"), "{told}");
}
