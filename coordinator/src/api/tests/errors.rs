//! Every way to be refused: status, object, headers.

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use scheduler::{FinishReason, LengthLimit, Refusal, TokenCount};

use super::scripted::{Act, says};
use super::*;
use crate::ceiling::Ceiling;
use crate::config::Overlong;
use crate::engine::SubmitError;

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let served = served(says("x")).await;
    let deep = format!("{{\"messages\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let wide: String = (0..300).map(|field| format!("\"f{field}\":1,")).collect();
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\"hello\"".to_vec(),
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}".to_vec(),
        b"{\"temperature\":NaN,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}".to_vec(),
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}".to_vec(),
        b"{\"messages\":[]} x".to_vec(),
        deep.into_bytes(),
        format!("{{{wide}\"z\":1}}").into_bytes(),
    ];
    for body in bodies {
        let said = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
            let (status, error) = failure(served.post_text(path, body.clone()).await).await;
            assert_eq!(status, 400, "{path} {said}");
            assert_eq!(error["type"], "invalid_request_error");
        }
    }
    let huge = r#"{"temperature":1e999,"messages":[{"role":"user","content":"a"}]}"#;
    let (status, error) = failure(served.post_text("/v1/chat/completions", huge).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("temperature")));
}

#[tokio::test]
async fn paths_methods_types_and_sizes_are_refused_in_the_same_shape() {
    let served = served_as(says("x"), |api| api.limits.body_bytes_max = 1000).await;
    let (status, error) = failure(served.get("/nowhere").await).await;
    assert_eq!((status, &error["code"]), (404, &json!("unknown_url")));
    let response = served.get("/v1/chat/completions").await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(failure(response).await.0, 405);
    assert_eq!(failure(served.post("/v1/models", &json!({})).await).await.0, 405);
    let url = served.url("/v1/completions");
    let form = served.client.post(&url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(failure(form.body("prompt=a").send().await.unwrap()).await.0, 415);
    let zipped = served.client.post(&url).json(&json!({})).header(CONTENT_ENCODING, "gzip");
    assert_eq!(failure(zipped.send().await.unwrap()).await.0, 415);
    let large = json!({"prompt": "a".repeat(1000)});
    let (status, error) = failure(served.post("/v1/completions", &large).await).await;
    assert_eq!((status, &error["code"]), (413, &json!("body_too_large")));
    let parts: Vec<Result<Vec<u8>, std::io::Error>> =
        vec![Ok(vec![b' '; 600]), Ok(vec![b' '; 600])];
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(parts));
    let response = served.client.post(&url).body(chunked).send().await.unwrap();
    assert_eq!(failure(response).await.0, 413, "also where no length is said");
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let served = served(says("x")).await;
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
        let (status, error) = failure(served.post(path, &json!({"model": "gpt-9"})).await).await;
        assert_eq!((status, &error["code"]), (404, &json!("model_not_found")), "{path}");
        assert_eq!(error["message"], "The model `gpt-9` does not exist");
    }
}

#[tokio::test]
async fn a_prompt_that_leaves_no_room_is_too_long() {
    let served = served(says("x")).await;
    for length in [CONTEXT, 100_000] {
        let prompt = "a".repeat(length as usize);
        let (status, error) = failure(served.complete(json!({"prompt": prompt})).await).await;
        assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(error["param"], "prompt");
        let message = error["message"].as_str().unwrap();
        let begin = "This model's maximum context length is 100 tokens. However, your prompt";
        assert!(message.starts_with(begin), "{message}");
    }
    let body = chat_body(&"a".repeat(CONTEXT as usize));
    let (_, error) = failure(served.post("/v1/chat/completions", &body).await).await;
    assert_eq!(error["param"], "messages");
    assert_eq!(served.series("arcmesh_rejected_total{code=\"context_length_exceeded\""), 3.0);
}

