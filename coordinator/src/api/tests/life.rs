//! An answer's life: stop strings, failures midway, clients that go away.

use futures::StreamExt;
use scheduler::{CancelReason, FinishReason, LengthLimit, TokenId};

use super::scripted::says;
use super::*;
use crate::engine::Failure;
use crate::prompt::toy::{FIRST_BYTE, IM_END};

/// Bytes as tokens of the first sequence.
fn bytes(text: &str) -> Vec<Act> {
    text.bytes().map(|byte| Act::Token(0, FIRST_BYTE + u32::from(byte))).collect()
}

fn content(answer: &Value) -> (&str, &str) {
    let choice = &answer["choices"][0];
    let content = choice["message"]["content"].as_str().unwrap();
    (content, choice["finish_reason"].as_str().unwrap())
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_calls_the_group_off() {
    let mut served = served(|_| [bytes("one\nUser: two"), vec![Act::Wait]].concat()).await;
    for stream in [false, true] {
        let response = served.chat(json!({"stop": ["\nUser:", "zzz"], "stream": stream})).await;
        let text = response.text().await.unwrap();
        if stream {
            assert!(!text.contains("User") && text.ends_with("data: [DONE]\n\n"), "{text}");
            assert!(text.contains(r#""delta":{},"logprobs":null,"finish_reason":"stop""#));
        } else {
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(content(&answer), ("one", "stop"));
            assert_eq!(answer["usage"]["completion_tokens"], 9, "as many as it took");
        }
        served.group().await;
        assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Stop));
    }
    assert_eq!(served.series("arcmesh_client_disconnects_total"), 0.0);
}

#[tokio::test]
async fn a_stop_string_is_part_of_the_answer_if_asked_for() {
    let served = served(says("abcd")).await;
    let fields = json!({"stop": "bc", "include_stop_str_in_output": true});
    let answer = success(served.chat(fields).await).await;
    assert_eq!(content(&answer), ("abc", "stop"));
    let answer = success(served.chat(json!({"stop": "bc", "min_tokens": 4})).await).await;
    assert_eq!(content(&answer).0, "abcd", "nothing stops before the least length");
}

#[tokio::test]
async fn one_sequence_may_stop_while_another_goes_on() {
    let mut served = served(|_| {
        let one = |index| move |byte: u8| Act::Token(index, FIRST_BYTE + u32::from(byte));
        let mut acts: Vec<Act> = "abX".bytes().map(one(0)).collect();
        acts.extend("cd".bytes().map(one(1)));
        acts.extend("more".bytes().map(one(0)));
        acts.push(Act::Token(1, IM_END));
        acts.push(Act::Finish(1, FinishReason::Stop(Some(TokenId(IM_END)))));
        acts.push(Act::Wait);
        acts
    })
    .await;
    let answer = success(served.chat(json!({"n": 2, "stop": "X"})).await).await;
    assert_eq!(content(&answer), ("ab", "stop"));
    assert_eq!(answer["choices"][1]["message"]["content"], "cd");
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    served.group().await;
    assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Stop));
}

#[tokio::test]
async fn tokens_that_end_an_answer_are_not_shown_unless_asked_for() {
    let served = served(says("ab.cd")).await;
    let dot = FIRST_BYTE + u32::from(b'.');
    for (fields, shown) in [
        (json!({}), "ab.cd"),
        (json!({"skip_special_tokens": false}), "ab.cd"),
        (
            json!({"skip_special_tokens": false, "include_stop_str_in_output": true}),
            "ab.cd<|im_end|>",
        ),
        (json!({"stop_token_ids": [dot]}), "ab"),
        (json!({"stop_token_ids": [dot], "include_stop_str_in_output": true}), "ab."),
    ] {
        let said = fields.to_string();
        let answer = success(served.chat(fields).await).await;
        assert_eq!(content(&answer), (shown, "stop"), "{said}");
    }
}

#[tokio::test]
async fn control_tokens_midway_are_shown_only_if_asked_for() {
    let script = |_: &scheduler::NewGroup| {
        let mut acts = bytes("a");
        acts.push(Act::Token(0, IM_END));
        acts.extend(bytes("b"));
        acts.push(Act::Token(0, IM_END));
        acts.push(Act::Finish(0, FinishReason::Length(LengthLimit::Context)));
        acts
    };
    let served = served(script).await;
    let answer = success(served.chat(json!({"ignore_eos": true})).await).await;
    assert_eq!(content(&answer), ("ab", "length"));
    // The toy's fallback template stops at the text of `<|im_end|>` too; completions do not.
    let fields = json!({"ignore_eos": true, "skip_special_tokens": false});
    let answer = success(served.complete(fields).await).await;
    assert_eq!(answer["choices"][0]["text"], "a<|im_end|>b<|im_end|>");
}

