# What you type: `make help` lists it. It runs on Linux and macOS with Rust, Go and Python 3, and installs nothing outside the
# target folder, except `make e2e`, which reports what it installs. CONTRIBUTING.md has times and variables.

.DEFAULT_GOAL := help
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET)/tools
export DATAKEY_TOOLS := $(TOOLS)
export DATAKEY_OPERATOR := $(TARGET)/operator/datakey-operator
export DATAKEY_PLUGIN := $(TARGET)/operator/kubectl-datakey
export DATAKEY_UNWRAP := $(TARGET)/operator/datakey-unwrap
# Server tests wait more than they work.
export RUST_TEST_THREADS ?= 6

# The servers of tests are Go programs, live for minutes and hold little; by default a third of their processor time is
# garbage collection. With this each uses up to a gigabyte of memory, so not for thousands of DataKeys.
RARE_GC := GOGC=400

include tests/tools/tools.mk deploy/dist.mk

.PHONY: help demo dev demo-parts dev-parts demo-build dev-build build-debug test test-build test-crates fmt lint unit model chart alerts \
	servers servers-core servers-oldest chaos upgrade velero bench status gitops e2e-programs fuzz e2e e2e-node e2e-cluster licenses advisories generate \
	book

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

FIRST := The first run builds, which takes 5 to 10 minutes on two cores. Steps run at the same time.

demo: ## Show the operator at work against real servers, and check every step
	@[ -e $(TARGET)/debug/playground ] || echo '$(FIRST)'
	@$(MAKE) --no-print-directory $(AT_ONCE) demo-parts
	@KUBEBUILDER_ASSETS=$${KUBEBUILDER_ASSETS:-$(TOOLS)/demo} DATAKEY_OPERATOR=$(TARGET)/debug/datakey-operator \
		$(RARE_GC) $(TARGET)/debug/playground demo

dev: ## The servers of the tests and the operator of the demo, until Ctrl-C
	@[ -e $(TARGET)/debug/playground ] || echo '$(FIRST)'
	@$(MAKE) --no-print-directory $(AT_ONCE) dev-parts
	@DATAKEY_OPERATOR=$(TARGET)/debug/datakey-operator $(TARGET)/debug/playground dev

# Rust, Go and Python at once, because each leaves a core idle at times. A make that was given jobs shares them.
AT_ONCE = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j 3)

demo-parts: demo-build $(TOOLS)/kms/installed demo-servers
	@:

dev-parts: dev-build servers-tools
	@:

# In one build with the testbed, which gives some dependencies more features than the operator is shipped with. A build for each
# takes half as long again; the tests run the operator as it is shipped.
demo-build: need-rust
	@$(STEP) demo 'the operator and the demo' cargo build --locked \
		--package datakey-operator --bin datakey-operator --package testbed --bin playground

dev-build: need-rust
	@$(STEP) dev 'the operator, its servers and the plugin' cargo build --locked \
		--package datakey-operator --bin datakey-operator --package testbed --bin playground \
		--package kubectl-datakey --bin kubectl-datakey

# After the operator: this build puts another operator, with the features of all packages, where that one is copied from.
build-debug: need-rust | operator
	@$(STEP) workspace 'the workspace' cargo build --locked --workspace
	@mkdir -p $(dir $(DATAKEY_PLUGIN))
	@install -m 0755 $(TARGET)/debug/kubectl-datakey $(DATAKEY_PLUGIN)

# === checks ===

# Always of the whole workspace: Cargo builds each dependency with the features that all packages of a build ask for.
CARGO_TEST := cargo test --locked --workspace
UNIT_TESTS := --test corpus --test model --test model_pairs --test footprint
CLIPPY = $(STEP) clippy 'Clippy' cargo clippy --locked --workspace --all-targets -- -D warnings

test: fmt ## The checks of a change, in a minute once all is built; CI adds servers, demo, gitops and e2e
	@[ -e $(TOOLS)/bin/chart-tools ] || echo '$(FIRST)'
	@$(MAKE) --no-print-directory $(AT_ONCE) test-build
	@$(MAKE) --no-print-directory lint unit chart status servers-core licenses

# What the checks need, at once. Rust is first, and begins with what finds most mistakes.
test-build: test-crates servers-tools chart-tools $(TOOLS)/shellcheck/installed $(TOOLS)/cargo-deny-$(CARGO_DENY)
	@:

test-crates: need-rust
	@$(CLIPPY)
	@$(MAKE) --no-print-directory build-debug
	@$(STEP) tests 'all tests: compiled' $(CARGO_TEST) --no-run --lib --bins $(UNIT_TESTS) --test repository --test integration

