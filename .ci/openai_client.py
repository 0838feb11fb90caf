#!/usr/bin/env python3
"""Drives a real server with the openai package, as a user of that package would.

    python3 .ci/openai_client.py PATH-TO-ARCMESH

Starts two workers and a coordinator as processes of their own, streams a chat, checks what came, and
ends them again.
"""

import json
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

    bent(client, model, question, text)
    scored(client, model)
    limited(client, model, question)
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


def tokenize(client, text):
    url = str(client.base_url).replace("/v1/", "/tokenize")
    body = json.dumps({"prompt": text}).encode()
    headers = {"Authorization": "Bearer a-key-of-ours", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return json.load(answer)["tokens"]


def bent(client, model, question, plain):
    """Log-probabilities are as many as tokens, and penalties, bias and seeds do what they say."""
    ask = {"model": model, "messages": question, "max_tokens": 24, "temperature": 0}
    told = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    tokens = told.choices[0].logprobs.content
    assert len(tokens) == told.usage.completion_tokens, told
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens), "greedy"
    assert all(len(token.top_logprobs) == 3 for token in tokens), told
    banned = {str(token): -100 for token in tokenize(client, tokens[0].token)}
    other = client.chat.completions.create(**ask, logit_bias=banned).choices[0].message.content
    assert not other.startswith(tokens[0].token), (other, plain)
    penalised = client.chat.completions.create(
        **{**ask, "max_tokens": 64}, frequency_penalty=2, presence_penalty=2
    )
    assert penalised.choices[0].message.content != plain
    warm = {**ask, "temperature": 1, "seed": 11}
    texts = {client.chat.completions.create(**warm).choices[0].message.content for _ in range(2)}
    assert len(texts) == 1, texts
    streamed = []
    for chunk in client.chat.completions.create(**ask, logprobs=True, stream=True):
        for choice in chunk.choices:
            streamed += choice.logprobs.content if choice.logprobs else []
    assert [token.logprob for token in streamed] == [token.logprob for token in tokens]


def scored(client, model):
    """As evaluation harnesses score: token ids in, the prompt echoed, its log-probabilities back."""
    ids = [504, 3575, 282, 4649, 314]  # "The capital of France is"
    for most in (0, 1):
        answer = client.completions.create(
            model=model, prompt=[ids, ids[:3]], max_tokens=most, temperature=0, logprobs=1, echo=True
        )
        for choice, length in zip(sorted(answer.choices, key=lambda c: c.index), (5, 3)):
            told = choice.logprobs
            assert len(told.token_logprobs) == length + most, told
            assert told.token_logprobs[0] is None and told.top_logprobs[0] is None, told
            assert all(logprob < 0 for logprob in told.token_logprobs[1:]), told
            assert choice.text[: told.text_offset[1]] == told.tokens[0], told
            for logprob, top in zip(told.token_logprobs[1:], told.top_logprobs[1:]):
                assert logprob <= max(top.values()), told


def limited(client, model, question):
    """What ended an answer is named, and whoever cannot wait is told so."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=question, max_tokens=3, temperature=0
    )
    assert raw.headers["x-arcmesh-finish-limit"] == "request", raw.headers
    assert raw.parse().choices[0].finish_reason == "length"
    try:
        client.chat.completions.create(
            model=model, messages=question, max_tokens=2000,
            extra_body={"timeout": 0.001, "ignore_eos": True},
        )
        raise AssertionError("an answer came in no time")
    except openai.APIStatusError as error:
        assert (error.status_code, error.code) == (504, "timeout"), error
    for field, value in [
        ("temperature", -1), ("top_p", 2), ("n", 0), ("stop", [""]), ("seed", "x"),
        ("presence_penalty", 3), ("frequency_penalty", -3), ("logit_bias", {"x": 1}),
        ("top_logprobs", 21), ("logprobs", 1), ("max_completion_tokens", 0), ("timeout", -1),
    ]:
        try:
            client.chat.completions.create(
                model=model, messages=question, extra_body={field: value}
            )
            raise AssertionError(f"{field} = {value} was accepted")
        except openai.BadRequestError as error:
            assert error.param == field and error.type == "invalid_request_error", error


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
