#!/usr/bin/env python3
"""Writes the tokenizer corpus and the ids that llama.cpp gives it.

    python3 scripts/tokenizer.py corpus
    llama-server -m MODEL.gguf --port 8099          # llama.cpp, any recent build
    python3 scripts/tokenizer.py ids NAME http://127.0.0.1:8099

`corpus` writes tests/data/tokenizer_corpus.json: strings made up for what goes wrong in tokenizers, and random
ones from a fixed seed. `ids` asks the server's /tokenize for each string, without the begin token,
once with control tokens as plain text and once with control tokens parsed where that differs, and
writes tests/data/tokenizer_NAME.json.
"""

import json
import pathlib
import random
import sys
import urllib.request

DATA = pathlib.Path(__file__).parent.parent / "tests" / "data"

NASTY = [
    # nothing, and white space of all kinds
    "", " ", "  ", "   ", "\t", "\t\t\t", "\n", "\n\n", "\n\n\n\n\n\n\n", "\r", "\r\n", "\r\n\r\n", " \n", "\n ",
    " \n \n ", "\t \t", "a ", " a", "  a", "a  b", "a   b    c", "a\tb", "a\nb", "a\n\nb", "a \n b", "x\r\ny\r\n",
    "\u00a0", "a\u00a0b", "\u2003wide", "\u3000全角", "a\u2028b\u2029c", "\u200bzero\u200bwidth", "\x0b\x0c", "\x85next",
    " " * 17 + "code", "\n" * 40, "\t" * 33 + "x", " " * 100, "end   ", "end\n\n\n   ", "   \n\n   x   \n",
    # words, case, contractions
    "hello", "Hello", "HELLO", " hello", "Hello, world!", "I'm you're he's we've they'll I'd don't",
    "I'M YOU'RE HE'S WE'VE THEY'LL I'D", "'s 't 're 've 'm 'll 'd", "o'clock rock'n'roll", "'''quotes'''", "it’s ‘curly’",
    "supercalifragilisticexpialidocious", "antidisestablishmentarianism", "a" * 70, "ab" * 50, "the the the the the",
    "camelCaseName snake_case_name kebab-case-name SCREAMING_CASE", "e.g. i.e. etc. Dr. U.S.A.", "naïve café Ünïcödé",
    # numbers
    "0", "7", "42", "123", "1234", "12345678901234567890", "3.14159", "1,000,000", "-1", "+1", "1e-9", "0x1F", "1/2",
    "２０２６", "١٢٣", "१२३", "½ ⅔ Ⅻ ① ²", "2026-11-24T06:50:00Z", "192.168.0.1:8080", "v1.2.3-rc.4", "100%", "$9.99",
    "a1b2c3", "1a2b3c", "12 34 56", "  12", "x=1", "007", "1st 2nd 3rd",
    # punctuation
    "!", "!!!", "?!", "...", "…", "---", "— – -", "a-b", "(a)", "[b]", "{c}", "<d>", "\"e\"", "`f`", "a.b.c", "a,b;c:d",
    "#!/bin/sh", "@user #tag", "a/b\\c", "~^|&*%$", "$$$", "^^", "||", "<<>>", "<=>", "!=", "->", "=>", "::", ";;;", "/* c */",
    "// comment", "<!-- html -->", "<p class=\"x\">&amp;</p>", "<table><tr><td></td></tr></table>", "[multimodal]",
    # code
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n", "def f(x):\n\treturn x ** 2\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "SELECT * FROM t WHERE a = 'b' AND c IN (1, 2);", "{\"k\": [1, 2.5, null, true], \"é\": \"\\u00e9\"}", "<|x|>", "a\\nb\\tc",
    "https://example.org/a/b?c=d&e=f#g", "C:\\Users\\x\\file.txt", "user@example.org", "λx. x + 1", "x² + y² = z²", "∀ε>0 ∃δ>0",
    # scripts
    "Привет, мир!", "Γειά σου κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "你好，世界！", "こんにちは世界",
    "カタカナ ひらがな 漢字", "안녕하세요 세계", "Xin chào thế giới", "ሰላም ልዑል", "გამარჯობა", "Բարեւ", "ᚠᛇᚻ", "𐍈𐌰", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚",
    "ｆｕｌｌｗｉｄｔｈ", "ǅ ǈ ǋ", "ß ẞ ﬁ ﬂ", "İı", "e\u0301 é", "n\u0303ñ", "a\u0300\u0301\u0302\u0303", "Z\u0351\u036b\u0343a\u0352l\u0348g\u0354o\u034f",
    # emoji and surrogates' neighbourhood
    "😀", "😀😃😄", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☃", "a😀b", " 😀 ", "🫠", "\ufe0f", "\U0001fae8",
    # private, unassigned, formatting, controls
    "\ufeffBOM", "a\ufeffb", "\ue000", "\U000f0000", "\U0010ffff", "\ufffd", "\ufffe", "\u0378", "\u202eabc\u202c", "a\u00adb",
    "\x00", "a\x00b", "\x01\x02\x03", "\x04", "\x06\x13\x14\x16", "\x1d\x1e\x1f", "\x7f", "\x80\x81", "a\x04b\x06c", "\U00040000", "\U000bffff",
    # control tokens as text
    "<|im_start|>", "<|im_end|>", "a<|im_end|>b", " <|im_end|> ", "<|im_start|>system\nx<|im_end|>\n", "<|im_end|", "|im_end|>",
    "<|endoftext|>", "<|IM_END|>", "<<|im_end|>>", "<|im_<|im_end|>end|>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "a<eos>b",
    "<start_of_turn>user\nhi<end_of_turn>\n", "<start_of_image>", "<unused0>", "<unused99> x", "<0x41>", "<0x00>", "▁", "▁▁a", "a▁b",
    "<filename>", "<repo_name>x", "<empty_output>", "<s>", "</s>", "[INST] x [/INST]", "<think>hm</think>",
    # BPE's own alphabet, and its odd letters
    "Ġ", "ĠĠ", "Ċ", "âĢĻ", "Ã©", "ĉ", "Ń", "¡¢£¤", "\u0100\u0101",
]


