#!/usr/bin/env python3
"""Runs docker-compose.yaml for real: all targets up, a streamed answer that survives a killed worker.

    scripts/compose_check.py IMAGE ETCD_IMAGE PROMETHEUS_IMAGE [--cache FOLDER]

Needs a Docker engine and Compose. IMAGE is arcmesh's (docker build -t IMAGE .), the others are etcd's and
Prometheus'; Grafana is left out. FOLDER holds models that were fetched already, for a machine whose
containers reach no package index. What was started and kept is removed at the end.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = "arcmesh-check"
WAIT_SECONDS = 300
SERVICES = ["etcd", "certs", "model", "coordinator", "standby", "worker-1", "worker-2", "worker-3", "worker-4",
            "prometheus"]
QUESTION = {"messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}],
            "temperature": 0, "max_tokens": 200, "stream": True}


def page(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait(what, holds):
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            if holds():
                print(what)
                return
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(1)
    raise SystemExit(f"in {WAIT_SECONDS} s never: {what}")


def leader():
    """Where the one of the two coordinators answers that leads."""
    for port in (8000, 8001):
        try:
            page(f"http://127.0.0.1:{port}/ready")
            return f"http://127.0.0.1:{port}"
        except OSError:  # 503, too
            pass
    return None


def story(base, midway=lambda: None):
    """The streamed answer; `midway` is called once after a few pieces."""
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(QUESTION).encode(),
                                     {"content-type": "application/json"})
    pieces = []
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            line = line.decode().strip()
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                return "".join(pieces)
            piece = json.loads(line[6:])
            if "error" in piece:
                raise SystemExit(f"the stream ended with {piece['error']}")
            pieces += [choice["delta"].get("content") or "" for choice in piece["choices"]]
            if len(pieces) == 20:
                midway()
    raise SystemExit("the stream ended without an end")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("etcd")
    parser.add_argument("prometheus")
    parser.add_argument("--cache", type=pathlib.Path)
    given = parser.parse_args()
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    tool = ["docker", "compose"] if plugin else [shutil.which("docker-compose") or sys.exit("there is no Compose")]
    settings = {**os.environ, "ARCMESH_IMAGE": given.image, "ETCD_IMAGE": given.etcd,
                "PROMETHEUS_IMAGE": given.prometheus}

    def compose(*arguments, check=True):
        subprocess.run([*tool, "-p", PROJECT, *arguments], cwd=ROOT, env=settings, check=check)

    def containers():
        listed = subprocess.run(["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
        return [name for name in listed.stdout.split() if name.startswith(PROJECT)]

    prometheus = "http://127.0.0.1:9090"
    try:
        if given.cache:
            copy = "cp -a /from/. /to && chown -R 10001 /to"
            subprocess.run(["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh",
                            "-v", f"{given.cache.resolve()}:/from:ro", "-v", f"{PROJECT}_models:/to",
                            given.image, "-c", copy], check=True)
        compose("up", "-d", "--no-build", *SERVICES)
        wait("a coordinator is ready", leader)
        base = leader()
        undisturbed = story(base)
        print(f"an answer of {len(undisturbed)} characters: {undisturbed[:60]!r}…")

        def targets():
            found = json.loads(page(f"{prometheus}/api/v1/targets"))["data"]["activeTargets"]
            health = [target["health"] for target in found]
            return len(health) >= 4 and all(state == "up" for state in health)

        wait("every target of Prometheus is up", targets)
        ranks = json.loads(page(f"{base}/sd/prometheus"))
        hosts = {target.rsplit(":", 1)[0] for group in ranks for target in group["targets"]}
        inspect = ["docker", "inspect", "-f", "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"]
        named = subprocess.run([*inspect, *containers()], capture_output=True, text=True, check=True).stdout
        victim = next(line.split()[0].lstrip("/") for line in named.splitlines() if line.split()[-1] in hosts)

        def kill():
            subprocess.run(["docker", "kill", victim], check=True, stdout=subprocess.DEVNULL)
            print(f"killed {victim}, which is a rank")

        if story(base, kill) != undisturbed:
            raise SystemExit("the answer changed when a worker was killed")
        print("the stream went on to the letter")
    except BaseException:
        compose("logs", "--tail", "30", check=False)
        raise
    finally:
        compose("down", "-v", "--timeout", "20", check=False)
    print("all is well")


main()
