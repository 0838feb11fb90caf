#!/usr/bin/env python3
"""Writes monitor/grafana.json: the dashboard, panel by panel.

A panel here is a line or two; in Grafana's JSON it is a page. Run it after a change:

    python3 scripts/dashboard.py
"""

import json
import pathlib

OUT = pathlib.Path(__file__).resolve().parent.parent / "monitor" / "grafana.json"
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
MODEL = 'model_name=~"$model_name"'
TINY = "1e-9"


def rate(name, by="", more=""):
    labels = MODEL if not more else f"{MODEL},{more}"
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({name}{{{labels}}}[$__rate_interval]))"


def worker_rate(name, by, more=""):
    return f"sum by ({by}) (rate({name}{{{more}}}[$__rate_interval]))"


def mean(name):
    """0 while nothing happens, not a gap; one line for all coordinators."""
    return f"{rate(name + '_sum')} / clamp_min({rate(name + '_count')}, {TINY})"


def quantile(q, name, by=""):
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(name + '_bucket', grouped)})"


def latency(name):
    lines = [(f"P{round(q * 100)}", quantile(q, name)) for q in (0.99, 0.95, 0.9, 0.5)]
    return lines + [("Mean", mean(name))]


def heatmap(name):
    return [("{{le}}", f"sum by (le) (increase({name}_bucket{{{MODEL}}}[$__rate_interval]))")]


