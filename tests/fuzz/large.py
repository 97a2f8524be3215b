"""Inputs of a few hundred kilobytes that would take a reader minutes if its work were quadratic somewhere.

    python tests/fuzz/large.py FOLDER

A fuzzer works on small inputs and does not see that. Runs the programs fuzz_* of FOLDER with their limits of time and
memory on each input; prints a line for each that fails, with the command that runs it again.
"""

import json
import subprocess
import sys
from pathlib import Path

import run

N = 300_000  # bytes, about


def repeated(piece: str, size: int = N) -> str:
    return piece * (size // len(piece))


def numbered(form: str, count: int, separator: str = ",") -> str:
    return separator.join(form.replace("#", str(i)) for i in range(count))


def bert(**parts) -> str:
    vocabulary = {"[UNK]": 0, **{f"##{c}": 3 + i for i, c in enumerate("abcdef")}, "a": 1, "aa": 2}
    return json.dumps({"version": "1.0", "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocabulary,
                       "continuing_subword_prefix": "##", "max_input_chars_per_word": 1 << 30}, **parts})


def bpe(**parts) -> str:
    merges = [["a" * n, "a" * n] for n in (1, 2, 4, 8)]
    vocabulary = {token: i for i, token in enumerate(["a", "b", *(left + right for left, right in merges)])}
    return json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "byte_fallback": True}, **parts})


def unigram() -> str:
    vocabulary = [["<unk>", 0.0], *(["a" * n, -float(n)] for n in range(1, 16))]
    return json.dumps({"model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}})


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


INPUTS: dict[str, list] = {
    "json": [
        "{" + numbered('"k#":0', N // 10) + "}", repeated("["), repeated("[],"), "[" + repeated("[],") + "0]",
        '"' + repeated("\\u0041") + '"', "[" + repeated("1e5,") + "1]", repeated("/* */"), "[" + repeated("{},") + "1]",
    ],
    "index": ['{"weight_map":{' + numbered('"t#":"f#"', N // 16) + "}}", '{"a":' + repeated("[")],
    "safetensors": [
        len(text).to_bytes(8, "little") + text.encode() for text in (
            "{" + numbered('"t#":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}', N // 60) + "}",
            '{"__metadata__":{' + numbered('"k#":"v"', N // 14) + "}}", '{"a":' + repeated("[") + repeated("]") + "}")
    ],
    "zip": [repeated("PK\5\6"), repeated("PK\1\2" + "\0" * 42) + "PK\5\6" + "\0" * 18],
    "pickle": [
        pickled(body) for body in (
            b"]q\0" + b"(" + b"h\0" * (N // 2) + b"e", b"}(" + b"K\1K\2" * (N // 4) + b"u", b"(" * N, b"]" * N,
            b"}q\0(" + b"K\1h\0" * (N // 4) + b"u", b"(K\1" * (N // 4) + b"t" * (N // 4), b"N" + b"2" * N,
            b"N" + b"\x94" * N, b"X" + N.to_bytes(4, "little") + b"a" * N + b"q\0" + b"0h\0" * N)
    ],
    "exported_text": [
        "s" + repeated("Add("), "sMul(Symbol('a')" + repeated(",Symbol('a')") + ")", "z" + repeated("a*") + "a",
        "sAdd(Integer(1)" + repeated(",Symbol('a')") + ")", "z" + numbered("a#", N // 7, "+"), "m" + repeated("a,b,c;"),
        "t[1," + json.dumps({"type": "x", "context": json.dumps(["a" * (N // 2)]), "children_spec": [
            {"type": "list", "context": None, "children_spec": [{"type": None}] * (N // 40)}]}) + "]",
    ],
    "schedule": [numbered("0F#", N // 8), numbered("#F0", N // 8, "\n"), repeated("\n"), repeated(","), "0F" + "9" * N],
    "chat": [
        repeated("a"), repeated("{{ 'a' }}"), "{{ " + repeated("a + ") + "a }}", "{{ " + repeated("[") + " }}",
        repeated("{% if a %}"), "{{ 1" + repeated("|int") + " }}", "{{ s" + repeated(".x") + " }}", repeated("{# #}"),
        "{{ '" + repeated("\\n") + "'|upper|trim|length }}", repeated("{% set a = a + 1 %}"), repeated("{"),
        "{{ [" + repeated("1,") + "]|sort|unique|list|length }}", "{{ '" + repeated("a ") + "'.split()|join('b') }}",
        "{{ '" + repeated("a") + "'.replace('a', 'bb') }}", "{{ " + "9" * N + " }}", "{{ " + repeated("not ") + "a }}",
        "{% set a %}" + repeated("{% set b %}"), repeated("{% macro f() %}{% endmacro %}"), "{{ f(" + repeated("a=1,") + ") }}",
    ],
    "tokenizer": [
        bpe() + "\0" + repeated("a"), bpe() + "\0" + repeated("ab"), bert() + "\0" + repeated("a"),
        bert(pre_tokenizer={"type": "BertPreTokenizer"}) + "\0" + repeated("a b,"), unigram() + "\0" + repeated("a"),
        bpe(pre_tokenizer=split(r"\s+(?!\S)|\s+")) + "\0" + repeated(" "), bpe(pre_tokenizer=split("a*?b")) + "\0" + repeated("a"),
        bpe(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "b"}) + "\0" + repeated("a"),
        bpe(normalizer={"type": "NFKC"}) + "\0" + "a" + repeated("\u0301"), bpe(normalizer={"type": "NFC"}) + "\0" + repeated("\u1100"),
        bpe(added_tokens=[{"id": 100 + i, "content": f"b{i}", "special": True, "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False} for i in range(2000)]) + "\0" + repeated("b1"),
        '{"model":{"type":"BPE","merges":[],"vocab":{' + numbered('"t#":#', N // 14) + "}}}",
        '{"model":{"type":"Unigram","unk_id":0,"vocab":[' + numbered('["t#",-1.5]', N // 14) + "]}}",
        '{"model":{"type":"BPE","vocab":{"a":0},"merges":[' + repeated('"a a",') + '"a a"]}}', '{"a":' + repeated("["),
    ],
}  # fmt: skip


def main() -> int:
    folder = Path(sys.argv[1])
    for name in ("large", "found"):
        (folder / name).mkdir(exist_ok=True)
    failed = 0
    for target, inputs in INPUTS.items():
        for i, content in enumerate(inputs):
            path = folder / "large" / f"{target}-{i}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            command = [f"{folder}/fuzz_{target}", *run.LIMITS, f"-artifact_prefix={folder}/found/", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
            if done.returncode != 0:
                failed += 1
                print(done.stderr[-2000:])
                print(f"fuzz {target}: FAILED on {path}; again: {' '.join(command)}")
    print(f"{sum(map(len, INPUTS.values()))} inputs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