#[tokio::test]
async fn prompt_and_answer_together_are_clamped_or_refused_as_configured() {
    let clamping = served(says("x")).await;
    let response = clamping.chat(json!({"max_tokens": 1000})).await;
    assert_eq!(response.headers()["x-max-tokens-effective"], "80");
    success(response).await;
    let strict = served_as(says("x"), |api| {
        api.limits.overlong = Overlong::Reject;
    })
    .await;
    let (status, error) = failure(strict.chat(json!({"max_tokens": 81})).await).await;
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("you requested 101 tokens (20 in the messages, 81 in"), "{message}");
    success(strict.chat(json!({"max_tokens": 80})).await).await;
}

#[tokio::test]
async fn the_operators_ceiling_is_told_and_clamps_or_refuses_as_configured() {
    let ceiling = Ceiling { usual: Some(7), sequence: Some(10), group: Some(24) };
    let clamping = served_as(says("x"), move |api| api.limits.ceiling = ceiling).await;
    for (fields, most) in [
        (json!({"max_tokens": 80}), "10"),
        (json!({"max_tokens": 3}), "3"),
        (json!({}), "7"),
        (json!({"max_tokens": 80, "n": 4}), "6"),
    ] {
        let response = clamping.chat(fields).await;
        assert_eq!(response.headers()["x-max-tokens-effective"], most);
    }
    let strict = served_as(says("x"), move |api| {
        api.limits.overlong = Overlong::Reject;
        api.limits.ceiling = ceiling;
    })
    .await;
    for fields in [json!({"max_tokens": 11}), json!({"max_tokens": 7, "n": 4})] {
        let (status, error) = failure(strict.chat(fields).await).await;
        assert_eq!((status, &error["param"]), (400, &json!("max_tokens")), "{error}");
    }
    success(strict.chat(json!({"max_tokens": 10})).await).await;
}

#[tokio::test]
async fn the_limit_that_ended_an_answer_is_named() {
    for (limit, name) in [
        (LengthLimit::Request, "request"),
        (LengthLimit::Operator, "operator"),
        (LengthLimit::Context, "context"),
    ] {
        let acts = vec![Act::Token(0, 100), Act::Finish(0, FinishReason::Length(limit))];
        let served = served(move |_| acts.clone()).await;
        let response = served.chat(json!({})).await;
        assert_eq!(response.headers()["x-arcmesh-finish-limit"], name);
        assert_eq!(success(response).await["usage"]["finish_limit"], name);
        let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
        let stream = served.chat(streamed).await.text().await.unwrap();
        assert!(stream.contains(&format!("\"finish_limit\":\"{name}\"")), "{stream}");
    }
    let served = served(says("x")).await;
    let response = served.chat(json!({})).await;
    assert!(!response.headers().contains_key("x-arcmesh-finish-limit"));
    assert!(success(response).await["usage"].get("finish_limit").is_none());
}

#[tokio::test]
async fn what_the_engine_refuses_has_its_own_status() {
    let cases: Vec<(SubmitError, u16, &str, Value)> = vec![
        (Refusal::QueueFull { waiting: 9 }.into(), 429, "rate_limit_error", json!("queue_full")),
        (
            SubmitError::NotReady("it forms".to_owned()),
            503,
            "service_unavailable",
            json!("not_ready"),
        ),
        (
            Refusal::TooLong { wanted: TokenCount(90), capacity: TokenCount(63) }.into(),
            400,
            "invalid_request_error",
            json!("context_length_exceeded"),
        ),
        (
            Refusal::TooManySequences { wanted: 9, capacity: 8 }.into(),
            400,
            "invalid_request_error",
            Value::Null,
        ),
        (Refusal::Empty.into(), 400, "invalid_request_error", Value::Null),
    ];
    for (refusal, status, kind, code) in cases {
        let retry = match status {
            429 => Some(("1", "1000")),
            503 => Some(("2", "2000")),
            _ => None,
        };
        let served = served(move |_| vec![Act::Refuse(refusal.clone())]).await;
        for stream in [false, true] {
            let response = served.chat(json!({"stream": stream})).await;
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("retry-after"), retry.map(|retry| retry.0));
            assert_eq!(header("retry-after-ms"), retry.map(|retry| retry.1));
            let (found, error) = failure(response).await;
            assert_eq!((found, &error["type"], &error["code"]), (status, &json!(kind), &code));
        }
        assert_eq!(served.series("arcmesh_client_disconnects_total"), 0.0, "nobody went away");
    }
}

