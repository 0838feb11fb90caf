#!/usr/bin/env python3
"""arcmesh beside llama.cpp and OpenVINO GenAI: same file, same CPUs, in pairs, as ratios.

    cargo build --release
    python3 scripts/compare.py --llama-bin DIR [--openvino PYTHON] [--only ROW,…] [--json FILE]

DIR holds llama-bench, llama-batched-bench and llama-server, built for this machine. PYTHON is an
interpreter that has openvino-genai. What is missing makes its rows "not run"; `--list` names the rows.

How it is measured:
* A pair is one measurement of each side, one right after the other; who is first alternates. The
  result is the median of the pairs' ratios, so that what else the machine does hits both sides. Beside
  it stands the best of one side over the best of the other: where something else runs, engines whose
  threads spin and wait for each other lose far more than their share, and only the bests still compare.
* Both sides are held to the same CPUs, as many as they have threads. Both warm up before they count.
* Prompts are random tokens, new ones each time: nothing can be remembered from the time before.
* llama.cpp: llama-bench and llama-batched-bench with their defaults (the latter with a cache for each
  sequence, which is faster for it). A start is over when llama-server answers a request for one token.
* OpenVINO GenAI: LLMPipeline and ContinuousBatchingPipeline load the GGUF file; only the number of
  threads is set, hints and precisions stay as they are (it may compute in bf16 and keep KV in 8 bits).
  Prefill is 512 tokens ÷ its own time to first token. For 32 sequences: steps of 512 tokens, which is
  arcmesh's default and the best of 256, 512 and 4096 for it.
* RSS is read once a server of 4 slots of 2048 tokens has answered its first request.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SMALL, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"
SLOTS, SLOT_TOKENS = 4, 2048
SEQUENCES, PROMPT, GENERATE = 32, 128, 128
START_SECONDS_MAX = 60
RUN_SECONDS_MAX = 600


class NotRun(Exception):
    """Why a row has no figures."""


def run(command, threads):
    """Standard output of a command on the first `threads` CPUs."""
    done = subprocess.run(
        on_cpus(command, threads), capture_output=True, text=True, timeout=RUN_SECONDS_MAX
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NotRun(f"{Path(command[0]).name} failed: {said}")
    return done.stdout


def on_cpus(command, threads):
    cpus = sorted(os.sched_getaffinity(0))
    if threads > len(cpus):
        raise NotRun(f"{threads} threads on {len(cpus)} CPUs")
    return ["taskset", "-c", ",".join(map(str, cpus[:threads])), *map(str, command)]


# arcmesh


def arcmesh(given, model, threads, prompt, generate, batch=1):
    words = ["bench", "engine", "--model", model, "--threads", threads, "--prompt", prompt]
    words += ["--generate", generate, "--batch", batch, "--runs", given.runs, "--json", "-"]
    found = json.loads(run([given.arcmesh, *words], threads))
    half = "output" if prompt and generate else "prefill" if prompt else "decode"
    return found[f"{half}_tokens_per_second"]


# llama.cpp


def llama(given, name):
    if given.llama_bin is None:
        raise NotRun("no --llama-bin")
    path = given.llama_bin / name
    if not path.exists():
        raise NotRun(f"there is no {name} in {given.llama_bin}")
    return path


def llama_bench(given, model, threads, prompt, generate):
    words = ["-m", model, "-t", threads, "-p", prompt, "-n", generate, "-r", given.runs, "-o", "json"]
    found = json.loads(run([llama(given, "llama-bench"), *words], threads))
    return statistics.median(found[0]["samples_ts"])


def llama_batched(given, model, threads):
    words = ["-m", model, "-t", threads, "-tb", threads, "-npl", SEQUENCES, "-npp", PROMPT]
    words += ["-ntg", GENERATE, "-c", SEQUENCES * (PROMPT + GENERATE), "-b", 2048, "-ub", 512]
    words += ["--no-kv-unified", "--output-format", "jsonl"]
    out = run([llama(given, "llama-batched-bench"), *words], threads)
    found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    return SEQUENCES * GENERATE / (found["t_pp"] + found["t_tg"])


# OpenVINO: its pipeline takes seconds to load, so one process stays and is asked for each pair.


class OpenVino:
    """A pipeline in a process of its own, from the first call to `close`."""

    def __init__(self, given, path, what, threads):
        self.given, self.path, self.what, self.threads = given, path, what, threads
        self.process = None

    def __call__(self):
        if self.process is None:
            self.start()
            self.measure()  # the first call compiles
            self.measure()
        return self.measure()

    def start(self):
        if self.given.openvino is None:
            raise NotRun("no --openvino")
        command = [self.given.openvino, __file__, "--inside-openvino", self.what]
        command += [self.path(SMALL), self.threads]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(on_cpus(command, self.threads), text=True, **pipes)

    def measure(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has said why, or ended
        for line in self.process.stdout:
            # Whatever else the library prints is no answer.
            if line.startswith("{"):
                found = json.loads(line)
                if "error" in found:
                    raise NotRun(f"OpenVINO: {found['error']}")
                return found["tokens_per_second"]
        raise NotRun("OpenVINO's process ended")

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def inside_openvino(what, model, threads):
    """Runs in the interpreter that has openvino-genai: a figure for each line of input."""
    try:
        import numpy
        import openvino
        import openvino_genai as genai

        properties = {"INFERENCE_NUM_THREADS": int(threads)}
        if what == "prefill":
            pipeline = genai.LLMPipeline(model, "CPU", **properties)
        else:
            scheduler = genai.SchedulerConfig()
            scheduler.max_num_batched_tokens = 512
            scheduler.max_num_seqs = SEQUENCES
            pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
        numbers = numpy.random.default_rng()

        def prompt(length):
            return openvino.Tensor(numbers.integers(1000, 40000, (1, length)).astype(numpy.int64))

        def config(tokens):
            return genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, do_sample=False)

        for _ in sys.stdin:
            if what == "prefill":
                metrics = pipeline.generate(prompt(512), config(1)).perf_metrics
                rate = 512 / metrics.get_ttft().mean * 1e3
            else:
                prompts = [prompt(PROMPT) for _ in range(SEQUENCES)]
                configs = [config(GENERATE) for _ in prompts]
                begun = time.perf_counter()
                answers = pipeline.generate(prompts, configs)
                seconds = time.perf_counter() - begun
                tokens = sum(len(answer.m_generation_ids[0]) for answer in answers)
                if tokens != SEQUENCES * GENERATE:
                    raise RuntimeError(f"{tokens} tokens came")
                rate = tokens / seconds
            print(json.dumps({"tokens_per_second": rate}), flush=True)
    except Exception as error:  # a row that is not run says why
        print(json.dumps({"error": " ".join(str(error).split())[:200]}), flush=True)


# servers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(command, port, threads, name):
    """Starts a server; seconds until it answered one token, and its RSS in bytes then."""
    body = json.dumps({"model": name, "prompt": f"{random.random()} is", "max_tokens": 1})
    url = f"http://127.0.0.1:{port}/v1/completions"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body.encode(), headers)
    begun = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(on_cpus(command, threads), **quiet)
    try:
        while True:
            try:
                with urllib.request.urlopen(request, timeout=START_SECONDS_MAX) as answer:
                    answer.read()
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    raise NotRun(f"{Path(command[0]).name} ended at once") from None
                if time.perf_counter() - begun > START_SECONDS_MAX:
                    raise NotRun(f"{Path(command[0]).name} does not answer") from None
                time.sleep(0.002)
        seconds = time.perf_counter() - begun
        status = Path(f"/proc/{process.pid}/status").read_text()
        rss = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return {"seconds": seconds, "rss": int(rss.split()[1]) * 1024}
    finally:
        process.terminate()
        process.wait()


def arcmesh_served(given, model):
    port = free_port()
    command = [given.arcmesh, "serve", "--model", model, "--port", port, "--threads", 2]
    command += ["--served-model-name", "it", "--max-num-seqs", SLOTS, "--max-model-len", SLOT_TOKENS]
    command += ["--block-size", 16, "--kv-blocks", SLOTS * SLOT_TOKENS // 16]
    return served(command, port, 2, "it")


def llama_served(given, model):
    port = free_port()
    command = [llama(given, "llama-server"), "-m", model, "--port", port, "-t", 2]
    command += ["-np", SLOTS, "-c", SLOTS * SLOT_TOKENS]
    return served(command, port, 2, "it")


# rows: how each side is measured, and what the ratio must be


class Row:
    """Two ways to get a figure; `lower` where less is better."""

    def __init__(self, name, title, unit, must, goal, own, peer, lower=False):
        self.name, self.title, self.unit, self.lower = name, title, unit, lower
        self.must, self.goal, self.own, self.peer = must, goal, own, peer

    def verdict(self, ratio):
        reached = lambda bar: bar is not None and (ratio <= bar if self.lower else ratio >= bar)
        return "goal met" if reached(self.goal) else "must met" if reached(self.must) else "NOT MET"


def rows(given, path):
    def decode(model, threads):
        return (lambda: arcmesh(given, path(model), threads, 0, 128),
                lambda: llama_bench(given, path(model), threads, 0, 128))

    def prefill(model, threads):
        return (lambda: arcmesh(given, path(model), threads, 512, 0),
                lambda: llama_bench(given, path(model), threads, 512, 0))

    rate, llama_cpp, openvino = "tokens/s", "llama.cpp", "OpenVINO GenAI"
    many = f"{SEQUENCES} sequences, {PROMPT} in + {GENERATE} out, 2 threads"
    batch = lambda: arcmesh(given, path(SMALL), 2, PROMPT, GENERATE, SEQUENCES)
    found = []
    counted = lambda threads: f"{threads} thread" + ("s" if threads > 1 else "")
    for threads, goal in [(1, 1.25), (2, 1.4)]:
        title = f"decode 128, {counted(threads)}, vs {llama_cpp}"
        found.append(Row(f"decode-{threads}", title, rate, 1.0, goal, *decode(SMALL, threads)))
    for threads in (1, 2):
        title = f"prefill 512, {counted(threads)}, vs {llama_cpp}"
        found.append(Row(f"prefill-{threads}", title, rate, 2.0, 3.5, *prefill(SMALL, threads)))
    for threads in (1, 2):
        title = f"prefill 512, {counted(threads)}, vs {openvino}"
        own, peer = prefill(SMALL, threads)[0], OpenVino(given, path, "prefill", threads)
        found.append(Row(f"prefill-openvino-{threads}", title, rate, 0.7, 1.1, own, peer))
    found.append(Row("batch-openvino", f"{many}, vs {openvino}", rate, 0.7, 1.1, batch,
                     OpenVino(given, path, "batch", 2)))
    found.append(Row("batch-llama", f"{many}, vs {llama_cpp}", rate, 2.0, 3.0, batch,
                     lambda: llama_batched(given, path(SMALL), 2)))
    for half, sides in [("decode 128", decode), ("prefill 512", prefill)]:
        for threads in (1, 2):
            name, title = half.split()[0], f"Gemma-3-270M {half}, {counted(threads)}, vs {llama_cpp}"
            found.append(Row(f"gemma-{name}-{threads}", title, rate, 1.0, 1.3, *sides(GEMMA, threads)))
    for name, title, what, unit, goal in [
        ("rss", f"RSS, {SLOTS} × {SLOT_TOKENS} tokens, vs llama-server", "rss", "bytes", 0.7),
        ("start", "start to first token, vs llama-server", "seconds", "s", None),
    ]:
        own = lambda what=what: arcmesh_served(given, path(SMALL))[what]
        peer = lambda what=what: llama_served(given, path(SMALL))[what]
        found.append(Row(name, title, unit, 1.0, goal, own, peer, lower=True))
    return found


def compared(row, pairs):
    """Medians over the pairs; the first pair of a row is begun by arcmesh, the second by the peer, …"""
    own, peer = [], []
    try:
        for nth in range(pairs):
            sides = [(row.own, own), (row.peer, peer)]
            for measure, figures in sides if nth % 2 == 0 else reversed(sides):
                figures.append(measure())
    finally:
        if isinstance(row.peer, OpenVino):
            row.peer.close()
    ratios = [ours / theirs for ours, theirs in zip(own, peer)]
    ratio = statistics.median(ratios)
    return {
        "row": row.name, "title": row.title, "unit": row.unit, "lower_is_better": row.lower,
        "arcmesh": statistics.median(own), "peer": statistics.median(peer), "ratio": ratio,
        "ratio_of_bests": min(own) / min(peer) if row.lower else max(own) / max(peer),
        "ratios": ratios, "arcmesh_of_pairs": own, "peer_of_pairs": peer,
        "must": row.must, "goal": row.goal, "verdict": row.verdict(ratio),
    }


def shown(found):
    if "not_run" in found:
        return f"| {found['title']} | | | not run: {found['not_run']} | | | | |"
    scale, unit = (1e6, "MB") if found["unit"] == "bytes" else (1, found["unit"])
    digits = 3 if unit == "s" else 1
    figure = lambda value: f"{value / scale:.{digits}f}"
    ratio = f"{found['ratio']:.2f} ({min(found['ratios']):.2f} to {max(found['ratios']):.2f})"
    bars = f"{found['must']:.2f} | " + (f"{found['goal']:.2f}" if found["goal"] else "–")
    title = found["title"] + (", lower is better" if found["lower_is_better"] else "")
    figures = f"{figure(found['arcmesh'])} | {figure(found['peer'])} {unit}"
    bests = f"{found['ratio_of_bests']:.2f}"
    return f"| {title} | {figures} | {ratio} | {bests} | {bars} | {found['verdict']} |"


def flags():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--arcmesh", type=Path, default=root / "target/release/arcmesh")
    parser.add_argument("--llama-bin", type=Path, help="folder of llama-bench and the like")
    parser.add_argument("--openvino", type=Path, help="python that has openvino-genai")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of each row [5]")
    parser.add_argument("--runs", type=int, default=3, help="repetitions in a measurement [3]")
    parser.add_argument("--only", help="rows, parted by commas [all]")
    parser.add_argument("--json", type=Path, help="where the figures go as well")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    given = parser.parse_args()
    if given.pairs < 1 or given.runs < 1:
        parser.error("--pairs and --runs are 1 or more")
    if not given.list and not given.arcmesh.exists():
        parser.error(f"there is no {given.arcmesh}: cargo build --release")
    return parser, given


def main():
    parser, given = flags()
    places = {}

    def path(model):
        if model not in places:
            command = [given.arcmesh, "pull", model]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            places[model] = done.stdout.strip()
        return places[model]

    all_rows = rows(given, path)
    names = [row.name for row in all_rows]
    if given.list:
        print("\n".join(names))
        return
    only = given.only.split(",") if given.only else names
    if strange := [name for name in only if name not in names]:
        parser.error(f"--only: there is no row {strange[0]}; see --list")
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"something else runs here: the load is {load:.1f}", file=sys.stderr)
    print("| row | arcmesh | peer | ratio (least to most) | of the bests | must | goal | |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for row in all_rows:
        if row.name not in only:
            continue
        try:
            found = compared(row, given.pairs)
        except (NotRun, subprocess.TimeoutExpired, OSError) as reason:
            found = {"row": row.name, "title": row.title, "not_run": str(reason)}
        print(shown(found), flush=True)
        results.append(found)
        if given.json:
            given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside-openvino"]:
        inside_openvino(*sys.argv[2:])
    else:
        main()
