//! Bias, penalties, and how likely tokens were.

use scheduler::{FinishReason, LengthLimit, TokenCount, TokenId};

use super::scripted::{Act, says};
use super::*;
use crate::engine::Likelihoods;
use crate::prompt::toy::{FIRST_BYTE, IM_END};

const END: FinishReason = FinishReason::Stop(Some(TokenId(IM_END)));

/// Says `text`; its tokens are ever less likely, and the prompt was likely, too.
fn likely(text: &'static str) -> impl Fn(&scheduler::NewGroup) -> Vec<Act> + Send + Sync + 'static {
    move |group| {
        let prompt = group.prompt.iter().skip(1).map(|_| -3.0).collect();
        let mut acts = vec![Act::Prompt(prompt)];
        for (byte, at) in text.bytes().zip(1_u16..) {
            acts.push(Act::Likely(0, FIRST_BYTE + u32::from(byte), -f32::from(at) / 4.0));
        }
        acts.extend([Act::Likely(0, IM_END, -2.0), Act::Finish(0, END)]);
        acts
    }
}

#[tokio::test]
async fn bias_and_penalties_reach_the_engine() {
    let mut served = served(says("x")).await;
    let fields = json!({
        "logit_bias": {"5": -100, "7": 1.5}, "repetition_penalty": 1.25,
        "presence_penalty": -0.5, "frequency_penalty": 2,
    });
    let response = served.chat(fields).await;
    assert!(response.headers().get("x-arcmesh-ignored").is_none());
    success(response).await;
    let wishes = served.submitted().await.1;
    assert_eq!(wishes.bias, [(TokenId(5), -100.0), (TokenId(7), 1.5)]);
    assert_eq!((wishes.repetition, wishes.presence, wishes.frequency), (1.25, -0.5, 2.0));
    assert_eq!(wishes.likelihoods, None);
    success(served.chat(json!({})).await).await;
    assert_eq!(served.submitted().await.1, Wishes::default());
}

#[tokio::test]
async fn wrong_values_are_named() {
    let served = served(says("x")).await;
    for (field, value) in [
        ("presence_penalty", json!(2.1)),
        ("frequency_penalty", json!(-2.1)),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!(-1)),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"-1": 1})),
        ("logit_bias", json!({"100000000": 1})),
        ("logit_bias", json!({"5": 101})),
        ("logit_bias", json!([5])),
        ("top_logprobs", json!(3)),
        ("top_logprobs", json!(21)),
        ("top_logprobs", json!(-1)),
        ("logprobs", json!(3)),
    ] {
        let (status, error) = failure(served.chat(json!({field: value})).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(field)), "{value}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    for (fields, param) in [
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1, "echo": true}), "max_tokens"),
    ] {
        let (status, error) = failure(served.complete(fields).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)));
    }
}

#[tokio::test]
async fn a_chat_tells_of_every_token_whole_and_streamed() {
    let mut served = served(likely("ab")).await;
    let asked = json!({"logprobs": true, "top_logprobs": 1});
    let whole = success(served.chat(asked.clone()).await).await;
    let wanted = Likelihoods { top: 1, prompt: false };
    assert_eq!(served.submitted().await.1.likelihoods, Some(wanted));
    let top = json!([{"token": "b", "logprob": -0.25, "bytes": [98]}]);
    let told = |token: &str, logprob: f64| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes(), "top_logprobs": top});
    let content = json!([told("a", -0.25), told("b", -0.5), told("<|im_end|>", -2.0)]);
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], "ab");
    assert_eq!(choice["logprobs"], json!({"content": content, "refusal": null}));

    let stream = served.chat(with(asked, json!({"stream": true}))).await.text().await.unwrap();
    let mut streamed = vec![];
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: {")) {
        let chunk: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
        let logprobs = &chunk["choices"][0]["logprobs"]["content"];
        streamed.extend(logprobs.as_array().cloned().unwrap_or_default());
    }
    assert_eq!(json!(streamed), content);
}

