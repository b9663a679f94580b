# Every target is one line: the logic is in the program, its tests and helm/local/.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help run test it live telemetry truth planted slow bench micro profile sim golden lint fmt doc deny build up down status reset clean

help: ## Print this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: ## The main job, watched live: stack, topics, schemas, ingress and pipeline, signed traffic (RATE=100 USERS=50 SECONDS_MAX=0)
	@helm/local/run

test: ## All tests: lints, the suite without infrastructure, planted bugs, the live suite on the local stack
	@tests/all

it: ## The suite without infrastructure
	@cargo test --lib --test it

live: ## The live suite, on a stack of its own (KILLS=20 times kill -9)
	@tests/live/run

telemetry: ## Alerts and dashboards by promtool and by a Prometheus that scrapes a run
	@tests/telemetry

truth: ## Everything true is published: invented people, all vendors, every fault (PEOPLE=200 DAYS=60 SPEED=7200 HYDRATORS=3)
	@tests/truth

planted: ## Plant every bug, one at a time, and print caught or missed
	@tests/planted

slow: ## Ten thousand slow senders against the door, on the local stack (MANY=10000; needs a release build)
	@tests/slow

bench: ## Measure all that the README's table has, on this machine (ONLY=ingress,pipeline ROUNDS=5 QUICK=1)
	@tests/bench/run

micro: ## Benchmarks of the pure steps: parse, normalise, decide, encode
	@cargo bench --bench micro

profile: ## A flame graph of a role under load, as SVG (WHAT=pipeline or ingress)
	@tests/bench/profile

sim: ## Random walks of the driver for longer (SIM_ROUNDS=20000, SEED=n replays one)
	@SIM_ROUNDS=$${SIM_ROUNDS:-20000} cargo test --test it -- interleave --nocapture

golden: ## Rewrite the golden files; read the difference before you commit it
	@UPDATE_GOLDEN=1 cargo test --test it

lint: ## Format and lints, as CI has them
	@cargo fmt --check && cargo clippy --all-targets --features live,planted -- -D warnings

fmt: ## Format
	@cargo fmt

doc: ## The documentation, broken links refused
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

deny: ## Licences, bans and sources of dependencies (needs cargo-deny)
	@cargo deny --offline check licenses bans sources

build: ## The program, optimised, as it is shipped
	@cargo build --release

up: ## Start Kafka, the registry, Postgres and Redis on loopback, or use what answers there
	@helm/local/stack up

down: ## Stop what `make up` started; data stays
	@helm/local/stack down

status: ## What of the stack answers, and who started it
	@helm/local/stack status

reset: ## Stop, and delete the stack's data
	@helm/local/stack reset

clean: ## Delete what was built
	@cargo clean