def random_strings():
    rng = random.Random(20261124)
    planes = [
        (0x20, 0x7E), (0x00, 0x7F), (0x80, 0x24F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF), (0x2000, 0x2BFF),
        (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x10FFFF),
    ]
    words = ["the", " of", " and", "ing", " 2026", "\n", "  ", "'s", "!", " (", ")", "é", "日本", "😀", "\t", "Zürich", "don't", "_", "0"]
    strings = []
    for _ in range(120):
        strings.append("".join(rng.choice(words) for _ in range(rng.randint(1, 14))))
    for low, high in planes:
        for _ in range(14):
            points = [rng.randint(low, high) for _ in range(rng.randint(1, 12))]
            strings.append("".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF))
    for _ in range(100):
        points = []
        for _ in range(rng.randint(1, 24)):
            low, high = rng.choice(planes)
            points.append(rng.randint(low, high))
        strings.append("".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF))
    return strings


def ask(server, text, parse):
    body = json.dumps({"content": text, "add_special": False, "parse_special": parse}).encode()
    request = urllib.request.Request(server + "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]


def write(name, lines):
    (DATA / name).write_text("[\n" + ",\n".join(json.dumps(line, separators=(",", ":")) for line in lines) + "\n]\n")


def main():
    if sys.argv[1] == "corpus":
        write("tokenizer_corpus.json", NASTY + random_strings())
        return
    name, server = sys.argv[2:4]
    lines = []
    for text in json.loads((DATA / "tokenizer_corpus.json").read_text()):
        plain, parsed = ask(server, text, False), ask(server, text, True)
        lines.append({"plain": plain} if plain == parsed else {"plain": plain, "parsed": parsed})
    write(f"tokenizer_{name}.json", lines)


main()
