#!/usr/bin/env python3
"""Generation side by side with Hugging Face on this machine: medians of alternating runs, ratios, and the limit.

    bench/e2e/compare.py [--model DIR] [--repetitions N] [--quick]

Both sides are warm: one process each, weights loaded, one run not counted. The memory limit is what two threads read
from a weight-sized buffer, measured between the runs; a decode step reads every weight once.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "build/bench/generate_bench"
PROGRAM = ROOT / "build/bin/shardpipe"


def ours(model, dtype, rows, length, new, threads=2, pp=1, chunks=0, cuts=None):
    command = [str(BENCH), "--model", str(model), "--dtype", dtype, "--rows", str(rows), "--length", str(length),
               "--new-tokens", str(new), "--threads", str(threads), "--repetitions", "1", "--pp", str(pp)]
    if chunks:
        command += ["--chunks", str(chunks)]
    if cuts:
        command += ["--cuts", cuts]
    if pp > 1:
        command = [str(PROGRAM), "launch", "--nproc", str(pp), "--"] + command
    out = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return [json.loads(line) for line in out.splitlines()]


class HuggingFace:
    def __init__(self, model):
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.set_num_threads(2)
        self.torch = torch
        self.models = {
            name: transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, name)).eval()
            for name in ("float32", "bfloat16")}
        self.vocab = self.models["float32"].config.vocab_size

    def generate(self, dtype, rows, length, new):
        ids = self.torch.tensor(
            [[(row * 7919 + i * 104729 + 17) % (self.vocab - 100) + 50 for i in range(length)] for row in range(rows)])
        mask = self.torch.ones_like(ids)

        def timed(tokens):
            start = time.perf_counter()
            self.models[dtype].generate(
                ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
            return time.perf_counter() - start

        prefill = timed(1)
        return {"prefill_s": prefill, "decode_s": timed(new) - prefill, "decode_tokens": rows * (new - 1)}

    def bandwidth(self):
        """GB/s of two threads that read 540 MB, the median of 8: a sum over float32."""
        data = self.torch.ones(135_000_000)
        return data.nbytes / statistics.median(self._read(data) for _ in range(8)) / 1e9

    def _read(self, data):
        start = time.perf_counter()
        data.sum()
        return time.perf_counter() - start


def rate(runs, tokens, seconds):
    return statistics.median(run[tokens] / run[seconds] if isinstance(tokens, str) else tokens / run[seconds] for run in runs)


def against_hugging_face(hf, model, repetitions):
    print("\nAgainst Hugging Face generate: 2 threads, prompt 128, 32 tokens after the first; tokens/s, medians")
    print(f"{'dtype':>9} {'batch':>5} | {'prefill HF':>10} {'ours':>8} {'ratio':>6} | {'decode HF':>9} {'ours':>8} {'ratio':>6}")
    for dtype in ("float32", "bfloat16"):
        for rows in (1, 8):
            theirs, mine, limits = [], [], []
            hf.generate(dtype, rows, 128, 3)
            for _ in range(repetitions):
                theirs.append(hf.generate(dtype, rows, 128, 33))
                limits.append(hf.bandwidth())
                mine += ours(model, dtype, rows, 128, 33)
                limits.append(hf.bandwidth())
            p = [rate(r, rows * 128, "prefill_s") for r in (theirs, mine)]
            d = [rate(r, "decode_tokens", "decode_s") for r in (theirs, mine)]
            print(f"{dtype:>9} {rows:>5} | {p[0]:10.0f} {p[1]:8.0f} {p[1] / p[0]:6.2f} | {d[0]:9.1f} {d[1]:8.1f} {d[1] / d[0]:6.2f}", flush=True)
            if rows == 1:
                limit = statistics.median(limits)
                size = {"float32": 4, "bfloat16": 2}[dtype] * 134_515_008 / 1e9
                print(f"{'':>15} | weights read at {d[1] * size:.1f} GB/s of {limit:.1f} (the limit, between the runs): {100 * d[1] * size / limit:.0f} %")


def pipeline(model, repetitions):
    print("\nTwo stages of one thread each where compute is the limit: --cuts model.layers.18, prompt 16, 16 tokens")
    cases = {
        "one lane of 64 rows": dict(rows=64, pp=2, chunks=1),
        "two lanes of 64 rows": dict(rows=128, pp=2, chunks=2),
        "one process, 2 threads, 128 rows": dict(rows=128, pp=1, chunks=1),
    }
    speeds = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, case in cases.items():
            pp = case["pp"]
            runs = ours(model, "float32", case["rows"], 16, 17, threads=2 if pp == 1 else 1, pp=pp, chunks=case["chunks"],
                        cuts="model.layers.18" if pp == 2 else None)
            speeds[name].append(statistics.median(r["decode_tokens"] / r["decode_s"] for r in runs if r["rank"] == 0))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, value in medians.items():
        print(f"{name:>34}: {value:8.1f} tokens/s")
    one, two, whole = medians.values()
    print(f"{'two lanes / one lane':>34}: {two / one:8.2f}   (required 1.7)")
    print(f"{'two lanes / one process':>34}: {two / whole:8.2f}   (required 0.8)")

    print("\nTwo stages where memory is the limit: 1 row, one thread each")
    rows = []
    for _ in range(repetitions):
        rows += ours(model, "float32", 1, 128, 33, threads=1, pp=2)
    compute = sum(statistics.median(r["compute_s"] for r in rows if r["rank"] == rank) for rank in (0, 1))
    size = (134_515_008 * 4) / 1e9
    print(f"the stages read {size * 32 / compute:.1f} GB/s while they compute (one after the other: one row, one lane)")
    rows = []
    for _ in range(repetitions):
        rows += ours(model, "float32", 2, 128, 33, threads=1, pp=2, chunks=2)
    seconds = statistics.median(r["decode_s"] for r in rows if r["rank"] == 0)
    print(f"two lanes of one row: both together read {2 * size * 32 / seconds:.1f} GB/s")


def start(model, repetitions):
    print("\nStart to first token, pp 2, warm page cache (the whole command, one token)")
    command = [str(PROGRAM), "generate", "--model", str(model), "--prompt", "The capital of France is", "--max-new-tokens", "1", "--pp", "2"]
    seconds = []
    for _ in range(repetitions + 2):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begin)
    code = (f"import torch, transformers; t = transformers.AutoTokenizer.from_pretrained({str(model)!r}); "
            f"m = transformers.AutoModelForCausalLM.from_pretrained({str(model)!r}); "
            "i = t('The capital of France is', return_tensors='pt'); print(t.decode(m.generate(**i, max_new_tokens=1)[0]))")
    theirs = []
    for _ in range(max(2, repetitions // 2)):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        theirs.append(time.perf_counter() - begin)
    print(f"ours {statistics.median(seconds[1:]):.2f} s, Hugging Face {statistics.median(theirs):.2f} s (one process)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=ROOT / "models/SmolLM2-135M-Instruct")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=["hf", "pipeline", "start"])
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with open("/proc/cpuinfo") as cpu:
        name = next((line.split(":")[1].strip() for line in cpu if line.startswith("model name")), "?")
    print(f"{name}, {os.cpu_count()} cores, {options.repetitions} repetitions")
    if options.only in (None, "hf"):
        against_hugging_face(HuggingFace(options.model), options.model, options.repetitions)
    if options.only in (None, "pipeline"):
        pipeline(options.model, options.repetitions)
    if options.only in (None, "start"):
        start(options.model, options.repetitions)


if __name__ == "__main__":
    main()