WORKER = "rank, node, device"
ROWS = [
    ("Requests", [
        ("E2E Request Latency", "s", "From arrival to the end of a request.", latency("vllm:e2e_request_latency_seconds")),
        ("Token Throughput", "short", "Tokens a second: prompts computed, tokens generated, both.", [
            ("Prompt Tokens/Sec", rate("vllm:prompt_tokens_total")),
            ("Generation Tokens/Sec", rate("vllm:generation_tokens_total")),
            ("Both", f"{rate('vllm:prompt_tokens_total')} + {rate('vllm:generation_tokens_total')}")]),
        ("Time Per Output Token Latency", "s", "Between one token of a request and the next.", latency("vllm:time_per_output_token_seconds")),
        ("Scheduler State", "none", "Requests that run, that are swapped out, that wait.", [
            ("Num Running", f"sum (vllm:num_requests_running{{{MODEL}}})"),
            ("Num Swapped", f"sum (vllm:num_requests_swapped{{{MODEL}}})"),
            ("Num Waiting", f"sum (vllm:num_requests_waiting{{{MODEL}}})")]),
        ("Time To First Token Latency", "s", "From arrival to the first token. Cold ones are on a panel of their own.", latency("vllm:time_to_first_token_seconds")),
        ("Cache Utilization", "percentunit", "Share of KV blocks that somebody owns. Beyond 90 %, requests give way to each other.", [
            ("GPU Cache Usage", f"max (vllm:gpu_cache_usage_perc{{{MODEL}}})"),
            ("CPU Cache Usage", f"max (vllm:cpu_cache_usage_perc{{{MODEL}}})")]),
        ("Request Prompt Length", "heatmap", "Tokens of prompts.", heatmap("vllm:request_prompt_tokens")),
        ("Request Generation Length", "heatmap", "Tokens generated, each sequence.", heatmap("vllm:request_generation_tokens")),
        ("Finish Reason", "none", "Why sequences ended: stop is an end token, length a limit.", [
            ("{{finished_reason}}", f"sum by (finished_reason) (increase(vllm:request_success_total{{{MODEL}}}[$__rate_interval]))")]),
        ("Queue Time", "s", "Mean time from arrival to the first step.", [("Mean", mean("vllm:request_queue_time_seconds"))]),
        ("Requests Prefill and Decode Time", "s", "Mean time of a request in each phase.", [
            ("Prefill", mean("vllm:request_prefill_time_seconds")), ("Decode", mean("vllm:request_decode_time_seconds"))]),
        ("Max Generation Token in Sequence Group", "none", "Mean tokens of a request's longest sequence, and the limit set by the operator (0: none).", [
            ("Generated", mean("vllm:request_max_num_generation_tokens")),
            ("Limit", f"max (arcmesh_generation_ceiling_tokens{{{MODEL}}})")]),
    ]),
    ("By length", [
        ("First Token P99 by Prompt Length", "s", "Long prompts are slow to begin.", [("{{prompt_len_bucket}}", quantile(0.99, "arcmesh_ttft_by_prompt_len_seconds", "prompt_len_bucket") + " > 0")]),
        ("E2E P99 by Prompt Length", "s", "Whole requests, by tokens of the prompt.", [("{{prompt_len_bucket}}", quantile(0.99, "arcmesh_e2e_by_prompt_len_seconds", "prompt_len_bucket") + " > 0")]),
        ("E2E P99 by Output Length", "s", "Whole requests, by tokens of the answer.", [("{{output_len_bucket}}", quantile(0.99, "arcmesh_e2e_by_output_len_seconds", "output_len_bucket") + " > 0")]),
        ("Errors by Prompt Length", "short", "Requests a second that failed or were refused.", [("{{prompt_len_bucket}} {{kind}}", rate("arcmesh_errors_by_prompt_len_total", "prompt_len_bucket, kind"))]),
    ]),
    ("Limits and clients", [
        ("Length Stops by Limit", "short", "Sequences a second that a limit ended: the request's, the operator's, the context's.", [("{{limit}}", rate("arcmesh_length_finish_total", "limit"))]),
        ("Length Stop Ratio", "percentunit", "Share of sequences that a limit ended.", [("Ratio", f"{rate('vllm:request_success_total', more='finished_reason=' + chr(34) + 'length' + chr(34))} / clamp_min({rate('vllm:request_success_total')}, {TINY})")]),
        ("Refused", "short", "Requests a second that were not taken, by code.", [("{{code}}", rate("arcmesh_rejected_total", "code"))]),
        ("Oldest Waiting", "s", "How long the request that has waited longest has.", [("Oldest", f"max (arcmesh_oldest_waiting_seconds{{{MODEL}}})")]),
        ("Queue", "none", "Requests that wait, and how many may.", [("Waiting", f"sum (vllm:num_requests_waiting{{{MODEL}}})"), ("Limit", f"sum (arcmesh_queue_limit{{{MODEL}}})")]),
        ("HTTP", "short", "Exchanges a second, by status.", [("{{status}}", "sum by (status) (rate(arcmesh_http_requests_total[$__rate_interval]))")]),
        ("Receipt", "s", "From arrival until the client's socket had the last byte.", latency("arcmesh_request_receipt_seconds")),
        ("Write Lag", "s", "From the last token until the client's socket had the last byte.", latency("arcmesh_http_write_lag_seconds")),
        ("Tokens Sampled and Used", "short", "Tokens a second: generated, and those that became part of an answer.", [
            ("Generated", rate("vllm:generation_tokens_total")), ("Used", rate("arcmesh_answer_tokens_total"))]),
        ("Answer Bytes", "Bps", "Bytes of answers that clients' sockets took.", [("Written", rate("arcmesh_answer_bytes_total"))]),
        ("Clients Gone", "short", "A second: clients that went away, answers cut off since nobody read them, requests without a valid key.", [
            ("Disconnected", rate("arcmesh_client_disconnects_total")), ("Slow", rate("arcmesh_slow_readers_total")), ("No key", rate("arcmesh_auth_failures_total"))]),
        ("Tokenise", "s", "Chat template and tokenizer.", latency("arcmesh_tokenise_seconds")),
    ]),
    ("KV cache", [
        ("Swap", "Bps", "Bytes of KV blocks carried to host memory and back.", [("{{direction}}", rate("arcmesh_swap_bytes_total", "direction"))]),
        ("Preemptions", "short", "Requests a second that gave way, by where their state went.", [("{{mode}}", rate("arcmesh_preemptions_total", "mode"))]),
        ("Prefix Cache", "percentunit", "Share of looked-up prompt tokens that need not be computed again.", [("Hits", f"{rate('vllm:prefix_cache_hits_total')} / clamp_min({rate('vllm:prefix_cache_queries_total')}, {TINY})")]),
        ("KV Blocks by Rank", "percentunit", "Share of each rank's own blocks that sequences hold.", [("rank {{rank}} {{node}}", f"max by ({WORKER}) (arcmesh_worker_kv_cache_usage_ratio)")]),
    ]),
    ("Steps and ranks", [
        ("Step Duration P50", "s", "From sending a step to the slowest rank's reply.", [("{{phase}}", quantile(0.5, "arcmesh_step_duration_seconds", "phase") + " > 0")]),
        ("Tokens of a Step", "none", "Mean tokens of a step: more is better use of the devices.", [("Mean", mean("vllm:iteration_tokens_total"))]),
        ("Rank Skew", "s", "Between the fastest rank's reply and the slowest's.", latency("arcmesh_step_rank_skew_seconds")),
        ("Outside of Ranks", "s", "Of a step, when no rank was at work; deciding what a step does; from one step's replies to the next step.", [
            ("Sending and replies", mean("arcmesh_step_broadcast_seconds")), ("Scheduling", mean("arcmesh_schedule_seconds")),
            ("Between steps", mean("arcmesh_step_idle_seconds"))]),
        ("What Ranks Do", "percentunit", "Share of its step time that each rank computes, moves sums, waits for a peer, samples.", [
            ("rank {{rank}} {{part}}", f"{rate('arcmesh_rank_step_seconds_total', 'rank, part')} / on (rank) group_left clamp_min({rate('arcmesh_rank_step_seconds_total', 'rank')}, {TINY})")]),
        ("Stragglers", "none", "What each rank computes, beside the mean of its group: 1 is even, others wait for the largest.", [
            ("rank {{rank}}", f"{rate('arcmesh_rank_step_seconds_total', 'rank', 'part=' + chr(34) + 'compute' + chr(34))} / on () group_left clamp_min(avg ({rate('arcmesh_rank_step_seconds_total', 'rank', 'part=' + chr(34) + 'compute' + chr(34))}), {TINY})")]),
        ("Shares of the Model", "percentunit", "What each rank has taken on: by its memory, and by how fast it was in earlier groups.", [
            ("rank {{rank}}", f"sum by (rank) (arcmesh_rank_share_ratio{{{MODEL}}})")]),
        ("Members", "none", "Ranks, by state.", [("{{state}}", f"sum by (state) (arcmesh_members{{{MODEL}}})"), ("epoch", f"max (arcmesh_membership_epoch{{{MODEL}}})")]),
        ("Losses", "short", "A second: groups formed anew, requests computed again, checks of numbers that failed.", [
            ("formed anew: {{cause}}", rate("arcmesh_group_reforms_total", "cause")), ("computed again", rate("arcmesh_requests_replayed_total")),
            ("given up", rate("arcmesh_requests_given_up_total")), ("check: {{check}}", rate("arcmesh_failed_checks_total", "check"))]),
    ]),
    ("Workers", [
        ("Step P50 by Rank", "s", "By the rank's own clock.", [("rank {{rank}} {{phase}}", "histogram_quantile(0.5, " + worker_rate("arcmesh_worker_step_seconds_bucket", "le, rank, phase") + ") > 0")]),
        ("Collectives", "percentunit", "Share of time that each rank spends in collectives, moving sums and waiting apart.", [("rank {{rank}} {{op}} {{part}}", worker_rate("arcmesh_worker_collective_seconds_total", "rank, op, part"))]),
        ("Collective Bytes", "Bps", "What ranks send each other.", [("rank {{rank}} {{op}}", worker_rate("arcmesh_worker_collective_bytes_total", "rank, op", 'direction="sent"'))]),
        ("Steps", "short", "Steps a second, heartbeats included, by how they ended.", [("rank {{rank}} {{outcome}}", worker_rate("arcmesh_worker_steps_total", "rank, outcome"))]),
        ("Memory", "bytes", "Weights and KV cache of each rank.", [("rank {{rank}} {{kind}}", f"max by ({WORKER}, kind) (arcmesh_worker_memory_bytes)")]),
        ("Wrong Numbers", "short", "Steps a second that came to a NaN.", [("rank {{rank}}", worker_rate("arcmesh_worker_nan_logits_total", "rank"))]),
    ]),
    ("Devices", [
        ("Power", "watt", "By energy between two readings, and the limit.", [("{{instance}} {{pci}}", "max by (instance, pci) (arcmesh_device_power_watts)"), ("limit {{instance}} {{pci}}", "max by (instance, pci) (arcmesh_device_power_limit_watts)")]),
        ("Temperature", "celsius", "By sensor.", [("{{instance}} {{pci}} {{sensor}}", "max by (instance, pci, sensor) (arcmesh_device_temperature_celsius)")]),
        ("Clock", "hertz", "Actual, by part of the card.", [("{{instance}} {{pci}} {{part}}", 'max by (instance, pci, part) (arcmesh_device_frequency_hertz{kind="actual"})')]),
        ("Engines", "percentunit", "Share of time in which engines worked for arcmesh.", [("{{instance}} {{pci}} {{engine}}", "max by (instance, pci, engine) (arcmesh_device_engine_busy_ratio)")]),
        ("Held Back", "none", "1: something holds the card's clock back.", [("{{instance}} {{pci}} {{part}} {{reason}}", "max by (instance, pci, part, reason) (arcmesh_device_throttled)")]),
        ("Device Memory", "bytes", "What this process has of the card's memory.", [("{{instance}} {{pci}} {{kind}}", "max by (instance, pci, kind) (arcmesh_device_memory_bytes)")]),
    ]),
]