#[tokio::test]
async fn an_echo_tells_of_the_prompt_and_where_each_text_begins() {
    let mut served = served(likely("ab")).await;
    let asked = json!({"prompt": "héh", "logprobs": 1, "echo": true});
    let whole = success(served.complete(asked).await).await;
    let wanted = Likelihoods { top: 1, prompt: true };
    assert_eq!(served.submitted().await.1.likelihoods, Some(wanted));
    let choice = &whole["choices"][0];
    assert_eq!(choice["text"], "héhab");
    let logprobs = &choice["logprobs"];
    assert_eq!(
        logprobs["tokens"],
        json!(["h", "bytes:\\xc3", "bytes:\\xa9", "h", "a", "b", "<|im_end|>"])
    );
    assert_eq!(logprobs["token_logprobs"], json!([null, -3.0, -3.0, -3.0, -0.25, -0.5, -2.0]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 1, 2, 3, 4, 5]));
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][3], json!({"b": -0.25, "h": -3.0}));
    assert_eq!(logprobs["top_logprobs"][5], json!({"b": -0.25}));
}

#[tokio::test]
async fn a_prompt_is_scored_and_nothing_generated() {
    let mut served = served(|_| {
        let limit = FinishReason::Length(LengthLimit::Request);
        vec![Act::Prompt(vec![-3.0]), Act::Likely(0, 100, -1.0), Act::Finish(0, limit)]
    })
    .await;
    let asked = json!({"prompt": [100, 101], "logprobs": 0, "echo": true, "max_tokens": 0});
    let whole = success(served.complete(asked).await).await;
    let group = served.group().await;
    assert_eq!(group.tokens_max, Some(TokenCount(1)), "a step needs a token");
    assert!(group.whole_prompt, "every token of the prompt is scored");
    let choice = &whole["choices"][0];
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, -3.0]));
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 0);
    assert_eq!(whole["usage"]["total_tokens"], 2);
}

/// The second sequence is the likeliest for each of its tokens, though not as a whole.
fn three_ways(group: &scheduler::NewGroup) -> Vec<Act> {
    assert_eq!(group.sequences, 3);
    let say = |index: u32, text: &str, logprob: f32| {
        let likely =
            text.bytes().map(move |byte| Act::Likely(index, FIRST_BYTE + u32::from(byte), logprob));
        let limit = FinishReason::Length(LengthLimit::Operator);
        let end = if index == 0 { limit } else { END };
        likely.chain([Act::Finish(index, end)]).collect::<Vec<_>>()
    };
    let prompt = group.prompt.iter().skip(1).map(|_| -3.0).collect();
    [vec![Act::Prompt(prompt)], say(0, "x", -0.75), say(2, "zz", -1.0), say(1, "yyyy", -0.5)]
        .concat()
}

#[tokio::test]
async fn of_more_sequences_than_choices_the_likeliest_for_each_token_are_given() {
    let mut served = served(three_ways).await;
    let whole = success(served.complete(json!({"best_of": 3})).await).await;
    let (group, wishes) = served.submitted().await;
    assert_eq!((group.sequences, group.whole_prompt), (3, false));
    assert_eq!(wishes.likelihoods, Some(Likelihoods { top: 0, prompt: false }));
    let choices = whole["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 1);
    assert_eq!((&choices[0]["text"], &choices[0]["index"]), (&json!("yyyy"), &json!(0)));
    assert_eq!(choices[0]["logprobs"], Value::Null, "nobody asked");
    assert_eq!(whole["usage"]["completion_tokens"], 7, "all of them were made");
    assert_eq!(whole["usage"].get("finish_limit"), None, "what it cut short is not told");

    let asked = json!({"prompt": ["a", "b"], "best_of": 3, "n": 2, "logprobs": 0, "echo": true});
    let response = served.complete(asked).await;
    assert_eq!(response.headers()["x-arcmesh-finish-limit"], "operator");
    let whole = success(response).await;
    let texts: Vec<&Value> =
        whole["choices"].as_array().unwrap().iter().map(|c| &c["text"]).collect();
    assert_eq!(texts, ["ayyyy", "ax", "byyyy", "bx"]);
    assert_eq!(whole["choices"][3]["index"], 3);
    let logprobs = &whole["choices"][1]["logprobs"]["token_logprobs"];
    assert_eq!(logprobs.as_array().unwrap().last(), Some(&json!(-0.75)));
}

#[tokio::test]
async fn what_is_chosen_last_cannot_be_streamed() {
    let served = served(says("x")).await;
    let fields = json!({"best_of": 2, "stream": true});
    let (status, error) = failure(served.complete(fields).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("best_of")));
    let (status, _) = failure(served.complete(json!({"best_of": 2, "n": 3})).await).await;
    assert_eq!(status, 400);
    let stream = served.complete(json!({"best_of": 2, "n": 2, "stream": true})).await;
    assert_eq!(stream.status(), 200);
}