#[tokio::test]
async fn a_failure_midway_is_an_error_object_and_then_the_end() {
    let served =
        served(|_| [bytes("ab"), vec![Act::Fail(Failure::Broken, "rank 1 is lost")]].concat())
            .await;
    let (status, error) = failure(served.chat(json!({})).await).await;
    assert_eq!((status, &error["type"]), (500, &json!("server_error")));
    assert_eq!(error["message"], "rank 1 is lost");
    let text = served.chat(json!({"stream": true})).await.text().await.unwrap();
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let expected = r#"data: {"error":{"message":"rank 1 is lost","type":"server_error","param":null,"code":"answer_failed"}}"#;
    assert_eq!(last, expected);
    assert!(!text.contains("finish_reason\":\"") && !text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn a_sequence_that_ends_without_an_end_is_a_failure() {
    for reason in [FinishReason::Abort, FinishReason::Error] {
        let served = served(move |_| [bytes("ab"), vec![Act::Finish(0, reason)]].concat()).await;
        assert_eq!(failure(served.chat(json!({})).await).await.0, 500);
        let text = served.chat(json!({"stream": true})).await.text().await.unwrap();
        assert!(text.contains(r#"data: {"error":{"#) && !text.contains("[DONE]"), "{text}");
    }
}

#[tokio::test]
async fn who_waited_too_long_gets_a_status_of_its_own_streamed_or_not() {
    for (why, status, code) in
        [(Failure::Queue, 503, "queue_timeout"), (Failure::Timeout, 504, "timeout")]
    {
        let served = served(move |_| vec![Act::Fail(why, "too late")]).await;
        for stream in [false, true] {
            let response = served.chat(json!({"stream": stream})).await;
            let headers = response.headers().clone();
            let (got, error) = failure(response).await;
            assert_eq!((got, &error["code"]), (status, &json!(code)));
            assert_eq!(headers.contains_key("retry-after"), why == Failure::Queue);
            assert_eq!(headers.contains_key("x-should-retry"), why == Failure::Timeout);
        }
        assert_eq!(served.series(&format!("arcmesh_rejected_total{{code=\"{code}\"")), 2.0);
    }
}

#[tokio::test]
async fn a_timeout_is_seconds_in_the_body_or_in_the_head() {
    let served = served(says("x")).await;
    for wrong in [json!(0), json!(-1), json!("5")] {
        let (status, error) = failure(served.chat(json!({"timeout": wrong})).await).await;
        assert_eq!((status, &error["param"]), (400, &json!("timeout")));
    }
    let post = served.client.post(served.url("/v1/chat/completions"));
    let response = post.header("x-arcmesh-timeout", "soon").json(&chat_body("hello")).send().await;
    let (status, error) = failure(response.unwrap()).await;
    assert_eq!((status, &error["param"]), (400, &json!("x-arcmesh-timeout")));
    success(served.chat(json!({"timeout": 2.5})).await).await;
}

#[tokio::test]
async fn who_waits_long_is_told_that_the_stream_lives() {
    let script = |_: &scheduler::NewGroup| {
        let mut acts = vec![Act::Wait];
        acts.extend(bytes("a"));
        acts.push(Act::Finish(0, FinishReason::Length(LengthLimit::Request)));
        acts
    };
    let served = served_as(script, |api| {
        api.limits.keep_alive_every = std::time::Duration::from_millis(1);
    })
    .await;
    let response = served.chat(json!({"stream": true})).await;
    let mut parts = response.bytes_stream();
    assert!(parts.next().await.unwrap().unwrap().starts_with(b": ping\n\n"));
    served.release.notify_one();
    let mut text = String::new();
    while let Some(part) = parts.next().await {
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
    }
    assert!(text.contains(r#""content":"a""#) && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_group() {
    let mut served = served(|_| [bytes("ab"), vec![Act::Wait]].concat()).await;
    let response = served.chat(json!({"stream": true})).await;
    let mut parts = response.bytes_stream();
    assert!(parts.next().await.unwrap().is_ok());
    drop(parts);
    served.group().await;
    assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Abort));
    assert_eq!(served.series("arcmesh_client_disconnects_total"), 1.0);

    let request = served.client.post(served.url("/v1/chat/completions")).json(&chat_body("hello"));
    let waiting = tokio::spawn(request.send());
    served.group().await;
    waiting.abort();
    assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Abort));
    assert_eq!(served.series("arcmesh_client_disconnects_total"), 2.0);
}

#[tokio::test]
async fn if_one_of_several_prompts_is_refused_the_others_are_called_off() {
    let script = |group: &scheduler::NewGroup| match group.prompt.len() {
        1 => vec![Act::Wait],
        _ => vec![Act::Refuse(scheduler::Refusal::QueueFull { waiting: 1 }.into())],
    };
    let mut served = served(script).await;
    assert_eq!(failure(served.complete(json!({"prompt": ["a", "bb"]})).await).await.0, 429);
    served.group().await;
    served.group().await;
    assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Abort));
}

#[tokio::test]
async fn who_reads_nothing_is_cut_off() {
    let mut served = served_as(
        |_| bytes(&"a".repeat(200_000)),
        |api| api.limits.write_stall_max = std::time::Duration::from_millis(50),
    )
    .await;
    let response = served.chat(json!({"stream": true})).await;
    served.group().await;
    assert_eq!(served.heard().await, Said::Cancelled(CancelReason::Abort));
    drop(response);
}
