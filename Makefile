# Front door of the repository; everything is done by the scripts in tools/ and by CMake. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := build
.PHONY: build demo test gpu-test soak bench format lint install clean help

# Also taken from the environment; see the scripts' first lines.
export VENV TORCH_DIR TORCH_INDEX_URL SYSTEM_PACKAGES PRESET JOBS

BUILD := $(if $(filter-out release,$(PRESET)),build-$(PRESET),build)
DEMO_MODEL := models/SmolLM2-135M-Instruct
PROMPT ?= What is the capital of France, and what is it known for?
PREFIX ?= /usr/local

build: ## the program build/bin/shardpipe and libshardpipe.so
	@tools/setup.sh build
	@tools/build.sh bin/shardpipe shardpipe

demo: ## a real language model answers, cut into two pipeline stages in two processes (PROMPT="...")
	@tools/setup.sh build python model
	@tools/build.sh bin/shardpipe
	@PS4='$$ '; set -x; $(BUILD)/bin/shardpipe generate --model $(DEMO_MODEL) --pp 2 \
	  --chat --max-new-tokens 96 --stats --prompt "$$PROMPT"
demo: export PROMPT := $(PROMPT)

test: ## builds everything and runs the tests (TESTS=REGEX for some)
	@tools/setup.sh build python model sentences browser hosts fuzz
	@tools/build.sh
	@tools/test.sh $(if $(TESTS),-R '$(TESTS)')

gpu-test: ## the checks that need GPUs, two of them for some, and a LibTorch with CUDA
	@tools/setup.sh build python model
	@tools/build.sh bin/shardpipe api_layers_player comm_gpu_check
	@tools/test.sh -C gpu -L gpu

soak: ## the fuzz, property and fault tests, 20 times as long
	@tools/setup.sh build python model sentences browser hosts fuzz
	@tools/build.sh
	@SHARDPIPE_SOAK=1 SHARDPIPE_FUZZ_SCALE=$${SHARDPIPE_FUZZ_SCALE:-20} tools/test.sh -L soak --timeout 7200

bench: ## the benchmarks against PyTorch
	@tools/setup.sh build python model
	@tools/build.sh
	@bench/run.sh

format: ## formats the C++ sources
	@tools/setup.sh lint
	@tools/lint.sh --fix

lint: ## formatting, include direction, clang-tidy on what changed last (LINT_ALL=1 for all)
	@tools/setup.sh build lint
	@tools/build.sh --configure-only
	@tools/lint.sh

install: build ## headers, library, program and CMake package to PREFIX (default /usr/local)
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## removes what was built; keeps .venv and models
	@rm -rf build build-debug build-asan build-tsan

help: ## this list
	@echo "make TARGET [VENV=DIR] [TORCH_DIR=DIR] [TORCH_INDEX_URL=URL] [JOBS=N] [PRESET=release|debug|asan|tsan]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' Makefile
