//! What is asked of logits, of the real model: penalties, and how likely tokens were.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::site::{Site, question};

async fn complete(site: &Site, body: Value) -> Value {
    let response = site.post("/v1/completions", &body).await;
    assert_eq!(response.status(), 200, "{body}");
    response.json().await.unwrap()
}

/// Scores tokens as evaluation harnesses do: the prompt is echoed and nothing generated.
async fn score(site: &Site, tokens: &[Value]) -> Value {
    let body = json!({
        "prompt": [tokens], "max_tokens": 0, "echo": true, "logprobs": 5, "temperature": 0,
    });
    complete(site, body).await["choices"][0]["logprobs"].take()
}

/// What a prompt is said to be worth is to the bit what generating it said, and depends neither on
/// how many ranks there are nor on the pieces in which it is computed.
#[tokio::test]
async fn scoring_an_answer_says_what_generating_it_said() {
    let one = Site::serve(&["--threads", "1"]);
    let prompt: Value = one
        .post("/tokenize", &json!({ "prompt": "The capital of France is" }))
        .await
        .json()
        .await
        .unwrap();
    let mut tokens = prompt["tokens"].as_array().unwrap().clone();
    let asked = json!({
        "prompt": tokens, "max_tokens": 24, "temperature": 0, "logprobs": 5, "ignore_eos": true,
    });
    let answer = complete(&one, asked.clone()).await;
    let generated = &answer["choices"][0]["logprobs"];
    let count = generated["token_logprobs"].as_array().unwrap().len();
    assert_eq!(count, 24);
    let text = answer["choices"][0]["text"].as_str().unwrap();
    let told: String =
        generated["tokens"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(told, text);

    let answer_tokens: Value =
        one.post("/tokenize", &json!({ "prompt": text })).await.json().await.unwrap();
    tokens.extend(answer_tokens["tokens"].as_array().unwrap().iter().cloned());
    assert_eq!(tokens.len(), 5 + 24, "the text has another encoding: choose another prompt");
    let scored = score(&one, &tokens).await;
    assert_eq!(score(&one, &tokens).await, scored, "whatever is known of the prompt by now");
    assert_eq!(scored["token_logprobs"][0], Value::Null);
    for list in ["token_logprobs", "top_logprobs", "tokens"] {
        let last = &scored[list].as_array().unwrap()[5..];
        assert_eq!(last, generated[list].as_array().unwrap().as_slice(), "{list}");
    }
    // the greedy choice is the likeliest, as harnesses check
    for (logprob, top) in scored["token_logprobs"].as_array().unwrap()[5..]
        .iter()
        .zip(&scored["top_logprobs"].as_array().unwrap()[5..])
    {
        let top = top.as_object().unwrap().values().map(|it| it.as_f64().unwrap());
        assert_eq!(logprob.as_f64().unwrap(), top.fold(f64::NEG_INFINITY, f64::max));
    }
    let pieces = Site::serve(&[
        "--world",
        "2",
        "--threads",
        "1",
        "--max-num-batched-tokens",
        "8",
        "--max-num-seqs",
        "4",
    ]);
    let group = Site::group(3, &[]);
    for other in [&pieces, &group] {
        assert_eq!(score(other, &tokens).await, scored);
        let other = complete(other, asked.clone()).await;
        assert_eq!(other["choices"], answer["choices"]);
    }
}

#[tokio::test]
async fn a_long_prompt_is_scored_in_pieces() {
    let site = Site::serve(&[]);
    let tokens: Vec<Value> = (0..900).map(|at| json!(1000 + at * 37 % 4000)).collect();
    let (whole, half) = tokio::join!(score(&site, &tokens), score(&site, &tokens[..450]));
    assert_eq!(whole["token_logprobs"].as_array().unwrap().len(), 900);
    let first = &whole["token_logprobs"].as_array().unwrap()[..450];
    assert_eq!(first, half["token_logprobs"].as_array().unwrap().as_slice());
}

#[tokio::test]
async fn penalties_and_bias_change_an_answer_and_nothing_else_does() {
    let roomy = Site::serve(&["--threads", "1"]);
    let plain = roomy.chat(question("Say the word duck again and again.", 60)).await;
    let asks = || {
        let bent = [
            json!({ "frequency_penalty": 1.5 }),
            json!({ "presence_penalty": 1.5 }),
            json!({ "repetition_penalty": 1.3 }),
            json!({ "repetition_penalty": 1.1, "frequency_penalty": 0.3, "temperature": 0.8, "seed": 3 }),
        ];
        bent.map(|fields| {
            let mut body = question("Say the word duck again and again.", 60);
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            body
        })
    };
    let mut alone = Vec::new();
    for ask in asks() {
        alone.push(roomy.chat(ask).await);
    }
    for (at, answer) in alone.iter().enumerate() {
        assert_ne!(answer.text, plain.text, "{at}");
    }
    // preempted, and on two ranks: the penalties look back on the same tokens
    let short = Site::serve(&[
        "--threads",
        "1",
        "--world",
        "2",
        "--kv-blocks",
        "14",
        "--prefix-cache",
        "off",
        "--admission",
        "prompt",
        "--max-model-len",
        "128",
    ]);
    assert_eq!(alone, join_all(asks().map(|ask| short.chat(ask))).await);
    let metrics = short.page("/metrics").await;
    let preempted = metrics.lines().find(|line| line.starts_with("vllm:num_preemptions_total"));
    assert!(!preempted.unwrap().ends_with(" 0"), "nothing was preempted: the test proves nothing");
}

#[tokio::test]
async fn a_banned_token_is_not_said_and_an_answer_is_as_long_as_it_must_be() {
    let site = Site::serve(&[]);
    let ask = |fields: Value| {
        let mut body =
            json!({ "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0 });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        complete(&site, body)
    };
    let plain = ask(json!({ "logprobs": 0 })).await;
    assert_eq!(plain["choices"][0]["logprobs"]["tokens"][0], " Paris");
    let paris: Value =
        site.post("/tokenize", &json!({ "prompt": " Paris" })).await.json().await.unwrap();
    let paris = paris["tokens"][0].as_u64().unwrap().to_string();
    let banned = ask(json!({ "logit_bias": { paris.as_str(): -100 } })).await;
    assert!(!banned["choices"][0]["text"].as_str().unwrap().contains(" Paris"), "{banned}");
    let forced = ask(json!({ "logit_bias": { paris.as_str(): 100 } })).await;
    assert_eq!(forced["choices"][0]["text"], " Paris".repeat(8));

    let short = |tokens_min: u32| {
        let mut body = question("Answer with one word: what is the capital of France?", 60);
        body["min_tokens"] = json!(tokens_min);
        site.chat(body)
    };
    let ended = short(0).await;
    assert_eq!(ended.finish.as_deref(), Some("stop"));
    let count = ended.usage.unwrap()["completion_tokens"].as_u64().unwrap();
    assert!(count < 40, "{count}: the answer is too long to be made longer");
    let longer = short(50).await;
    assert!(longer.usage.unwrap()["completion_tokens"].as_u64().unwrap() >= 50);
    assert!(longer.text.starts_with(&ended.text) && longer.text != ended.text, "{}", longer.text);
}
