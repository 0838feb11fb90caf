//! The figures are true: what was asked and answered, to the unit.

use std::time::Duration;

use coordinator::Metrics;
use scheduler::FinishReason;
use tokio::time::sleep;

use crate::fleet::{CONTEXT, STEP_TIME, Told, assert_undisturbed, fleet, questions, value};

/// What the twelve panels of the usual dashboard draw: name and type.
const PANELS: &[(&str, &str)] = &[
    ("vllm:e2e_request_latency_seconds", "histogram"),
    ("vllm:prompt_tokens_total", "counter"),
    ("vllm:generation_tokens_total", "counter"),
    ("vllm:time_per_output_token_seconds", "histogram"),
    ("vllm:num_requests_running", "gauge"),
    ("vllm:num_requests_swapped", "gauge"),
    ("vllm:num_requests_waiting", "gauge"),
    ("vllm:time_to_first_token_seconds", "histogram"),
    ("vllm:gpu_cache_usage_perc", "gauge"),
    ("vllm:cpu_cache_usage_perc", "gauge"),
    ("vllm:request_prompt_tokens", "histogram"),
    ("vllm:request_generation_tokens", "histogram"),
    ("vllm:request_success_total", "counter"),
    ("vllm:request_queue_time_seconds", "histogram"),
    ("vllm:request_prefill_time_seconds", "histogram"),
    ("vllm:request_decode_time_seconds", "histogram"),
    ("vllm:request_max_num_generation_tokens", "histogram"),
];

/// What only dashboards of the older generation read besides.
const OLDER: &[(&str, &str)] = &[
    ("vllm:avg_prompt_throughput_toks_per_s", "gauge"),
    ("vllm:avg_generation_throughput_toks_per_s", "gauge"),
    ("vllm:tokens_total", "counter"),
    ("vllm:time_in_queue_requests", "histogram"),
    ("vllm:model_forward_time_milliseconds", "histogram"),
    ("vllm:model_execute_time_milliseconds", "histogram"),
    ("vllm:request_params_best_of", "histogram"),
    ("vllm:spec_decode_draft_acceptance_rate", "gauge"),
    ("vllm:spec_decode_efficiency", "gauge"),
    ("vllm:spec_decode_num_accepted_tokens_total", "counter"),
    ("vllm:spec_decode_num_draft_tokens_total", "counter"),
    ("vllm:spec_decode_num_emitted_tokens_total", "counter"),
];

/// What autoscalers, routers and newer dashboards read besides; all with `engine="0"`.
const NEWER: &[(&str, &str)] = &[
    ("vllm:kv_cache_usage_perc", "gauge"),
    ("vllm:num_requests_waiting_by_reason", "gauge"),
    ("vllm:cache_config_info", "gauge"),
    ("vllm:engine_sleep_state", "gauge"),
    ("vllm:prefix_cache_queries_total", "counter"),
    ("vllm:prefix_cache_hits_total", "counter"),
    ("vllm:external_prefix_cache_queries_total", "counter"),
    ("vllm:external_prefix_cache_hits_total", "counter"),
    ("vllm:num_preemptions_total", "counter"),
    ("vllm:prompt_tokens_by_source_total", "counter"),
    ("vllm:prompt_tokens_cached_total", "counter"),
    ("vllm:corrupted_requests_total", "counter"),
    ("vllm:iteration_tokens_total", "histogram"),
    ("vllm:inter_token_latency_seconds", "histogram"),
    ("vllm:request_time_per_output_token_seconds", "histogram"),
    ("vllm:request_inference_time_seconds", "histogram"),
    ("vllm:request_params_n", "histogram"),
    ("vllm:request_params_max_tokens", "histogram"),
    ("vllm:request_prefill_kv_computed_tokens", "histogram"),
    ("vllm:request_num_preemptions", "histogram"),
];

