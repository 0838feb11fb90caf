//! Every answer ends where it must, and what cannot be served is said so.

use serde_json::{Value, json};

use crate::process::Process;
use crate::site::{Site, question};

#[tokio::test]
async fn the_operators_ceiling_holds_whatever_is_asked() {
    let site = Site::serve(&["--max-generation-tokens", "5"]);
    for tokens in [Some(100), None] {
        let mut body = question("Tell me a long story.", 0);
        body["max_tokens"] = json!(tokens);
        let answer = site.chat(body).await;
        assert_eq!(answer.finish.as_deref(), Some("length"));
        assert_eq!(answer.usage.unwrap()["completion_tokens"], json!(5));
    }
}

#[tokio::test]
async fn the_limit_that_ended_an_answer_is_told_and_counted() {
    let site = Site::serve(&[
        "--default-max-tokens",
        "6",
        "--max-generation-tokens",
        "9",
        "--max-generation-tokens-per-group",
        "14",
        "--max-model-len",
        "64",
    ]);
    let ask = async |fields: Value| {
        let mut body = question("Tell me a long story.", 0);
        body.as_object_mut().unwrap().remove("max_tokens");
        body["ignore_eos"] = json!(true);
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let response = site.post("/v1/chat/completions", &body).await;
        let limit = response.headers()["x-arcmesh-finish-limit"].to_str().unwrap().to_owned();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["usage"]["finish_limit"], json!(limit));
        (answer["usage"]["completion_tokens"].as_u64().unwrap(), limit)
    };
    assert_eq!(ask(json!({ "max_tokens": 4 })).await, (4, "request".to_owned()));
    assert_eq!(ask(json!({})).await, (6, "operator".to_owned()));
    assert_eq!(ask(json!({ "max_tokens": 100 })).await, (9, "operator".to_owned()));
    assert_eq!(ask(json!({ "max_tokens": 100, "n": 3 })).await, (12, "operator".to_owned()));
    let prompt = json!({ "prompt": "word ".repeat(55), "max_tokens": 100, "ignore_eos": true });
    let response = site.post("/v1/completions", &prompt).await;
    assert_eq!(response.headers()["x-arcmesh-finish-limit"], "context");
    let mut many = question("Hello.", 1);
    many["n"] = json!(15);
    let refused = site.post("/v1/chat/completions", &many).await;
    assert_eq!(refused.status(), 400, "15 answers of 14 tokens");
    let metrics = site.page("/metrics").await;
    for (limit, count) in [("request", 1), ("operator", 5), ("context", 1)] {
        let label = format!("limit=\"{limit}\"");
        let line = metrics
            .lines()
            .find(|line| line.starts_with("arcmesh_length_finish_total") && line.contains(&label));
        assert!(line.unwrap().ends_with(&format!(" {count}")), "{line:?}");
    }
    let strict = Site::serve(&["--max-generation-tokens", "9", "--overlong", "reject"]);
    let refused = strict.post("/v1/chat/completions", &question("Hello.", 10)).await;
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], json!("max_tokens"));
}

#[tokio::test]
async fn the_context_ends_an_answer_and_refuses_a_prompt() {
    let site = Site::serve(&["--max-model-len", "64"]);
    let mut body = question("Tell me a long story.", 0);
    body.as_object_mut().unwrap().remove("max_tokens");
    body["ignore_eos"] = json!(true);
    let answer = site.chat(body).await;
    assert_eq!(answer.finish.as_deref(), Some("length"));
    assert_eq!(answer.usage.unwrap()["total_tokens"], json!(64));

    let refused = site.post("/v1/chat/completions", &question(&"word ".repeat(100), 5)).await;
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], json!("context_length_exceeded"));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("maximum context length is 64 tokens"), "{message}");
}

#[tokio::test]
async fn no_limit_is_got_around() {
    let site = Site::serve(&[]);
    for tokens in [json!(-1), json!(0), json!("many"), json!(1.5)] {
        let mut body = question("Hello.", 1);
        body["max_tokens"] = tokens;
        let refused = site.post("/v1/chat/completions", &body).await;
        assert_eq!(refused.status(), 400, "{body}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["param"], json!("max_tokens"), "{body}");
    }
}

#[tokio::test]
async fn a_key_guards_all_but_the_probes() {
    let site = Site::serve(&["--api-key", "open-sesame"]);
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(site.get(path).await.status(), 200, "{path}");
    }
    for path in ["/v1/models", "/version"] {
        let refused = site.get(path).await;
        assert_eq!(refused.status(), 401, "{path}");
        assert!(refused.headers().contains_key("www-authenticate"));
    }
    let client = reqwest::Client::new();
    let with = client.get(format!("{}/v1/models", site.base)).bearer_auth("open-sesame");
    assert_eq!(with.send().await.unwrap().status(), 200);
}

#[test]
fn generate_writes_one_answer() {
    let mut answer = Process::start(
        &["generate", "What is the capital of France?", "--max-generation-tokens", "12"],
        "",
    );
    assert!(answer.end_by_itself(), "generate failed");
    assert!(!answer.said()[0].is_empty());
}
