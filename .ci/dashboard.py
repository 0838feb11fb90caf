"""Reads monitor/grafana.json with Grafana's own types, made from the schema that it publishes: whatever the
schema does not know, or knows as another type, is named. And it is what scripts/dashboard.py writes."""

import json
import pathlib
import subprocess
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "monitor" / "grafana.json"


def lost(path, ours, theirs):
    """What is in ours, and not or otherwise in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from lost(f"{path}.{key}", value, theirs[key])
            elif value not in (None, "", [], {}, False):
                yield f"{path}.{key} is not in Grafana's schema"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs)):
            yield from lost(f"{path}[{index}]", mine, other)
    elif ours != theirs:
        yield f"{path} is {ours!r}, which Grafana reads as {theirs!r}"


def main():
    register_default_plugins()
    text = FILE.read_text()
    ours = json.loads(text)
    theirs = json.loads(JSONEncoder(sort_keys=False).encode(Dashboard.from_json(ours)))
    wrong = list(lost("dashboard", ours, theirs))
    subprocess.run([sys.executable, str(ROOT / "scripts" / "dashboard.py")], check=True)
    if FILE.read_text() != text:
        wrong.append("monitor/grafana.json is not what scripts/dashboard.py writes")
    for line in wrong:
        print(line)
    if wrong:
        sys.exit(1)
    print(f"{len(ours['panels'])} panels are as Grafana's schema says")


if __name__ == "__main__":
    main()
