#!/usr/bin/env python3
"""Makes the pictures of docs/pictures: the live page, and the reports of bench serve and of the demo.

    scripts/pictures.py ARCMESH [--browser chromium] [--demo FOLDER]

ARCMESH is the command. FOLDER is where `arcmesh demo` left its report; without it, that picture stays as
it is. A server is started, waves of requests are put on it, and a real browser shows what people see. Only
the standard library is used: the browser is driven over a pair of pipes.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "pictures"
LOAD = ["--wave", "20", "--concurrency", "8", "--prompt-tokens", "uniform:30..200", "--answer-tokens", "uniform:8..64"]


class Browser:
    """A browser without a window, asked over pipes: file descriptors 3 and 4 of its process."""

    def __init__(self, program):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self.profile = tempfile.TemporaryDirectory()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
                 f"--user-data-dir={self.profile.name}"]
        command = ["sh", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "sh", program, *flags]
        self.process = subprocess.Popen(command, pass_fds=[theirs_in, theirs_out], stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.out, self.into = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb", 0)
        self.buffer, self.number, self.session = b"", 0, None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                more = self.into.read(1 << 16)
                if not more:
                    raise SystemExit("the browser ended")
                self.buffer += more
            one, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(one)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]

    def show(self, url, width, height, scheme="light"):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)

    def run(self, script):
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    def picture(self, name):
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        HERE.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(base64.b64decode(data))
        print(HERE / name)

    def end(self):
        self.process.terminate()
        self.process.wait()


def served(arcmesh):
    process = subprocess.Popen([arcmesh, "serve", "--port", "0", "--world", "2"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        found = re.match(r"listening on (\S+)", line)
        if found:
            return process, found[1]
    raise SystemExit("the server did not start")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("arcmesh")
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--demo", type=pathlib.Path)
    given = parser.parse_args()
    server, url = served(given.arcmesh)
    browser = Browser(given.browser)
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = f"{folder}/report.html"
            load = [given.arcmesh, "bench", "serve", "--url", url, "--duration", "90", "--html", report, *LOAD]
            load = subprocess.Popen(load, stdout=subprocess.DEVNULL)
            browser.show(url, 1280, 1240)
            time.sleep(70)
            browser.picture("live.png")
            browser.show(url, 400, 860, "dark")
            time.sleep(12)
            browser.run("document.getElementById('question').value = 'Why is the sky blue?';"
                        "document.getElementById('ask').requestSubmit()")
            time.sleep(6)
            browser.run("document.getElementById('chat').scrollIntoView()")
            browser.picture("phone.png")
            if load.wait() != 0:
                raise SystemExit("the load failed")
            browser.show(f"file://{report}", 1280, 1500)
            time.sleep(1)
            browser.picture("bench.png")
        if given.demo:
            browser.show(f"file://{given.demo.resolve()}/report.html", 1280, 2100, "dark")
            time.sleep(1)
            browser.picture("demo.png")
    finally:
        browser.end()
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
