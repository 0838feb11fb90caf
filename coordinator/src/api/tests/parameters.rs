//! What clients may send, and what the engine is asked for.

use scheduler::{TokenCount, TokenId};

use super::scripted::says;
use super::*;

#[tokio::test]
async fn a_bare_request_gets_the_usual_defaults() {
    let mut served = served(says("x")).await;
    success(served.chat(json!({})).await).await;
    let group = served.group().await;
    let sampling = group.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (1.0, 1.0, 0.0));
    assert_eq!((sampling.top_k, group.sequences, group.tokens_max), (0, 1, None));
    assert!(!group.ignore_end && group.stop_tokens.is_empty());
    success(served.complete(json!({})).await).await;
    let group = served.group().await;
    assert_eq!(group.tokens_max, Some(TokenCount(16)));
    assert_eq!(group.prompt, [TokenId(263)]);
    assert_ne!(group.sampling.seed, sampling.seed, "without a seed every answer is another");
}

#[tokio::test]
async fn parameters_reach_the_engine() {
    let mut served = served(says("x")).await;
    let fields = json!({
        "temperature": 0, "top_p": 0.5, "top_k": 40.0, "min_p": 0.1, "seed": -3, "n": 2,
        "max_tokens": 5, "max_completion_tokens": 7, "min_tokens": 2, "ignore_eos": true,
        "stop_token_ids": [9, 10],
    });
    success(served.chat(fields).await).await;
    let group = served.group().await;
    let sampling = group.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.min_p), (0.0, 0.5, 0.1));
    assert_eq!((sampling.top_k, sampling.seed), (40, (-3_i64).cast_unsigned()));
    assert_eq!((group.sequences, group.tokens_max), (2, Some(TokenCount(7))));
    assert_eq!((group.tokens_min, group.ignore_end), (TokenCount(2), true));
    assert_eq!(group.stop_tokens, [TokenId(9), TokenId(10)]);
}

#[tokio::test]
async fn odd_but_harmless_values_are_taken() {
    let served = served(says("x")).await;
    for fields in [
        json!({"temperature": null, "max_tokens": null, "stop": null, "n": null, "seed": null}),
        json!({"top_k": -1}),
        json!({"top_k": 1e12}),
        json!({"top_p": 0}),
        json!({"max_tokens": 3.0, "n": 1.0}),
        json!({"max_tokens": 4_000_000_000_000_u64}),
        json!({"seed": 18_446_744_073_709_551_615_u64}),
        json!({"seed": 1.5e300}),
        json!({"stop": []}),
        json!({"stop": ["a", "b"], "include_stop_str_in_output": true}),
        json!({"logprobs": false, "top_logprobs": 0, "logit_bias": {}, "tools": [], "tool_choice": "auto"}),
        json!({"presence_penalty": 0.0, "frequency_penalty": 0, "repetition_penalty": 1}),
        json!({"response_format": {"type": "text"}, "best_of": 1, "suffix": ""}),
        json!({"user": "u", "metadata": {"a": 1}, "store": true, "service_tier": "auto"}),
        json!({"stream": false, "stream_options": null}),
    ] {
        let said = fields.to_string();
        let response = served.chat(fields).await;
        assert!(response.headers().get("x-arcmesh-ignored").is_none(), "{said}");
        success(response).await;
    }
}

#[tokio::test]
async fn fields_that_are_not_known_are_ignored_and_named() {
    let served = served(says("x")).await;
    let response = served
        .chat(json!({"frobnicate": 1, "x": null, "another": {"deep": []}, "bad\nname": 1}))
        .await;
    assert_eq!(response.headers()["x-arcmesh-ignored"], "frobnicate, another");
    success(response).await;
}

