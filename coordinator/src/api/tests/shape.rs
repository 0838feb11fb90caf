//! What answers look like, byte for byte.

use super::scripted::says;
use super::*;

/// A stream's text, with its id and time replaced; and the head's status and headers checked.
async fn stream(response: Response) -> String {
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-accel-buffering"], "no");
    let text = response.text().await.unwrap();
    let first = text.lines().next().unwrap().strip_prefix("data: ").unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    let (id, created) = (first["id"].as_str().unwrap(), first["created"].as_u64().unwrap());
    text.replace(id, "ID").replace(&format!("\"created\":{created}"), "\"created\":0")
}

fn chunk(object: &str, rest: &str) -> String {
    format!(
        "data: {{\"id\":\"ID\",\"object\":\"{object}\",\"created\":0,\"model\":\"toy\",\
         \"system_fingerprint\":\"fp_toy\",{rest}}}\n\n"
    )
}

fn delta(delta: &str, finish: &str) -> String {
    let choice = format!(
        "\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]"
    );
    chunk("chat.completion.chunk", &choice)
}

#[tokio::test]
async fn a_chat_streams_role_text_reason_and_done() {
    let served = served(says("hi")).await;
    let expected = [
        delta(r#"{"role":"assistant","content":""}"#, "null"),
        delta(r#"{"content":"h"}"#, "null"),
        delta(r#"{"content":"i"}"#, "null"),
        delta("{}", r#""stop""#),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(stream(served.chat(json!({"stream": true})).await).await, expected.concat());
}

#[tokio::test]
async fn usage_comes_last_and_is_null_before() {
    let served = served(says("h")).await;
    let response =
        served.chat(json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    let null = |chunk: String| chunk.replace("}\n\n", ",\"usage\":null}\n\n");
    let expected = [
        null(delta(r#"{"role":"assistant","content":""}"#, "null")),
        null(delta(r#"{"content":"h"}"#, "null")),
        null(delta("{}", r#""stop""#)),
        chunk(
            "chat.completion.chunk",
            r#""choices":[],"usage":{"prompt_tokens":20,"completion_tokens":2,"total_tokens":22,"prompt_tokens_details":{"cached_tokens":3}}"#,
        ),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(stream(response).await, expected.concat());
}

#[tokio::test]
async fn a_completion_streams_text() {
    let served = served(says("hi")).await;
    let text = |text: &str, finish: &str| {
        let choice = format!(
            "\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\"finish_reason\":{finish}}}]"
        );
        chunk("text_completion", &choice)
    };
    let expected = [
        text("h", "null"),
        text("i", "null"),
        text("", r#""stop""#),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(stream(served.complete(json!({"stream": true})).await).await, expected.concat());
}

#[tokio::test]
async fn a_character_is_never_split_and_half_a_one_at_the_end_is_left_out() {
    let served = served(says("é🎉")).await;
    let text = stream(served.chat(json!({"stream": true})).await).await;
    let shown: Vec<&str> = text.split("\"content\":\"").skip(1).collect();
    let shown: Vec<&str> = shown.iter().map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(shown, ["", "é", "🎉"]);
    let answer = success(served.chat(json!({"max_tokens": 4})).await).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "é");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn a_whole_chat_has_what_clients_look_for() {
    let served = served(says("hi there")).await;
    let response = served.chat(json!({})).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-max-tokens-effective"], "80");
    let mut answer = success(response).await;
    let id = answer["id"].take();
    assert!(id.as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].take().as_u64().unwrap() > 1_700_000_000);
    let expected = json!({
        "id": null, "object": "chat.completion", "created": null, "model": "toy",
        "system_fingerprint": "fp_toy",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "hi there", "refusal": null},
            "logprobs": null, "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_whole_completion_has_what_clients_look_for() {
    let served = served(says("hi there, this is long")).await;
    let mut answer = success(served.complete(json!({"model": "org/alias"})).await).await;
    assert!(answer["id"].take().as_str().unwrap().starts_with("cmpl-"));
    answer["created"].take();
    let expected = json!({
        "id": null, "object": "text_completion", "created": null, "model": "org/alias",
        "system_fingerprint": "fp_toy",
        "choices": [{
            "index": 0, "text": "hi there, this i", "logprobs": null, "finish_reason": "length",
        }],
        "usage": {
            "prompt_tokens": 1, "completion_tokens": 16, "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 3},
            "finish_limit": "request",
        },
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn every_prompt_and_every_sequence_has_its_index() {
    let mut served = served(says("x")).await;
    let fields = json!({"prompt": ["a", "bb"], "n": 2, "echo": true});
    let answer = success(served.complete(fields).await).await;
    let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().collect();
    let shown = |choice: &Value| (choice["index"].as_u64().unwrap(), choice["text"].clone());
    let expected = [(0, "ax"), (1, "ax"), (2, "bbx"), (3, "bbx")];
    for (choice, (index, text)) in texts.into_iter().zip(expected) {
        assert_eq!(shown(choice), (index, json!(text)));
    }
    assert_eq!(answer["usage"]["prompt_tokens"], 3, "each prompt once");
    assert_eq!(answer["usage"]["completion_tokens"], 8, "all sequences");
    let (first, second) = (served.group().await, served.group().await);
    assert_eq!((first.prompt.len(), first.sequences), (1, 2));
    assert_eq!((second.prompt.len(), second.sequences), (2, 2));
}

#[tokio::test]
async fn streams_of_several_sequences_end_each_once() {
    let served = served(says("xy")).await;
    let text = stream(served.chat(json!({"stream": true, "n": 2})).await).await;
    for index in [0, 1] {
        let of = |rest: &str| text.matches(&format!("\"index\":{index},{rest}")).count();
        assert_eq!(of("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"), 1);
        assert_eq!(of("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\""), 1);
        assert_eq!(of("\"delta\":{\"content\":\"x\"}"), 1);
    }
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn models_are_listed_by_every_name() {
    let served = served(says("")).await;
    let list = success(served.get("/v1/models").await).await;
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "toy");
    assert_eq!(list["data"][1]["id"], "org/alias");
    let expected = json!({
        "id": "org/alias", "object": "model", "created": 7, "owned_by": "arcmesh", "root": "toy",
        "parent": null, "max_model_len": CONTEXT, "permission": [],
    });
    assert_eq!(success(served.get("/v1/models/org/alias").await).await, expected);
    let (status, error) = failure(served.get("/v1/models/other").await).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn texts_become_tokens_and_tokens_texts() {
    let served = served(says("")).await;
    let tokens = success(
        served
            .post("/tokenize", &json!({"prompt": "hello<|im_end|>", "return_token_strs": true}))
            .await,
    )
    .await;
    let expected = json!({
        "count": 2, "max_model_len": CONTEXT, "tokens": [263, 2], "token_strs": ["hello", "<|im_end|>"],
    });
    assert_eq!(tokens, expected);
    let chat = success(served.post("/tokenize", &chat_body("hello")).await).await;
    assert_eq!(chat["count"], 20);
    let text = success(served.post("/detokenize", &json!({"tokens": [263, 2]})).await).await;
    assert_eq!(text, json!({"prompt": "hello<|im_end|>"}));
    let (status, error) =
        failure(served.post("/detokenize", &json!({"tokens": [9999]})).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("tokens")));
}

#[tokio::test]
async fn probes_say_how_it_is() {
    let served = served(says("")).await;
    assert_eq!(success(served.get("/health").await).await, json!({"status": "ok"}));
    assert_eq!(success(served.get("/ready").await).await, json!({"status": "ready"}));
    assert_eq!(success(served.get("/version").await).await["version"], env!("CARGO_PKG_VERSION"));
    let metrics = served.get("/metrics").await;
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text().await.unwrap().contains("vllm:num_requests_running"));
}
