//! The page for people, and what it asks for.

use super::*;

/// What stands between two texts.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).unwrap().1.split_once(end).unwrap().0
}

#[tokio::test]
async fn the_page_is_one_document_that_asks_nobody_else() {
    let served = served(|_| Vec::new()).await;
    let response = served.get("/").await;
    assert_eq!(response.status(), 200);
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = response.text().await.unwrap();
    let nonce = between(&policy, "script-src 'nonce-", "'");
    assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "style and script");
    // The name of a vocabulary is no address that is asked.
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!rest.contains("http:") && !rest.contains("https:") && !rest.contains("{script}"));
    assert!(!page.contains(" style=\"") && !page.contains(" onclick="), "the policy forbids them");
    let again = served.get("/").await.headers()["content-security-policy"].clone();
    assert_ne!(again.to_str().unwrap(), policy, "a nonce is used once");
}

#[tokio::test]
async fn where_keys_are_needed_the_page_asks_and_shows_nothing() {
    let keys = ApiKeys::new(&["secret".to_owned()]).unwrap();
    let served = served_as(|_| Vec::new(), |api| api.keys = keys).await;
    let locked = served.get("/").await;
    assert_eq!(locked.status(), 401);
    assert!(locked.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let page = locked.text().await.unwrap();
    assert!(page.contains("wants an API key") && !page.contains("toy"), "no figure, no name");
    // Whoever opens a page has not tried a key.
    assert_eq!(served.series("arcmesh_auth_failures_total"), 0.0);
    assert_eq!(failure(served.get("/live").await).await.0, 401);
    for path in ["/", "/live"] {
        let request = served.client.get(served.url(path)).bearer_auth("secret");
        assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
        let request = served.client.get(served.url(path)).bearer_auth("guess");
        assert_eq!(request.send().await.unwrap().status(), 401, "{path}");
    }
}

#[tokio::test]
async fn what_goes_on_is_told_in_every_state() {
    let served = served(|_| Vec::new()).await;
    let live = success(served.get("/live").await).await;
    assert_eq!((&live["ready"], &live["model"]), (&json!(true), &json!("toy")));
    assert_eq!(live["kv_tokens"], 64 * 16);
    assert_eq!((&live["groups"], &live["groups_total"]), (&json!([]), &json!(0)));
    served.state.send_replace(EngineState::Loading { bytes_done: 0, bytes_total: 0 });
    let live = success(served.get("/live").await).await;
    assert_eq!((&live["ready"], &live["state"]), (&json!(false), &json!("loading")));
    assert!(live["kv_tokens"].is_null());
}
