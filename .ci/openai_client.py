#!/usr/bin/env python3
"""Drives a real server with the openai package, as a user of that package would.

    python3 .ci/openai_client.py PATH-TO-ARCMESH

Starts two workers and a coordinator as processes of their own, streams a chat, checks what came, and
ends them again.
"""

import socket
import subprocess
import sys
import time
import urllib.request

import openai

WAIT_SECONDS = 300


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def ready(base):
    try:
        with urllib.request.urlopen(f"{base}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def talk(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="a-key-of-ours", max_retries=0)
    model = client.models.list().data[0].id
    question = [{"role": "user", "content": "What is the capital of France?"}]

    whole = client.chat.completions.create(
        model=model, messages=question, max_tokens=24, temperature=0
    )
    pieces, finish, usage = [], None, None
    stream = client.chat.completions.create(
        model=model,
        messages=question,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            finish = choice.finish_reason or finish
    text = "".join(pieces)
    assert text == whole.choices[0].message.content, (text, whole)
    assert finish in ("stop", "length"), finish
    assert usage.completion_tokens == whole.usage.completion_tokens, (usage, whole.usage)
    assert len(pieces) > 3, pieces

    try:
        client.chat.completions.create(model="nobody", messages=question)
        raise AssertionError("an unknown model was served")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    try:
        client.chat.completions.create(model=model, messages=question, max_tokens=-1)
        raise AssertionError("max_tokens = -1 was accepted")
    except openai.BadRequestError as error:
        assert error.param == "max_tokens", error
    try:
        openai.OpenAI(base_url=f"{base}/v1", api_key="wrong", max_retries=0).models.list()
        raise AssertionError("a wrong key was accepted")
    except openai.AuthenticationError:
        pass
    return text


def main():
    arcmesh = sys.argv[1]
    http, *rest = free_ports(5)
    workers = [rest[0], rest[2]], [rest[1], rest[3]]
    base = f"http://127.0.0.1:{http}"
    processes = []
    try:
        for listen, metrics in zip(*workers):
            processes.append(
                subprocess.Popen(
                    [arcmesh, "worker", "--listen", f"127.0.0.1:{listen}"]
                    + ["--metrics", f"127.0.0.1:{metrics}", "--threads", "1"]
                )
            )
        members = [f"--worker=127.0.0.1:{listen}" for listen in workers[0]]
        processes.append(
            subprocess.Popen(
                [arcmesh, "coordinator", "--host", "127.0.0.1", "--port", str(http)]
                + ["--api-key", "a-key-of-ours", *members]
            )
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while not ready(base):
            assert time.monotonic() < deadline, "not ready in time"
            assert all(p.poll() is None for p in processes), "a process ended early"
            time.sleep(0.2)
        print("the answer:", talk(base))
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=60)


main()
