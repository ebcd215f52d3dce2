# The commands of a working day. `make run` needs nothing but Rust; see scripts/setup.sh for what it installs.

# release or dev
PROFILE ?= release
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BINARY := target/$(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/krust
CARGO := cargo
# Ignored tests that `make test` leaves out: one needs a PostgreSQL server (KRUST_TEST_POSTGRES_URL), the other is the
# half of a test that its other half runs inside a container.
NEEDS_MORE := the_store_runs_on_postgresql the_half_in_the_container

# Whose engines `make test-engines` takes.
SUITES ?= trixie sid

.PHONY: help run build check test test-engines fuzz bench image tools setup

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

run: setup ## Build krust, see that there is a container engine, and start a server on port 6443.
	@scripts/setup.sh engine
	$(CARGO) build --locked --profile $(PROFILE)
	@scripts/run.sh $(BINARY)

build: setup ## Build krust.
	$(CARGO) build --locked --profile $(PROFILE)

check: setup ## Format, lints and the rules of the house.
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --test tidy

test: setup tools ## All tests: with real clients, Docker and containerd, as root.
	$(CARGO) test --locked --no-fail-fast -- --include-ignored $(NEEDS_MORE:%=--skip %)

test-engines: setup ## What engines must do, on those of newer suites of Debian.
	@scripts/setup.sh test
	@scripts/install-engines.sh $(SUITES)
	@for suite in $(SUITES); do echo "engines of $$suite"; \
		KRUST_TEST_ENGINES=$$PWD/target/tools/engines/$$suite $(CARGO) test --locked --test runtime_contract || exit 1; done

fuzz: setup ## Run schemathesis over the server's own OpenAPI documents, ten seconds each.
	$(CARGO) build --locked
	scripts/fuzz-openapi.py target/$(TARGET)/debug/krust

bench: setup ## Measure start, memory, throughput and pods; prints figures.
	$(CARGO) bench --locked --bench load

image: setup ## Build the container image krust around a binary that is built here.
	$(CARGO) build --locked --profile $(PROFILE)
	@scripts/image.sh $(BINARY)

tools: ## Fetch the clients of the tests (kubectl, helm, Python's, JavaScript's) into target/tools.
	@scripts/setup.sh test
	@scripts/install-kubectl.py
	@scripts/install-clients.sh

setup: # What it takes to build.
	@scripts/setup.sh build
