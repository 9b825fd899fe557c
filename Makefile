# confab: `make help` says what there is. Set-up installs nothing outside the checkout but distribution packages, and says so.
SHELL := /bin/bash
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup dev test soak contract bench bench-micro bench-counts lint doc deny clean-data

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## find or install what is needed: a linker, nats-server, PostgreSQL
	@scripts/setup

dev: ## a private NATS and Postgres, two workers, two gateways; Ctrl-C stops them (ARGS="--gateways 1")
	@[ -x target/debug/confab ] || echo 'make dev: sets up and builds, which takes about five minutes the first time, and seconds from then on' >&2
	@scripts/setup
	@cargo build --locked -p confab
	@exec target/debug/confab dev $(ARGS)

test: setup ## all tests, with small counts
	cargo test --locked --workspace

soak: setup ## the same tests with full counts (ARGS=--release: with the ratios that an optimised build is held to)
	ulimit -Sn $$(ulimit -Hn); CONFAB_TEST_SOAK=1 cargo test --locked --workspace $(ARGS)

contract: setup ## the running service against its own description: validators and schemathesis
	cargo build --locked -p confab
	scripts/contract

bench-micro: ## how long what is hot takes, and what it allocates (ARGS="dispatch")
	cargo bench --locked -p confab-bench --features measured --bench micro -- $(ARGS)

bench-counts: ## its instructions by callgrind, to target/counts.json (BASE=earlier.json compares, ARGS="--only window")
	@scripts/setup valgrind
	cargo bench --locked -p confab-bench --features measured --bench counts -- \
	  --out $(CURDIR)/target/counts.json $(if $(BASE),--base $(abspath $(BASE))) $(ARGS)

lint: ## format and lints, as CI has them
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p confab-bench --features measured --benches -- -D warnings

doc: ## the documentation of the code, whose links must lead somewhere
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

deny: ## bans, licences and sources of dependencies
	@scripts/setup deny
	PATH="$$PATH:$(CURDIR)/.confab/tools/bin" cargo deny --locked --all-features check --hide-inclusion-graph bans licenses sources

bench: setup ## measure everything that docs/performance.md shows, and write it (ARGS="sends report": only those)
	cargo build --release --locked -p confab
	scripts/bench $(ARGS)

clean-data: ## forget what `make dev` keeps
	rm -rf .confab/data
