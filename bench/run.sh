#!/usr/bin/env bash
# make bench: the kernels and the executor against their limits, then generation against Hugging Face, side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake --build build --target generate_bench executor_bench kernels_bench
build/bench/executor_bench
build/bench/kernels_bench
.venv/bin/python bench/e2e/compare.py "$@"