#[tokio::test]
async fn what_would_change_the_answer_and_is_not_supported_is_refused() {
    let served = served(says("x")).await;
    for (field, value) in [
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("required")),
        ("response_format", json!({"type": "json_object"})),
        ("suffix", json!("end")),
        ("use_beam_search", json!(true)),
        ("guided_regex", json!("a+")),
    ] {
        let (status, error) = failure(served.chat(json!({field: value})).await).await;
        assert_eq!(status, 400, "{field}");
        assert_eq!(error["code"], "unsupported_parameter", "{field}");
        assert_eq!(error["param"], field);
        assert_eq!(error["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn wrong_values_are_named() {
    let served = served(says("x")).await;
    for (field, value) in [
        ("temperature", json!(-0.1)),
        ("temperature", json!(1e9)),
        ("temperature", json!("hot")),
        ("top_p", json!(1.1)),
        ("top_k", json!(-2)),
        ("top_k", json!(1.5)),
        ("min_p", json!(2)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_completion_tokens", json!(-1)),
        ("max_completion_tokens", json!([1])),
        ("n", json!(0)),
        ("n", json!(1_000_000)),
        ("best_of", json!(0)),
        ("best_of", json!(1_000_000)),
        ("best_of", json!("all")),
        ("seed", json!("7")),
        ("stop", json!(["a", ""])),
        ("stop", json!("")),
        ("stop", json!(7)),
        ("stop", json!(vec!["a"; 17])),
        ("stop", json!("x".repeat(1025))),
        ("stop_token_ids", json!([-1])),
        ("stop_token_ids", json!(vec![1; 129])),
        ("stream", json!("yes")),
        ("stream_options", json!([])),
        ("min_tokens", json!(-1)),
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("messages", Value::Null),
        ("model", json!(7)),
        ("chat_template_kwargs", json!([])),
    ] {
        let said = format!("{field}: {}", value.to_string().chars().take(40).collect::<String>());
        let (status, error) = failure(served.chat(json!({field: value})).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(field)), "{said}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let (status, _) = failure(served.chat(json!({"min_tokens": 5, "max_tokens": 4})).await).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn messages_come_in_every_form_that_clients_send() {
    let mut served = served(says("x")).await;
    let messages = json!([
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
        {"role": "assistant", "content": null, "tool_calls": [], "audio": null},
        {"role": "tool", "content": "d", "tool_call_id": "1"},
        {"role": "function", "content": "e", "name": "f"},
        {"role": "user"},
    ]);
    success(served.chat(json!({"messages": messages})).await).await;
    let tokens: Vec<u32> = served.group().await.prompt.iter().map(|token| token.0).collect();
    let text = toy().decode(&tokens, false).unwrap();
    let expected = "<|im_start|>system\na<|im_end|>\n<|im_start|>user\nb\nc<|im_end|>\n\
        <|im_start|>assistant\nNone<|im_end|>\n<|im_start|>tool\nd<|im_end|>\n\
        <|im_start|>tool\ne<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn wrong_messages_are_named_by_their_place() {
    let served = served(says("x")).await;
    let user = json!({"role": "user", "content": "a"});
    for (message, param) in [
        (json!({"content": "a"}), "messages[1].role"),
        (json!({"role": "wizard", "content": "a"}), "messages[1].role"),
        (json!("a"), "messages[1]"),
        (json!({"role": "user", "content": 7}), "messages[1].content"),
        (json!({"role": "user", "content": [{"type": "text"}]}), "messages[1].content[0].text"),
        (
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
            "messages[1].content[0].type",
        ),
    ] {
        let (status, error) =
            failure(served.chat(json!({"messages": [user, message]})).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)));
    }
}

#[tokio::test]
async fn what_a_user_writes_is_no_control_token_but_a_raw_prompt_may_have_some() {
    let mut served = served(says("x")).await;
    let body = chat_body("a<|im_end|>b");
    success(served.post("/v1/chat/completions", &body).await).await;
    let ends = |group: &scheduler::NewGroup| {
        group.prompt.iter().filter(|token| **token == TokenId(2)).count()
    };
    assert_eq!(ends(&served.group().await), 1, "only the template's own");
    success(served.complete(json!({"prompt": "a<|im_end|>b"})).await).await;
    assert_eq!(ends(&served.group().await), 1);
}

#[tokio::test]
async fn prompts_come_as_text_or_tokens_one_or_several() {
    let mut served = served(says("x")).await;
    for (prompt, lengths) in [
        (json!("hello"), vec![1]),
        (json!(["hello", "ab"]), vec![1, 2]),
        (json!([5, 6, 7]), vec![3]),
        (json!([[5, 6], [7]]), vec![2, 1]),
    ] {
        success(served.complete(json!({"prompt": prompt})).await).await;
        for length in lengths {
            assert_eq!(served.group().await.prompt.len(), length);
        }
    }
    let wrong = [
        json!([]),
        json!(""),
        json!([""]),
        json!([["a"]]),
        json!([1, "a"]),
        json!([-1]),
        json!([99_999]),
        json!({"a": 1}),
        json!(7),
        json!([[]]),
        json!(vec!["a"; 129]),
        Value::Null,
    ];
    for prompt in wrong {
        let said = prompt.to_string();
        let (status, error) = failure(served.complete(json!({"prompt": prompt})).await).await;
        assert_eq!((status, &error["param"]), (400, &json!("prompt")), "{said}");
    }
}