fmt: need-rust ## Formatting
	cargo fmt --all --check
	cargo fmt --manifest-path crates/datakey/fuzz/Cargo.toml --check

lint: need-rust chart-tools $(TOOLS)/shellcheck/installed ## Clippy and rustdoc, warnings are errors; workflows, shell scripts, Go, lock files
	@$(CLIPPY)
	@RUSTDOCFLAGS=-Dwarnings $(STEP) rustdoc 'rustdoc' cargo doc --locked --workspace --no-deps --document-private-items --quiet
	$(TOOLS)/bin/actionlint -shellcheck $(TOOLS)/shellcheck/bin/shellcheck
	$(TOOLS)/shellcheck/bin/shellcheck .ci/run $$(git ls-files '*.sh')
	@! gofmt -l tests | grep . || { echo "these are not as gofmt writes them"; exit 1; }
	@cargo metadata --quiet --locked --format-version 1 --manifest-path crates/datakey/fuzz/Cargo.toml >/dev/null || { echo "crates/datakey/fuzz/Cargo.lock is stale: cargo update --workspace --manifest-path crates/datakey/fuzz/Cargo.toml"; exit 1; }

# The target `repository` is divided by module: chart:: needs Helm and runs in `make chart`, all others run here.
unit: operator build-debug ## Unit tests, the model, the fuzz corpora, memory of a DataKey, generated files, documentation, what the binary can do
	@$(STEP) unit 'unit tests: compiled' $(CARGO_TEST) --no-run --lib --bins $(UNIT_TESTS) --test repository
	$(CARGO_TEST) --lib --bins $(UNIT_TESTS)
	$(CARGO_TEST) --doc
	$(CARGO_TEST) --test repository -- --skip chart::

model: need-rust ## The model of the protocol in larger worlds: minutes
	$(CARGO_TEST) --test model --test model_pairs -- --ignored --nocapture

chart: need-rust chart-tools ## The Helm chart: every value, wrong values, lint, generated files
	@$(STEP) repository 'tests of the repository: compiled' $(CARGO_TEST) --no-run --test repository
	$(CARGO_TEST) --test repository -- chart::

alerts: $(TOOLS)/bin/alerts-tools ## The chart's alerts, by promtool; building it takes ten minutes, once
	$(TOOLS)/bin/promtool check rules charts/datakey-operator/files/alerts.yaml
	$(TOOLS)/bin/promtool test rules tests/repository/chart/alerts_test.yaml

servers: operator build-debug tools ## All tests against a real kube-apiserver and a KMS server: minutes
	@$(INTEGRATION)
	$(RARE_GC) $(CARGO_TEST) --test integration

# What the promise rests on, and the exact counts of what a DataKey costs. A name of a module that does not exist would leave
# its tests out, so a test of the repository compares these names with the modules.
CORE := adoption costs drift issuance restored webhooks write_once_record

servers-core: operator build-debug servers-tools
	@$(INTEGRATION)
	$(RARE_GC) $(CARGO_TEST) --test integration -- $(addsuffix ::,$(CORE))

INTEGRATION = $(STEP) integration 'integration tests: compiled' $(CARGO_TEST) --no-run --test integration

servers-oldest: operator build-debug $(TOOLS)/kms/installed $(TOOLS)/consumers/installed chart-tools oldest-tools $(TOOLS)/bin/setup-envtest ## The same against the oldest supported Kubernetes; building it takes a quarter of an hour, once
	@$(INTEGRATION)
	$(RARE_GC) DATAKEY_KUBERNETES=oldest $(CARGO_TEST) --test integration

# Each of these tests keeps both cores busy by itself.
chaos: export RUST_TEST_THREADS = 2
chaos: operator build-debug tools ## Crashes, outages, throttling and rest with a thousand DataKeys each: half an hour
	@$(INTEGRATION)
	DATAKEY_CHAOS=1 $(CARGO_TEST) --test integration -- chaos:: --include-ignored --nocapture

# What DataKeys of the first release are taken over from.
UPGRADE := $(TARGET)/upgrade
UPGRADE_FROM := d7f9a2c

upgrade: operator servers-tools ## From a real 0.1.0 to this release, back and again, with UPGRADE_COUNT (1000) DataKeys; both at once
	@tests/tools/earlier.sh $(UPGRADE_FROM) $(UPGRADE)/0.1.0 $(UPGRADE)/target
	DATAKEY_010_BINARY=$(UPGRADE)/target/debug/datakey-operator DATAKEY_010_DEPLOY=$(UPGRADE)/0.1.0/deploy \
		$(CARGO_TEST) --test integration -- upgrade::scale upgrade::skew --include-ignored --nocapture