#[test]
fn every_series_of_both_generations_is_there_at_zero_from_the_start() {
    let scrape = Metrics::new("a-model", CONTEXT).render();
    for (name, kind) in PANELS.iter().chain(NEWER).chain(OLDER) {
        assert!(scrape.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        let series =
            if *kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        let lines = scrape.lines().filter(|line| {
            line.starts_with(&series) && line[series.len()..].starts_with(['{', ' '])
        });
        let lines: Vec<&str> = lines.collect();
        assert!(!lines.is_empty(), "{name} has no series");
        for line in lines {
            assert!(line.contains("model_name=\"a-model\""), "{line}");
            let fact = name.ends_with("_info") || name.ends_with("_state");
            assert!(fact || line.ends_with(" 0"), "{line}");
        }
    }
    for (name, _) in NEWER {
        let mut lines = scrape.lines().filter(|line| line.starts_with(name));
        assert!(lines.all(|line| line.contains("engine=\"0\"")), "{name}");
    }
    for reason in ["stop", "length", "abort", "error"] {
        let series = format!("vllm:request_success_total{{finished_reason=\"{reason}\"}}");
        assert!(value(&scrape, &series) < 1e-9);
    }
}

#[test]
fn buckets_are_those_that_dashboards_know() {
    let scrape = Metrics::new("a-model", 200).render();
    let bounds = |name: &str| -> Vec<String> {
        let lines = scrape.lines().filter(|line| line.starts_with(&format!("{name}_bucket")));
        let bound =
            |line: &str| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        lines.map(bound).collect()
    };
    let tokens = ["1", "2", "5", "10", "20", "50", "100", "200", "+Inf"];
    assert_eq!(bounds("vllm:request_prompt_tokens"), tokens);
    assert_eq!(bounds("vllm:request_params_n"), ["1", "2", "5", "10", "20", "+Inf"]);
    let first = ["0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5"];
    assert_eq!(bounds("vllm:time_to_first_token_seconds")[..10], first);
    let gap = ["0.01", "0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5"];
    assert_eq!(bounds("vllm:time_per_output_token_seconds")[..10], gap);
    let request = ["0.3", "0.5", "0.8", "1", "1.5", "2", "2.5", "5", "10", "15"];
    assert_eq!(bounds("vllm:e2e_request_latency_seconds")[..10], request);
}

fn whole(value: f64) -> usize {
    assert!(value >= 0.0 && value.fract() == 0.0, "{value}");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole")]
    let whole = value as usize;
    whole
}

#[tokio::test(start_paused = true)]
async fn counters_equal_what_was_asked_and_answered_to_the_unit() {
    let fleet = fleet(2, 1000).await;
    let questions = questions(50);
    let told = fleet.ask_all(&questions).await;
    assert_undisturbed(&questions, &told);
    let scrape = fleet.metrics.render();
    let is = |series: &str, expected: usize| {
        let found = value(&scrape, series);
        let expected = f64::from(u32::try_from(expected).unwrap());
        assert!((found - expected).abs() < 1e-6, "{series} is {found}, not {expected}");
    };
    let tokens: usize = told.iter().flat_map(|told| &told.texts).map(Vec::len).sum();
    let prompt: usize = questions.iter().map(|question| question.prompt.len()).sum();
    let sequences: usize = told.iter().map(|told| told.texts.len()).sum();
    is("vllm:generation_tokens_total", tokens);
    let found = whole(value(&scrape, "vllm:prefix_cache_hits_total"));
    is("vllm:prompt_tokens_total", prompt - found);
    is("vllm:tokens_total", tokens + prompt - found);
    is("vllm:request_success_total{finished_reason=\"stop\"}", ended(&told, true));
    is("vllm:request_success_total{finished_reason=\"length\"}", ended(&told, false));
    is("vllm:request_prompt_tokens_sum", prompt);
    is("vllm:request_generation_tokens_sum", tokens);
    is("vllm:request_generation_tokens_count", sequences);
    is("vllm:request_params_n_sum", sequences);
    let longest = told.iter().map(|told| told.texts.iter().map(Vec::len).max().unwrap());
    is("vllm:request_max_num_generation_tokens_sum", longest.sum());
    is("vllm:inter_token_latency_seconds_count", tokens - sequences);
    for histogram in [
        "vllm:e2e_request_latency_seconds",
        "vllm:time_to_first_token_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
        "vllm:request_inference_time_seconds",
        "vllm:request_params_max_tokens",
        "vllm:request_params_best_of",
        "vllm:model_forward_time_milliseconds",
        "vllm:model_execute_time_milliseconds",
        "vllm:time_in_queue_requests",
    ] {
        is(&format!("{histogram}_count"), questions.len());
    }
    for name in [
        "arcmesh_ttft_by_prompt_len_seconds_count",
        "arcmesh_e2e_by_prompt_len_seconds_count",
        "arcmesh_e2e_by_output_len_seconds_count",
    ] {
        let counted = f64::from(u32::try_from(questions.len()).unwrap());
        assert!((sum(&scrape, name) - counted).abs() < 1e-9, "{name}");
    }
    assert!(sum(&scrape, "arcmesh_errors_by_prompt_len_total") < 1e-9);
    is("vllm:num_requests_running", 0);
    is("vllm:num_requests_waiting", 0);
    is("vllm:kv_cache_usage_perc", 0);
}

/// All series of a name.
fn sum(scrape: &str, name: &str) -> f64 {
    let series = scrape.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_by_the_length_of_the_prompt() {
    let fleet = fleet(1, 1000).await;
    let mut question = questions(1).remove(0);
    question.prompt = vec![5; 150];
    question.tokens_max = 3;
    let told = fleet.ask_all(std::slice::from_ref(&question)).await;
    assert_undisturbed(std::slice::from_ref(&question), &told);
    question.prompt = vec![5; 300];
    fleet.submit(&question).await.unwrap_err();
    let is = |series: &str, expected: f64| {
        let found = fleet.value(series);
        assert!((found - expected).abs() < 1e-9, "{series} is {found}, not {expected}");
    };
    let class = "prompt_len_bucket=\"129-512\"";
    is(&format!("arcmesh_e2e_by_prompt_len_seconds_count{{{class}}}"), 1.0);
    is(&format!("arcmesh_errors_by_prompt_len_total{{kind=\"refused\",{class}}}"), 1.0);
    is(&format!("arcmesh_errors_by_prompt_len_total{{kind=\"failed\",{class}}}"), 0.0);
    is("arcmesh_cold_first_token_seconds_count", 1.0);
}

#[tokio::test(start_paused = true)]
async fn only_what_came_before_the_first_step_is_cold() {
    let fleet = fleet(2, 1000).await;
    let questions = questions(4);
    fleet.ask_all(&questions[..1]).await;
    fleet.ask_all(&questions[1..]).await;
    assert!((fleet.value("arcmesh_cold_first_token_seconds_count") - 1.0).abs() < 1e-9);
    assert!((fleet.value("vllm:time_to_first_token_seconds_count") - 4.0).abs() < 1e-9);
}

fn ended(told: &[Told], by_stop: bool) -> usize {
    let reasons = told.iter().flat_map(|told| &told.reasons).flatten();
    reasons.filter(|reason| matches!(reason, FinishReason::Stop(_)) == by_stop).count()
}

#[tokio::test(start_paused = true)]
async fn times_are_those_that_the_reader_sees() {
    let fleet = fleet(1, 1000).await;
    let question = questions(20).into_iter().find(|q| q.undisturbed()[0].len() > 5).unwrap();
    let tokens = question.undisturbed()[0].len();
    fleet.ask_all(&[question]).await;
    let gaps = f64::from(u32::try_from(tokens - 1).unwrap());
    let step = STEP_TIME.as_secs_f64();
    let sum = |name: &str| fleet.value(&format!("{name}_sum"));
    let near = |found: f64, expected: f64| {
        assert!((found - expected).abs() < 0.005, "{found}, not {expected}");
    };
    near(sum("vllm:inter_token_latency_seconds"), gaps * step);
    near(sum("vllm:time_per_output_token_seconds"), gaps * step);
    near(sum("vllm:request_decode_time_seconds"), gaps * step);
    near(sum("vllm:request_time_per_output_token_seconds"), step);
    let first = sum("vllm:time_to_first_token_seconds");
    near(first, sum("vllm:request_queue_time_seconds") + sum("vllm:request_prefill_time_seconds"));
    near(sum("vllm:e2e_request_latency_seconds"), first + gaps * step);
}

#[tokio::test(start_paused = true)]
async fn how_long_the_oldest_has_waited_is_told_when_asked() {
    let mut fleet = fleet(1, 100).await;
    assert!(fleet.value("arcmesh_oldest_waiting_seconds") < 1e-9);
    fleet.oracles[0].faults(|faults| faults.away = true);
    fleet.state.wait_for(|state| !state.is_ready()).await.unwrap();
    let _answer = fleet.submit(&questions(1)[0]).await.unwrap();
    sleep(Duration::from_secs(7)).await;
    let waited = fleet.value("arcmesh_oldest_waiting_seconds");
    assert!((waited - 7.0).abs() < 0.1, "{waited}");
    assert!((fleet.value("vllm:num_requests_waiting") - 1.0).abs() < 1e-9);
    assert!((fleet.value("arcmesh_members{state=\"lost\"}") - 1.0).abs() < 1e-9);
}
