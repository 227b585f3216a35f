# What people run. Every target sets up what it needs; `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.gradient-ready
EXTENSION := python/gradient/_core.abi3.so
RUST := Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml) $(shell find rust -path '*/src/*' -name '*.rs' 2>/dev/null)
JOBS ?= 2

.PHONY: help demo test crash kill flip hostile fuzz asan resume-matrix other-versions develop check lint wheel bench paired deny fmt clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18
	@echo
	@echo "  PYTHON=...      the Python that .venv is made from (3.11 or newer)"
	@echo "  TORCH=...       what to install as torch, e.g. TORCH='torch==2.6.0'; else the one your Python has, else the newest"

demo: develop ## Kill a training run and resume it bit for bit (about 3 minutes, once it is built)
	$(BIN)/python benches/demo/run.py

test: develop ## Run every test, Rust and Python
	cargo test --workspace --quiet
	$(BIN)/python -m pytest -n $(JOBS) --durations=25

# So many states after every change; 8 in `make test`.
CRASH_STATES ?= 64
# So many schedules of each of 45 races, 10^5 in all; 50 in `make test`.
CRASH_SCHEDULES ?= 2300

crash: ## Crash and race whole repositories on a simulated disk, many more times than make test
	GRADIENT_CRASH_STATES=$(CRASH_STATES) GRADIENT_SCHEDULES=$(CRASH_SCHEDULES) cargo test --release -p gradient-testkit -- --nocapture

kill: develop ## Kill writers at random moments, 1,000 times, and at every system call; fill real disks
	GRADIENT_KILL=all cargo test --release -p gradient-testkit --test kill --test full_disk -- --nocapture
	GRADIENT_KILLS=1000 $(BIN)/python -m pytest -n $(JOBS) tests/crash/test_kills.py

flip: ## Flip every bit and cut every length of every kind of file
	GRADIENT_FLIPS=all cargo test --release -p gradient-repo --test flips -- --nocapture

# So many repositories made by lot beside all that are made by hand; 25 and a third of those in `make test`.
HOSTILE ?= 10000

hostile: develop ## Use HOSTILE=10000 repositories from a stranger, made by lot, and those made by hand
	GRADIENT_HOSTILE=$(HOSTILE) $(BIN)/python -m pytest -q -n $(JOBS) tests/adversarial/test_hostile.py

resume-matrix: develop ## Kill every kind of run at every tick and resume it, 960 kills (15 minutes)
	GRADIENT_RESUME_MATRIX=1 $(BIN)/python -m pytest -n $(JOBS) tests/training/test_resume_matrix.py

other-versions: develop ## Commit one state with another torch and Python: same root hash (OTHER_TORCH=..., 6 GB under target/)
	.ci/other-versions

# Seconds for each target.
FUZZ_SECONDS ?= 60

fuzz: ## Fuzz every reader of bytes, FUZZ_SECONDS=60 each (26 minutes; needs a nightly Rust)
	.ci/fuzz $(FUZZ_SECONDS)

asan: ## Run the tests of the pure crates under AddressSanitizer (needs a nightly Rust)
	.ci/asan

develop: $(EXTENSION) ## Set up .venv with the release extension, editable
	@:

check: lint ## Lints and fast tests
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

lint: develop ## Formatting, lints, types, import contracts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	.ci/ascii
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m mypy.stubtest gradient._core --mypy-config-file pyproject.toml --allowlist .ci/stubtest-allowlist --concise

wheel: develop ## Build a wheel into dist/
	rm -rf dist
	$(BIN)/maturin build --release --quiet --interpreter $(BIN)/python --out dist
	@ls dist/*.whl

bench: develop ## Measure, on this machine (docs/benchmarks.md)
	$(BIN)/python benches/run.py

# More after it: make paired PAIRED="--seeds 1".
PAIRED ?=

paired: develop ## Train with eight-bit moments and with fp32, 10 paired seeds, and compare (an hour, resumable)
	$(BIN)/python benches/paired.py $(PAIRED)

deny: ## Check licences, sources and bans of every crate (builds cargo-deny once)
	@command -v cargo-deny >/dev/null || [ -x target/tools/bin/cargo-deny ] || cargo install cargo-deny --locked --root target/tools
	PATH="$$PWD/target/tools/bin:$$PATH" cargo-deny check bans licenses sources

fmt: develop ## Format Rust and Python
	cargo fmt --all
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

clean: ## Remove what was built, .venv included
	rm -rf target dist demo $(VENV) $(EXTENSION) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml .ci/develop
	@.ci/develop
	@touch $@

# The extension is the target itself: whoever deletes it gets it back.
$(EXTENSION): $(READY) $(RUST)
	@command -v cargo >/dev/null || { echo "error: cargo is missing: install Rust 1.89 or newer, https://rustup.rs" >&2; exit 1; }
	@echo "building the extension (minutes where nothing is built yet)"
	@talk=$$(VIRTUAL_ENV="$$PWD/$(VENV)" $(BIN)/maturin develop --release --skip-install --quiet 2>&1) || { printf '%s\n' "$$talk" >&2; exit 1; }
	@touch $@

ifdef TORCH
.PHONY: $(READY)
endif