def panel(number, at, title, unit, description, targets):
    heat = unit == "heatmap"
    made = {
        "id": number,
        "title": title,
        "description": description,
        "type": "heatmap" if heat else "timeseries",
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 8, "x": at[0], "y": at[1]},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "range": True,
                "instant": False,
                "editorMode": "code",
                "format": "heatmap" if heat else "time_series",
            }
            for index, (legend, expr) in enumerate(targets)
        ],
    }
    if heat:
        made["fieldConfig"] = {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []}
        made["options"] = {
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": False, "exponent": 0.5, "fill": "dark-orange"},
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "none"},
        }
        return made
    made["fieldConfig"] = {
        "defaults": {
            "unit": unit,
            "min": 0,
            "color": {"mode": "palette-classic"},
            "custom": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False},
        },
        "overrides": [],
    }
    made["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return made


def panels():
    number, y = 0, 0
    for title, row in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}}
        y += 1
        for index, (name, unit, description, targets) in enumerate(row):
            number += 1
            yield panel(number, (index % 3 * 8, y + index // 3 * 8), name, unit, description, targets)
        y += -(-len(row) // 3) * 8


def variable(name, label, query):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
    }


DASHBOARD = {
    "uid": "arcmesh",
    "title": "arcmesh",
    "description": "One model over many cards: requests, lengths, limits, memory, ranks, devices.",
    "tags": ["arcmesh"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "timezone": "",
    "refresh": "5s",
    "time": {"from": "now-15m", "to": "now"},
    "timepicker": {},
    "fiscalYearStartMonth": 0,
    "weekStart": "",
    "links": [],
    "annotations": {"list": []},
    "templating": {
        "list": [
            {"name": "DS_PROMETHEUS", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "regex": "", "hide": 0,
             "includeAll": False, "multi": False, "options": [], "current": {"selected": False, "text": "Prometheus", "value": "prometheus"}, "skipUrlSync": False},
            variable("model_name", "Model", "label_values(vllm:num_requests_running, model_name)"),
        ]
    },
    "panels": list(panels()),
}

if __name__ == "__main__":
    OUT.write_text(json.dumps(DASHBOARD, indent=2, ensure_ascii=False) + "\n")
