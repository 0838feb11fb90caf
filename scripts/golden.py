#!/usr/bin/env python3
"""Golden logits of a GGUF model: a plain float32 forward pass over dequantised weights, in numpy.

Written from the papers' formulas, with no code shared with arcmesh or any other engine, so that the
engine has something independent to be held against. Whole sequence at once, no cache.

    python3 -m pip install numpy gguf
    python3 scripts/golden.py MODEL.gguf PROMPTS.json > tests/data/NAME.json
    python3 scripts/golden.py MODEL.gguf --against tests/data/NAME.json

PROMPTS.json: [{"name": …, "ids": [token ids]}, …]. For each prompt the result has the 32 greatest
logits of the last position, 64 logits at fixed places, and the greedy continuation for as long as the
margin between the best two tokens stays over one logit (at most 48 tokens).

--against says how far this pass itself is off such a result where keys and values are rounded to q8_0, codes
of 8 bits with an f16 scale for 32 of a head's numbers, and nothing else is changed.
"""

import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

GREEDY_MAX = 48
MARGIN = 1.0


class Model:
    """The weights and the few numbers that shape them."""

    def __init__(self, path):
        reader = GGUFReader(path)
        field = lambda key, default=None: (
            reader.fields[key].contents() if key in reader.fields else default
        )
        self.arch = arch = field("general.architecture")
        self.layers = field(f"{arch}.block_count")
        self.hidden = field(f"{arch}.embedding_length")
        self.heads = field(f"{arch}.attention.head_count")
        self.kv_heads = field(f"{arch}.attention.head_count_kv")
        self.head = field(f"{arch}.attention.key_length", self.hidden // self.heads)
        self.eps = field(f"{arch}.attention.layer_norm_rms_epsilon")
        self.base = field(f"{arch}.rope.freq_base", 10000.0)
        self.window = field(f"{arch}.attention.sliding_window", 0) if arch == "gemma3" else 0
        self.gemma = arch == "gemma3"
        self.rounded = lambda x: x
        self.w = {
            t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors
        }
        self.w.setdefault("output.weight", self.w["token_embd.weight"])

    def norm(self, x, name):
        rms = np.sqrt(np.mean(x.astype(np.float64) ** 2, axis=-1, keepdims=True) + self.eps)
        return (x / rms).astype(np.float32) * self.w[name]

    def rotate(self, x, positions, base, interleaved):
        """x: (tokens, heads, head)"""
        half = self.head // 2
        freq = base ** (-np.arange(half, dtype=np.float64) / half)
        angle = positions[:, None] * freq[None, :]
        cos = np.cos(angle)[:, None, :].astype(np.float32)
        sin = np.sin(angle)[:, None, :].astype(np.float32)
        out = np.empty_like(x)
        a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
        ra, rb = a * cos - b * sin, a * sin + b * cos
        if interleaved:
            out[..., 0::2], out[..., 1::2] = ra, rb
        else:
            out[..., :half], out[..., half:] = ra, rb
        return out

    def attention(self, x, layer, cache):
        """x: (new tokens, hidden) → (new tokens, heads × head)"""
        p = f"blk.{layer}."
        n, start = x.shape[0], cache["n"]
        positions = np.arange(start, start + n, dtype=np.float64)
        q = (x @ self.w[p + "attn_q.weight"].T).reshape(n, self.heads, self.head)
        k = (x @ self.w[p + "attn_k.weight"].T).reshape(n, self.kv_heads, self.head)
        v = (x @ self.w[p + "attn_v.weight"].T).reshape(n, self.kv_heads, self.head)
        sliding = self.gemma and (layer + 1) % 6 != 0
        base = 10000.0 if sliding else self.base
        if self.gemma:
            q, k = self.norm(q, p + "attn_q_norm.weight"), self.norm(k, p + "attn_k_norm.weight")
        q = self.rotate(q, positions, base, not self.gemma)
        k = self.rotate(k, positions, base, not self.gemma)
        keys = cache["k"][layer] = np.concatenate([cache["k"][layer], self.rounded(k)])
        values = cache["v"][layer] = np.concatenate([cache["v"][layer], self.rounded(v)])
        i = np.arange(start, start + n)[:, None]
        j = np.arange(start + n)[None, :]
        seen = j <= i
        if sliding:
            seen &= j > i - self.window
        group = self.heads // self.kv_heads
        out = np.empty((n, self.heads, self.head), np.float32)
        for h in range(self.heads):
            scores = (q[:, h] @ keys[:, h // group].T).astype(np.float64) / np.sqrt(self.head)
            scores = np.where(seen, scores, -np.inf)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            out[:, h] = scores.astype(np.float32) @ values[:, h // group]
        return out.reshape(n, -1)

    def forward(self, ids, cache):
        """Logits of the last of `ids`."""
        x = self.w["token_embd.weight"][ids]
        if self.gemma:
            x = x * np.float32(np.sqrt(self.hidden))
        for layer in range(self.layers):
            p = f"blk.{layer}."
            a = self.attention(self.norm(x, p + "attn_norm.weight"), layer, cache)
            a = a @ self.w[p + "attn_output.weight"].T
            if self.gemma:
                a = self.norm(a, p + "post_attention_norm.weight")
            x = x + a
            m = self.norm(x, p + "ffn_norm.weight")
            gate, up = m @ self.w[p + "ffn_gate.weight"].T, m @ self.w[p + "ffn_up.weight"].T
            if self.gemma:
                gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            else:
                gate = gate / (1 + np.exp(-gate))
            d = (gate * up).astype(np.float32) @ self.w[p + "ffn_down.weight"].T
            if self.gemma:
                d = self.norm(d, p + "post_ffw_norm.weight")
            x = x + d
        cache["n"] += len(ids)
        return self.w["output.weight"] @ self.norm(x[-1:], "output_norm.weight")[0]

    def empty(self):
        none = np.zeros((0, self.kv_heads, self.head), np.float32)
        return {"n": 0, "k": [none] * self.layers, "v": [none] * self.layers}


def golden(model, prompt):
    cache = model.empty()
    logits = model.forward(prompt["ids"], cache)
    top = np.argsort(-logits, kind="stable")[:32]
    places = (np.arange(64, dtype=np.int64) * 7919) % len(logits)
    result = {
        "name": prompt["name"],
        "ids": prompt["ids"],
        "top": [[int(i), round(float(logits[i]), 4)] for i in top],
        "places": [[int(i), round(float(logits[i]), 4)] for i in places],
        "mean_square": float(np.mean(logits.astype(np.float64) ** 2)),
        "greedy": [],
        "margins": [],
    }
    while len(result["greedy"]) < GREEDY_MAX:
        best = np.argsort(-logits, kind="stable")[:2]
        margin = float(logits[best[0]] - logits[best[1]])
        if margin <= MARGIN:
            break
        result["greedy"].append(int(best[0]))
        result["margins"].append(round(margin, 3))
        logits = model.forward([int(best[0])], cache)
    return result


def q8_0(x):
    """x: (tokens, heads, head)"""
    groups = x.reshape(-1, 32)
    scale = (np.abs(groups).max(axis=-1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(groups / np.where(scale == 0, np.inf, scale)), -127, 127)
    return (codes * scale).astype(np.float32).reshape(x.shape)


def against(model, results):
    model.rounded = q8_0
    for wanted in results:
        logits = model.forward(wanted["ids"], model.empty())
        pairs = wanted["top"] + wanted["places"]
        off = [abs(float(logits[i]) - logit) / np.sqrt(wanted["mean_square"]) for i, logit in pairs]
        print(f"{wanted['name']}: worst {max(off):.4f}, mean {np.mean(off):.4f} of the root mean square")


if __name__ == "__main__":
    model = Model(sys.argv[1])
    if sys.argv[2] == "--against":
        against(model, json.load(open(sys.argv[3])))
        sys.exit()
    prompts = json.load(open(sys.argv[2]))
    print("[")
    for at, prompt in enumerate(prompts):
        print(json.dumps(golden(model, prompt)) + ("," if at + 1 < len(prompts) else ""))
        sys.stdout.flush()
    print("]")
