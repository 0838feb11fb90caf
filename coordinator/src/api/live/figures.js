"use strict";
// What /metrics says, and what it grew by between one reading and the next.

// Seconds between readings, seconds that quantiles and means look back, seconds that are kept.
const EVERY = 1, LOOK_BACK = 30, KEPT = 300;

/** A page in Prometheus' text format: name → [{labels, value}]. */
function readMetrics(text) {
  const all = new Map();
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const match = /^([^{ ]+)(?:\{(.*)\})? ([^ ]+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(/([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\(.)/g, (_, letter) => letter === "n" ? "\n" : letter);
    }
    if (!all.has(match[1])) all.set(match[1], []);
    all.get(match[1]).push({ labels, value: match[3] === "+Inf" ? Infinity : Number(match[3]) });
  }
  return all;
}

/** The sum of a name's series that have these labels; null where there is none. */
function total(page, name, labels = {}) {
  const wanted = Object.entries(labels);
  const found = (page.get(name) || []).filter(it => wanted.every(([key, value]) => it.labels[key] === value));
  return found.length ? found.reduce((sum, it) => sum + it.value, 0) : null;
}

/** What a counter grew by from one page to another; a process that began anew counts from 0. */
function grown(before, after, name, labels) {
  const now = total(after, name, labels);
  if (now === null) return null;
  const then = total(before, name, labels) || 0;
  return now >= then ? now - then : now;
}

/** A histogram's growth: [[bound, count within]], summed over its series. */
function grownBuckets(before, after, name) {
  const sum = page => {
    const buckets = new Map();
    for (const { labels, value } of page.get(name + "_bucket") || []) {
      buckets.set(labels.le, (buckets.get(labels.le) || 0) + value);
    }
    return buckets;
  };
  const [then, now] = [sum(before), sum(after)];
  const bounds = [...now.keys()].map(le => [le === "+Inf" ? Infinity : Number(le), le]).sort((a, b) => a[0] - b[0]);
  return bounds.map(([bound, le]) => [bound, Math.max(0, now.get(le) - (then.get(le) || 0))]);
}

/** A quantile as Prometheus' histogram_quantile has it; null where nothing was observed. */
function quantile(buckets, share) {
  const count = buckets.length ? buckets[buckets.length - 1][1] : 0;
  if (!count) return null;
  const at = buckets.findIndex(([, within]) => within >= share * count);
  const [bound, within] = buckets[at];
  const [low, below] = at ? buckets[at - 1] : [0, 0];
  if (bound === Infinity) return low;
  return within > below ? low + (bound - low) * (share * count - below) / (within - below) : bound;
}

/** The mean of what a histogram observed in between; null where that is nothing. */
function mean(before, after, name) {
  const count = grown(before, after, name + "_count");
  return count ? grown(before, after, name + "_sum") / count : null;
}

const quantiles = name => ({
  unit: "s",
  lines: ["P50", "P90", "P95", "P99", "mean"],
  of: ({ back, now }) => {
    const buckets = grownBuckets(back.page, now.page, name);
    return [.5, .9, .95, .99].map(share => quantile(buckets, share)).concat(mean(back.page, now.page, name));
  },
});

const rates = (lines, series) => ({
  unit: "/s",
  lines,
  of: ({ near, now }) => series.map(([name, labels]) => {
    const more = grown(near.page, now.page, name, labels);
    return more === null ? null : more / (now.at - near.at);
  }),
});

const gauges = (unit, lines, names) => ({ unit, lines, of: ({ now }) => names.map(name => total(now.page, name)) });
const means = (unit, lines, names) => ({ unit, lines, of: ({ back, now }) => names.map(name => mean(back.page, now.page, name)) });
const heat = name => ({ heat: name });
const reason = finished_reason => ["vllm:request_success_total", { finished_reason }];

/** The twelve families. */
const FAMILIES = [
  { title: "End-to-end latency", ...quantiles("vllm:e2e_request_latency_seconds") },
  { title: "Token throughput", ...rates(["prompt tokens", "answer tokens"], [["vllm:prompt_tokens_total"], ["vllm:generation_tokens_total"]]) },
  { title: "Time per output token", ...quantiles("vllm:time_per_output_token_seconds") },
  { title: "Scheduler state", ...gauges("", ["running", "waiting", "swapped"], ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:num_requests_swapped"]) },
  { title: "Time to first token", ...quantiles("vllm:time_to_first_token_seconds") },
  { title: "Cache utilisation", ...gauges("%", ["device blocks", "host blocks"], ["vllm:gpu_cache_usage_perc", "vllm:cpu_cache_usage_perc"]) },
  { title: "Prompt length, tokens", ...heat("vllm:request_prompt_tokens") },
  { title: "Answer length, tokens", ...heat("vllm:request_generation_tokens") },
  { title: "Finish reason", ...rates(["stop", "length", "abort", "error"], ["stop", "length", "abort", "error"].map(reason)) },
  { title: "Time in the queue, mean", ...means("s", ["queue"], ["vllm:request_queue_time_seconds"]) },
  { title: "Prefill and decode time, mean", ...means("s", ["prefill", "decode"], ["vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds"]) },
  { title: "Longest answer of a request, mean", ...means("", ["tokens"], ["vllm:request_max_num_generation_tokens"]) },
];