#[tokio::test]
async fn while_there_is_no_group_nothing_is_ready() {
    let served = served(says("x")).await;
    served.state.send_replace(EngineState::Loading { bytes_done: 1, bytes_total: 2 });
    for path in ["/ready", "/v1/models", "/v1/models/toy"] {
        let response = served.get(path).await;
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(failure(response).await.0, 503, "{path}");
    }
    assert_eq!(failure(served.chat(json!({})).await).await.0, 503);
    assert_eq!(failure(served.chat(json!({"n": 0})).await).await.0, 400, "checked all the same");
    assert_eq!(served.get("/health").await.status(), 200);
    assert_eq!(served.get("/metrics").await.status(), 200);
    assert_eq!(served.post("/tokenize", &json!({"prompt": "a"})).await.status(), 200);
    let reforming = EngineState::Reforming { cause: "rank 1".to_owned(), capacity: capacity() };
    served.state.send_replace(reforming);
    assert_eq!(served.get("/ready").await.status(), 503);
    assert_eq!(served.chat(json!({})).await.status(), 200, "it waits for the group to be back");
    served.state.send_replace(EngineState::Draining);
    assert_eq!(failure(served.chat(json!({})).await).await.0, 503);
}

#[tokio::test]
async fn a_key_opens_everything_and_without_one_little_is_open() {
    let keys = ["first".to_owned(), "second".to_owned()];
    let served = served_as(says("x"), |api| api.keys = ApiKeys::new(&keys).unwrap()).await;
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(served.get(path).await.status(), 200, "{path}");
    }
    for path in ["/v1/models", "/version", "/nowhere", "/v1/chat/completions"] {
        for wrong in [None, Some("Bearer third"), Some("Basic first"), Some("Bearer "), Some("")] {
            let mut request = served.client.get(served.url(path));
            if let Some(wrong) = wrong {
                request = request.header(AUTHORIZATION, wrong);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let (status, error) = failure(response).await;
            assert_eq!((status, &error["code"]), (401, &json!("invalid_api_key")));
        }
    }
    assert_eq!(served.series("arcmesh_auth_failures_total"), 20.0);
    for key in keys {
        let request = served.client.get(served.url("/v1/models")).bearer_auth(key);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_template_that_refuses_is_a_bad_request() {
    let template = "{{ raise_exception('roles must alternate') }}";
    let template = ChatTemplate::new(template, TemplateTokens::default()).unwrap();
    let served = served_as(says("x"), |api| api.template = Arc::new(template)).await;
    let (status, error) = failure(served.chat(json!({})).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("messages")));
    assert!(error["message"].as_str().unwrap().ends_with("roles must alternate"));
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let served = served(says("x")).await;
    success(served.chat(json!({})).await).await;
    failure(served.chat(json!({"n": 0})).await).await;
    failure(served.get("/nowhere/at/all").await).await;
    let text = served.metrics.render();
    for line in [
        r#"http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 1"#,
        r#"http_requests_total{handler="/v1/chat/completions",method="POST",status="4xx"} 1"#,
        r#"http_requests_total{handler="none",method="GET",status="4xx"} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(served.series("arcmesh_rejected_total{code=\"invalid_request\""), 2.0);
}

#[tokio::test]
async fn long_bodies_are_worked_on_one_by_one_and_all_are() {
    let served = served_as(says("x"), |api| api.limits.large_bodies_max = 1).await;
    let body = json!({"prompt": "a".repeat(2 << 20)});
    let asked = (0..4).map(|_| served.post("/v1/completions", &body));
    for response in futures::future::join_all(asked).await {
        assert_eq!(failure(response).await.1["code"], "context_length_exceeded");
    }
}
