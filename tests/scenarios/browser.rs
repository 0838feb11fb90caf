//! The live page and a report in a real browser; skipped, and said so, where there is none.

use serde_json::json;

use crate::chromium::{Browser, browser};
use crate::site::{Site, question};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 780);
const TAB: u32 = 9;
const ENTER: u32 = 13;

/// Nothing is wider than the window.
fn fits(browser: &mut Browser) {
    let over = browser
        .value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(over, json!(0), "the page is wider than the window");
}

/// The luminance of the paper, 0 to 255.
fn paper(browser: &mut Browser) -> f64 {
    let sum = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3";
    browser.value(sum).as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_page_shows_ranks_and_the_twelve_families_as_they_change() {
    let Some(mut browser) = browser() else { return };
    let site = Site::group(2, &[]);
    browser.open(&format!("{}/", site.base), DESKTOP, "light");
    browser.until("document.getElementById('state').textContent === 'ready'");
    assert!(paper(&mut browser) > 200.0);
    fits(&mut browser);
    browser.until("document.querySelectorAll('#rank-rows tr').length === 2");
    assert_eq!(browser.value("document.querySelectorAll('#charts figure').length"), json!(12));
    for nth in 0..3 {
        site.chat(question(&format!("Tell me about {nth}."), 12)).await;
    }
    // What the clients got is on the charts: quantiles, means, lengths, and what the ranks did.
    browser.until("/P50 \\d/.test(document.getElementById('legend0').textContent)");
    browser.until("/≤ \\d+: \\d/.test(document.getElementById('legend7').textContent)");
    browser.until("/tokens 12/.test(document.getElementById('legend11').textContent)");
    browser.until("/\\d %/.test(document.getElementById('rank-rows').textContent)");
    assert!(
        browser.value("document.querySelectorAll('#charts polyline').length").as_u64() > Some(3)
    );
    // Nobody else was asked, and the policy had nothing to forbid.
    let others = "performance.getEntriesByType('resource').filter(it => !it.name.startsWith(location.origin)).length";
    assert_eq!(browser.value(others), json!(0));
    browser.open(&format!("{}/", site.base), PHONE, "dark");
    browser.until("document.querySelectorAll('#charts polyline').length > 0");
    assert!(paper(&mut browser) < 60.0);
    fits(&mut browser);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_used_by_keyboard_and_read_out_and_asks_for_the_key() {
    let Some(mut browser) = browser() else { return };
    let site = Site::serve(&["--api-key", "open-sesame"]);
    browser.open(&format!("{}/", site.base), DESKTOP, "light");
    browser.until(
        "!document.getElementById('key').hidden && document.activeElement.id === 'key-input'",
    );
    assert_eq!(browser.value("document.getElementById('main').hidden"), json!(true));
    browser.type_in("guess");
    browser.press("Enter", ENTER);
    browser.until("document.getElementById('key-wrong').textContent !== ''");
    browser.value("document.getElementById('key-input').value = ''; document.getElementById('key-input').focus()");
    browser.type_in("open-sesame");
    browser.press("Enter", ENTER);
    browser.until("document.getElementById('state').textContent === 'ready'");

    // The first thing that the keyboard reaches leads past the header.
    browser.value("document.body.tabIndex = -1; document.body.focus()");
    browser.press("Tab", TAB);
    assert_eq!(browser.value("document.activeElement.textContent"), json!("Skip to the figures"));
    browser.value("document.getElementById('question').focus()");
    browser.type_in("What is the capital of France?");
    browser.press("Enter", ENTER);
    browser.until("/ tokens in /.test(document.getElementById('told').textContent)");
    let talk = browser.value("document.getElementById('talk').textContent");
    assert!(
        talk.as_str().unwrap().len() > "YouWhat is the capital of France?Model".len(),
        "{talk}"
    );

    let heard = browser.read_out();
    let has = |role: &str, name: &str| heard.iter().any(|it| it.0 == role && it.1.contains(name));
    for (role, name) in [
        ("heading", "Ranks and their devices"),
        ("heading", "Try the model"),
        ("textbox", "Your message"),
        ("button", "Send"),
        ("button", "Pause"),
        ("log", "Conversation"),
        ("image", "Time to first token"),
        ("columnheader", "Waiting"),
        ("navigation", "Sections"),
    ] {
        assert!(has(role, name), "{role} {name}: {heard:?}");
    }
    let nameless = heard.iter().filter(|it| ["button", "textbox", "link"].contains(&it.0.as_str()));
    assert!(nameless.clone().all(|it| !it.1.is_empty()), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_bench_serve_is_read_in_a_browser() {
    let Some(mut browser) = browser() else { return };
    let site = Site::serve(&[]);
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let words = ["--requests", "6", "--answer-tokens", "6", "--html", page.to_str().unwrap()];
    let output = crate::load::bench(&site.base, &words);
    assert!(output.status.success());
    for (size, scheme) in [(DESKTOP, "light"), (PHONE, "dark")] {
        browser.open(&format!("file://{}", page.display()), size, scheme);
        fits(&mut browser);
        assert_eq!(paper(&mut browser) > 128.0, scheme == "light");
        assert!(browser.value("document.querySelectorAll('svg.chart').length").as_u64() >= Some(9));
    }
    let heard = browser.read_out();
    assert!(heard.contains(&("image".to_owned(), "Throughput".to_owned())), "{heard:?}");
}