velero: operator servers-tools $(TOOLS)/bin/velero-restore ## Restores by Velero's own restore, compared with what make servers sends; building it takes some minutes, once
	DATAKEY_VELERO=$(TOOLS)/bin/velero-restore $(CARGO_TEST) --test integration -- velero::

# The operator as it is shipped, unless BENCH_OPERATOR names another binary.
export BENCH_RESULTS ?= $(TARGET)/bench
BENCH_OPERATOR ?= $(TARGET)/dist/$(GOARCH)/datakey-operator
export BENCH_OPERATOR

bench: servers-tools $(if $(filter file,$(origin BENCH_OPERATOR)),dist) ## Speed and memory at scale against the limit of the API server, on Linux: three quarters of an hour
	cargo bench --locked --bench scale -- $(BENCH_ONLY)

# Here and below results are not cached: what these tests read lies outside their modules.
status: need-go ## What kstatus, the health script for Argo CD and kube-state-metrics read in a DataKey in every state
	cd tests/gitops/status && CGO_ENABLED=0 go test $(GO_FLAGS) -count=1 ./...

# Argo CD needs a newer Go than the rest; go downloads it where it is missing.
gitops: operator tools flux-tools ## Flux's own controller at work with DataKeys, and Argo CD's own engine; building both takes a quarter of an hour, once
	cd tests/gitops/argocd && GOTOOLCHAIN=auto go test -mod=readonly -count=1 ./...
	cd tests/gitops/argocd && GOTOOLCHAIN=auto go build -mod=readonly -buildvcs=false -ldflags '-s -w' -o $(TOOLS)/bin/argocd-sync ./sync
	@$(STEP) gitops 'tests with Flux and Argo CD: compiled' $(CARGO_TEST) --no-run --test gitops
	$(RARE_GC) $(CARGO_TEST) --test gitops

e2e-programs: operator $(TOOLS)/kms/installed $(TOOLS)/programs/installed $(TOOLS)/bin/restic ## restic, SQLCipher, PostgreSQL and Java with keys that datakey-unwrap wrote (Linux on amd64); two minutes to build, once
	@$(STEP) programs 'tests with other programs: compiled' $(CARGO_TEST) --no-run --test programs
	$(CARGO_TEST) --test programs

# Where links of the book lead that leave the book, for example https://github.com/OWNER/REPOSITORY/blob/main
BOOK_SOURCE ?= file://$(CURDIR)

book: $(TOOLS)/mdbook-$(MDBOOK) ## The documentation as a site with search, target/book, and that none of its links is broken
	@python3 docs/book/build.py $(TOOLS)/bin/mdbook $(TARGET)/book $(BOOK_SOURCE)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= adoption class data_key key_id public_key

fuzz: $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ) ## Fuzz the parsers of what comes from outside, each for FUZZ_SECONDS (60)
	@crates/datakey/fuzz/run.sh $(TOOLS)/bin/cargo-fuzz $(TARGET)/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

e2e: need-rust ## Image, chart and operator as pods on a real node, made here (Linux, root); or E2E_CLUSTER, see tests/e2e
	@tests/e2e/run.sh

E2E_TEST := $(CARGO_TEST) --test e2e

e2e-node: servers-tools chart-tools $(TOOLS)/bin/node-$(KUBERNETES) e2e-images
	@rm -rf $(E2E)/logs
	env -u KUBEBUILDER_ASSETS -u KUBECONFIG \
	$(E2E_TEST) --config 'target."cfg(all())".runner="$(CURDIR)/tests/e2e/node.sh"' -- --ignored --nocapture

e2e-cluster: servers-tools chart-tools
	$(E2E_TEST) -- --ignored --nocapture

licenses: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Licenses, bans and sources of all crates, offline
	@cargo fetch --quiet --locked
	$(TOOLS)/bin/cargo-deny --workspace --locked --offline --config deny.toml check licenses bans sources

advisories: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Security advisories of all crates; asks the advisory database
	$(TOOLS)/bin/cargo-deny --workspace --locked --config deny.toml check advisories

generate: operator build-debug tools ## Write the generated files: definitions, help texts, docs/reference.md, deploy/operator.yaml, the chart's README, recorded DataKeys, the Regions of AWS
	UPDATE=1 $(CARGO_TEST) --test repository -- generated::
	UPDATE=1 $(CARGO_TEST) --test repository -- chart::the_manifests_in_deploy_are_the_chart chart::the_charts_readme chart::unwrap::readme
	UPDATE=1 $(CARGO_TEST) --test integration -- health_states:: known_regions
