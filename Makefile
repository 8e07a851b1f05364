# What runs here runs on Linux and macOS with Rust, Go and Python 3; `make help` lists it. Nothing is installed outside
# the target folder, but by `make e2e`, which says what.

.DEFAULT_GOAL := help
SHELL := /bin/sh

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET)/tools
export DATAKEY_TOOLS := $(TOOLS)
export DATAKEY_OPERATOR := $(TARGET)/operator/datakey-operator

# The operator alone, wherever it is built: what is tested has the features of what is shipped.
OPERATOR := --locked --package datakey-operator --bin datakey-operator

# The newest supported Kubernetes, of all tests and the demo, and the oldest, of `make servers-oldest`. To change one, change its
# go.mod: a test compares what the servers answer with it, and the chart and the documentation with the oldest.
required = $(shell sed -n 's|^[[:space:]]*k8s.io/kubernetes v\([0-9.]*\).*|\1|p' $(1)/go.mod)
KUBERNETES := $(call required,tests/tools)
OLDEST_KUBERNETES := $(call required,tests/tools/oldest)
version_flags = -s -w \
	-X k8s.io/component-base/version.gitVersion=v$(1) \
	-X k8s.io/component-base/version.gitMajor=$(word 1,$(subst ., ,$(1))) \
	-X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(1)))
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2

# How long each fuzz target runs.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := adoption data_key key_id

# Server tests wait more than they work.
export RUST_TEST_THREADS ?= 6

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# === what users run ===

.PHONY: demo
demo: build-debug operator servers-tools ## Show the operator at work against real servers, and check every step
	@$(TARGET)/debug/playground demo

.PHONY: dev
dev: build-debug operator servers-tools ## The servers and the operator of the demo, until Ctrl-C
	@$(TARGET)/debug/playground dev

.PHONY: release
release: need-rust ## The release binary, target/release/datakey-operator, and that KMS operations in it are just the one
	cargo build --release $(OPERATOR)
	DATAKEY_BINARY=$(TARGET)/release/datakey-operator cargo test --locked --test binary

# The static binary is the same, byte for byte, wherever it is built from the same commit with the same toolchain.
ARCH := $(subst arm64,aarch64,$(shell uname -m))
GOARCH := $(subst x86_64,amd64,$(subst aarch64,arm64,$(ARCH)))
MUSL := $(ARCH)-unknown-linux-musl
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
CA_BUNDLE ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
IMAGE ?= datakey-operator:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# One that works: docker's client without its server does not.
CONTAINER_TOOL ?= $(firstword $(foreach tool,docker podman,$(shell $(tool) info >/dev/null 2>&1 && echo $(tool))) $(shell command -v buildah))
CARGO_AUDITABLE := 0.7.7
# mimalloc's default for huge pages (MIMALLOC_ALLOW_THP): objects here are small and many, and come and go; with huge pages
# twice as much of the memory was resident.
ALLOCATOR := -DMI_DEFAULT_ALLOW_THP=0
# Bytes; the image is this and the CA certificates.
SIZE_BUDGET := 25000000

# The environment in which a static binary is built.
STATIC := SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	CC_$(subst -,_,$(MUSL))=musl-gcc \
	CFLAGS="$(ALLOCATOR) -ffile-prefix-map=$(CARGO_HOME_DIR)=/cargo -ffile-prefix-map=$(TARGET)=/target -ffile-prefix-map=$(CURDIR)=/source" \
	RUSTFLAGS="--remap-path-prefix=$(CARGO_HOME_DIR)=/cargo --remap-path-prefix=$(TARGET)=/target --remap-path-prefix=$(CURDIR)=/source" \
	PATH="$(TOOLS)/bin:$$PATH"

.PHONY: need-musl
need-musl: need-rust
	@command -v musl-gcc >/dev/null || { echo "musl-gcc is missing: install it (Debian: apt-get install musl-tools)"; exit 1; }
	@rustup target list --installed 2>/dev/null | grep -qx $(MUSL) || rustup target add $(MUSL)

.PHONY: dist
dist: need-musl $(TOOLS)/cargo-auditable-$(CARGO_AUDITABLE) ## The static binary of the image, target/dist, for this architecture
	@test -n "$(CA_BUNDLE)" || { echo "no CA certificates found: set CA_BUNDLE to a file of them"; exit 1; }
	$(STATIC) cargo auditable build --release $(OPERATOR) --target $(MUSL)
	@mkdir -p $(TARGET)/dist/$(GOARCH)
	@install -m 0555 $(TARGET)/$(MUSL)/release/datakey-operator $(TARGET)/dist/$(GOARCH)/datakey-operator
	@install -m 0444 $(CA_BUNDLE) $(TARGET)/dist/ca-certificates.crt
	@size=$$(wc -c < $(TARGET)/dist/$(GOARCH)/datakey-operator); echo "$$size bytes, $(SIZE_BUDGET) at most"; test $$size -le $(SIZE_BUDGET)
	DATAKEY_BINARY=$(TARGET)/dist/$(GOARCH)/datakey-operator cargo test --locked --test binary -- --include-ignored

OS := $(shell uname -s | tr '[:upper:]' '[:lower:]')
PLUGIN := $(TARGET)/plugin

.PHONY: plugin
plugin: need-rust ## The kubectl plugin for this machine, target/plugin, and that its KMS operation is Decrypt alone
	cargo build --release --locked --package kubectl-datakey
	@$(MAKE) --no-print-directory plugin-archive BUILT=$(TARGET)/release/kubectl-datakey

.PHONY: plugin-static
plugin-static: need-musl $(TOOLS)/cargo-auditable-$(CARGO_AUDITABLE) ## The same as a static binary, for any Linux
	$(STATIC) cargo auditable build --release --locked --package kubectl-datakey --target $(MUSL)
	@$(MAKE) --no-print-directory plugin-archive BUILT=$(TARGET)/$(MUSL)/release/kubectl-datakey

# As krew installs it: the binary and the licence; and the archive's checksum, for deploy/krew.
.PHONY: plugin-archive
plugin-archive:
	@mkdir -p $(PLUGIN)
	@install -m 0755 $(BUILT) $(PLUGIN)/kubectl-datakey
	@install -m 0644 LICENSE $(PLUGIN)/LICENSE
	DATAKEY_PLUGIN=$(PLUGIN)/kubectl-datakey cargo test --locked --test binary -- the_kubectl_plugin
	@cd $(PLUGIN) && archive=kubectl-datakey_$(OS)_$(GOARCH).tar.gz && tar -czf $$archive kubectl-datakey LICENSE && \
		{ sha256sum $$archive 2>/dev/null || shasum -a 256 $$archive; } | tee $$archive.sha256

CARGO_CYCLONEDX := 0.5.9

.PHONY: sbom
sbom: $(TOOLS)/cargo-cyclonedx-$(CARGO_CYCLONEDX) ## What the binary of the image is made of, CycloneDX, target/dist
	@mkdir -p $(TARGET)/dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PATH="$(TOOLS)/bin:$$PATH" cargo cyclonedx \
		--no-default-features --format json --spec-version 1.5 --describe binaries --no-build-deps --target $(MUSL) --target-in-filename
	@mv datakey-operator_bin_$(MUSL).cdx.json $(TARGET)/dist/sbom-$(GOARCH).cdx.json
	@rm tests/support/*_bin_$(MUSL).cdx.json
	@rm -f kubectl-datakey_bin_$(MUSL).cdx.json

.PHONY: image
image: dist ## The container image, with docker, podman or buildah; IMAGE names it
	@test -n "$(CONTAINER_TOOL)" || { echo "docker, podman or buildah is needed"; exit 1; }
	$(CONTAINER_TOOL) build $(if $(findstring docker,$(CONTAINER_TOOL)),,--timestamp 0) --build-arg TARGETARCH=$(GOARCH) --tag $(IMAGE) --file deploy/Dockerfile $(TARGET)/dist

.PHONY: build-debug
build-debug: need-rust
	@cargo build --locked --workspace

.PHONY: operator
operator: need-rust ## The operator of tests and demo, target/operator: a debug build of what is shipped
	@cargo build $(OPERATOR)
	@mkdir -p $(TARGET)/operator
	@install -m 0755 $(TARGET)/debug/datakey-operator $(TARGET)/operator/datakey-operator

# === checks ===

.PHONY: test
test: fmt lint unit chart status servers licences ## Everything that CI checks

.PHONY: fmt
fmt: need-rust ## Formatting
	cargo fmt --all --check
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check

.PHONY: lint
lint: need-rust chart-tools ## Clippy, warnings are errors; the workflows
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/actionlint
	@! gofmt -l tests | grep . || { echo "these are not as gofmt writes them"; exit 1; }
	@cargo metadata --quiet --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null || { echo "tests/fuzz/Cargo.lock is stale: cargo update --workspace --manifest-path tests/fuzz/Cargo.toml"; exit 1; }

.PHONY: unit
unit: operator ## Unit tests, the model of the protocol, the fuzz corpora, what the binary can do, bytes in memory, that files are fresh
	cargo test --locked --lib --bins --test corpus --test generated --test docs --test binary --test krew --test model --test footprint

.PHONY: model
model: need-rust ## The model of the protocol in larger worlds: minutes
	cargo test --locked --test model -- --ignored --nocapture

.PHONY: chart
chart: need-rust chart-tools ## The Helm chart: every value, wrong values, lint, generated files
	cargo test --locked --test chart

.PHONY: alerts
alerts: $(TOOLS)/bin/alerts-tools ## The chart's alerts, by promtool; building it takes ten minutes, once
	$(TOOLS)/bin/promtool check rules charts/datakey-operator/files/alerts.yaml
	$(TOOLS)/bin/promtool test rules tests/chart/alerts_test.yaml

.PHONY: servers
servers: operator tools ## Tests against a real kube-apiserver and a KMS server
	cargo test --locked --test servers

.PHONY: servers-oldest
servers-oldest: operator $(TOOLS)/kms/installed $(TOOLS)/consumers/installed chart-tools oldest-tools ## The same against the oldest supported Kubernetes; building it takes a quarter of an hour, once
	DATAKEY_KUBERNETES=oldest cargo test --locked --test servers

.PHONY: chaos
chaos: operator tools ## Crashes, outages, throttling and rest with a thousand DataKeys each: half an hour
	DATAKEY_CHAOS=1 cargo test --locked --test servers -- chaos:: --include-ignored --nocapture

# What DataKeys of the first release are taken over from.
UPGRADE := $(TARGET)/upgrade
UPGRADE_FROM := d7f9a2c

.PHONY: upgrade
upgrade: operator servers-tools ## From a real 0.1.0 to this release, back and again, with UPGRADE_COUNT (1000) DataKeys; both at once
	@git cat-file -e $(UPGRADE_FROM)^{commit} || { echo "commit $(UPGRADE_FROM) is missing: git fetch --unshallow"; exit 1; }
	@rm -rf $(UPGRADE)/0.1.0 && mkdir -p $(UPGRADE)/0.1.0
	git archive $(UPGRADE_FROM) | tar -x -C $(UPGRADE)/0.1.0
	cargo build --locked --no-default-features --bin datakey-operator --manifest-path $(UPGRADE)/0.1.0/Cargo.toml --target-dir $(UPGRADE)/target
	DATAKEY_010_BINARY=$(UPGRADE)/target/debug/datakey-operator DATAKEY_010_DEPLOY=$(UPGRADE)/0.1.0/deploy \
		cargo test --locked --test servers -- upgrade::scale upgrade::skew --include-ignored --nocapture

# Velero's restore is built into a program, which is no part of `make tools`: it takes minutes and a gigabyte of sources.
.PHONY: velero
velero: operator servers-tools $(TOOLS)/bin/velero-restore ## Restores by Velero's own restore, compared with what make test sends; building it takes some minutes, once
	DATAKEY_VELERO=$(TOOLS)/bin/velero-restore cargo test --locked --test servers -- velero::

$(TOOLS)/bin/velero-restore: tests/tools/velero/main.go tests/tools/velero/go.mod tests/tools/velero/go.sum | need-go
	@mkdir -p $(@D)
	cd tests/tools/velero && go build -mod=readonly -buildvcs=false -trimpath -ldflags '-s -w' -o $@ .

# The operator as it is shipped, unless BENCH_OPERATOR names another binary. BENCH_PART=20 runs a twentieth of it; BENCH_ONLY
# names some of bursts, restart, latency, repair, quota, growth; BENCH_REST is for how many seconds a resting operator's processor
# time is taken (300). With BENCH_DOCS=1 the results go to docs/performance.md, too.
export BENCH_RESULTS := $(TARGET)/bench
BENCH_OPERATOR ?= $(TARGET)/dist/$(GOARCH)/datakey-operator
export BENCH_OPERATOR

.PHONY: bench
bench: servers-tools $(if $(filter file,$(origin BENCH_OPERATOR)),dist) ## Speed and memory at scale against the limit of the API server, on Linux: three quarters of an hour
	cargo bench --locked --bench scale -- $(BENCH_ONLY)

# Test results are not cached: what these tests read lies outside their modules.
GO_TEST := go test -mod=readonly -count=1 ./...

.PHONY: status
status: need-go ## What kstatus and the health script for Argo CD read in a DataKey in every state
	cd tests/gitops/status && $(GO_TEST)

# Argo CD needs a newer Go than the rest; go downloads it where it is missing.
.PHONY: gitops
gitops: operator tools flux-tools ## Flux's own controller at work with DataKeys, and Argo CD's own engine; building both takes a quarter of an hour, once
	cd tests/gitops/argocd && GOTOOLCHAIN=auto $(GO_TEST)
	cd tests/gitops/argocd && GOTOOLCHAIN=auto go build -mod=readonly -buildvcs=false -ldflags '-s -w' -o $(TOOLS)/bin/argocd-sync ./sync
	cargo test --locked --test gitops

# What is found stays in the target folder. The sanitizers need a nightly Rust; this crate has no unsafe code.
FUZZ := $(TARGET)/fuzz
FUZZ_OPTIONS := --fuzz-dir tests/fuzz --target-dir $(FUZZ) --sanitizer none

.PHONY: fuzz
fuzz: $(TOOLS)/cargo-fuzz-$(CARGO_FUZZ) ## Fuzz the parsers of what comes from outside, each for FUZZ_SECONDS (60)
	@command -v c++ >/dev/null || { echo "A C++ compiler is missing: install one (Debian: apt-get install g++)"; exit 1; }
	@cargo fetch --quiet --locked --manifest-path tests/fuzz/Cargo.toml
	$(TOOLS)/bin/cargo-fuzz build $(FUZZ_OPTIONS)
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) seconds"; \
		found=$(FUZZ)/found/$$target; log=$$found.log; mkdir -p $$found; \
		$(TOOLS)/bin/cargo-fuzz run $(FUZZ_OPTIONS) $$target $$found tests/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -dict=tests/fuzz/dictionary.txt -artifact_prefix=$$found- \
			>$$log 2>&1 || { \
				grep -a -A 4 -e panicked -e ERROR -e 'Test unit written' $$log | cut -c 1-1000; \
				echo "$$log has the rest. To replay it: copy it to tests/fuzz/corpus/$$target, and cargo test --test corpus"; \
				exit 1; \
			}; \
		grep -a -o 'DONE .*' $$log; \
	done
	@rmdir -p tests/fuzz/artifacts/* 2>/dev/null || true

# === pods ===

# Where this machine can have no node, it says so and succeeds; with E2E_REQUIRED=1 it fails.
.PHONY: e2e
e2e: need-rust ## Image, chart and operator as pods on a real node, made here (Linux, root); or E2E_CLUSTER, see tests/e2e
	@if [ -n "$(E2E_CLUSTER)" ]; then exec $(MAKE) e2e-cluster; fi; \
	tests/e2e/node.sh parts; code=$$?; \
	case $$code in \
	0) exec $(MAKE) e2e-node ;; \
	77) test "$(E2E_REQUIRED)" != 1 ;; \
	*) exit $$code ;; \
	esac

E2E := $(TARGET)/e2e
export E2E_ARCHIVES := $(E2E)
E2E_TEST := cargo test --locked --test e2e

.PHONY: e2e-node
e2e-node: servers-tools chart-tools $(TOOLS)/bin/node-$(KUBERNETES) e2e-images
	@rm -rf $(E2E)/logs
	env -u KUBEBUILDER_ASSETS -u KUBECONFIG \
	$(E2E_TEST) --config 'target."cfg(all())".runner="$(CURDIR)/tests/e2e/node.sh"' -- --ignored --nocapture

.PHONY: e2e-cluster
e2e-cluster: servers-tools chart-tools
	$(E2E_TEST) -- --ignored --nocapture

.PHONY: e2e-images
e2e-images: ## The images of make e2e, as archives in target/e2e: for kind load image-archive
	@mkdir -p $(E2E)/consumer
	@$(MAKE) dist
	cd tests/e2e/consumer && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags '-s -w' -o $(E2E)/consumer/ .
	@$(call archive,datakey-operator,deploy/Dockerfile,$(TARGET)/dist)
	@$(call archive,datakey-consumer,tests/e2e/consumer/Dockerfile,$(E2E)/consumer)

# Builds an image and saves it; the tool's own store is left as it was, buildah's is made in namespaces and goes with them.
define archive
set -e; rm -f $(E2E)/$(1).tar; image=localhost/$(1):e2e; \
build="build --quiet --build-arg TARGETARCH=$(GOARCH) --tag $$image --file $(2) $(3)"; \
case $(CONTAINER_TOOL) in \
"") echo "docker, podman or buildah is needed" >&2; exit 1 ;; \
*buildah) \
	STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot tests/e2e/node.sh sh -c \
		"buildah $$build && buildah push --quiet $$image docker-archive:$(E2E)/$(1).tar:$$image" >/dev/null ;; \
*) \
	$(CONTAINER_TOOL) $$build >/dev/null; \
	$(CONTAINER_TOOL) save --output $(E2E)/$(1).tar $$image; \
	$(CONTAINER_TOOL) rmi $$image >/dev/null ;; \
esac
endef

$(TOOLS)/bin/node-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum
	@echo "building the kubelet and the scheduler $(KUBERNETES): some minutes, once"
	@mkdir -p $(@D)
	cd tests/tools && go build -mod=readonly -trimpath -ldflags '$(call version_flags,$(KUBERNETES))' -o $(TOOLS)/bin/ \
		k8s.io/kubernetes/cmd/kube-scheduler k8s.io/kubernetes/cmd/kubelet
	@touch $@

.PHONY: licences
licences: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Licences, bans and sources of all crates, offline
	@cargo fetch --quiet --locked
	$(TOOLS)/bin/cargo-deny --locked --offline --config tests/tools/deny.toml check licenses bans sources

.PHONY: advisories
advisories: $(TOOLS)/cargo-deny-$(CARGO_DENY) ## Security advisories of all crates; asks the advisory database
	$(TOOLS)/bin/cargo-deny --locked --config tests/tools/deny.toml check advisories

.PHONY: generate
generate: operator tools ## Write the generated files: definitions, deploy/operator.yaml, the chart's README, recorded DataKeys, the Regions of AWS
	UPDATE=1 cargo test --locked --test generated
	UPDATE=1 cargo test --locked --test chart -- the_manifests_in_deploy_are_the_chart the_charts_readme
	UPDATE=1 cargo test --locked --test servers -- recorded:: known_regions

# === the servers ===

.PHONY: tools
tools: servers-tools chart-tools $(TOOLS)/consumers/installed ## Build or install what tests and demo need, once

.PHONY: servers-tools
servers-tools: $(TOOLS)/kms/installed kubernetes

.PHONY: chart-tools
chart-tools: $(TOOLS)/bin/chart-tools

.PHONY: kubernetes
ifdef KUBEBUILDER_ASSETS
kubernetes:
else
kubernetes: $(TOOLS)/bin/kubernetes-$(KUBERNETES)
endif

$(TOOLS)/bin/kubernetes-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"; exit 1; }
	@$(call control_plane,tests/tools,$(KUBERNETES),$(@D))
	@touch $@

.PHONY: oldest-tools
oldest-tools: $(TOOLS)/oldest/kubernetes-$(OLDEST_KUBERNETES)

$(TOOLS)/oldest/kubernetes-$(OLDEST_KUBERNETES): tests/tools/oldest/go.mod tests/tools/oldest/go.sum | need-go
	@$(call control_plane,tests/tools/oldest,$(OLDEST_KUBERNETES),$(@D))
	@touch $@

# Builds a control plane: from this module, of this version, into this folder.
define control_plane
set -e; \
echo "building etcd and Kubernetes $(2): some minutes, once"; \
mkdir -p $(3); cd $(1); \
go build -mod=readonly -trimpath -o $(3)/etcd go.etcd.io/etcd/server/v3; \
go build -mod=readonly -trimpath -ldflags '$(call version_flags,$(2))' -o $(3)/ \
	k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kubectl
endef

$(TOOLS)/bin/chart-tools: tests/tools/chart/go.mod tests/tools/chart/go.sum | need-go
	@echo "building Helm: some minutes, once"
	@mkdir -p $(@D)
	cd tests/tools/chart && go build -mod=readonly -trimpath -ldflags '-s -w' -o $(TOOLS)/bin/ \
		helm.sh/helm/v4/cmd/helm github.com/norwoodj/helm-docs/cmd/helm-docs github.com/rhysd/actionlint/cmd/actionlint
	@touch $@

.PHONY: flux-tools
flux-tools: $(TOOLS)/bin/flux-tools

# The controller, and the definitions that it works with.
FLUX := github.com/fluxcd
$(TOOLS)/bin/flux-tools: tests/tools/flux/go.mod tests/tools/flux/go.sum | need-go
	@echo "building Flux's kustomize-controller: some minutes, once"
	@mkdir -p $(@D)
	cd tests/tools/flux && go build -mod=readonly -trimpath -ldflags '-s -w' -o $(TOOLS)/bin/ $(FLUX)/kustomize-controller
	@rm -rf $(TOOLS)/flux && mkdir $(TOOLS)/flux
	@set -e; cd tests/tools/flux; \
	own=$$(go list -mod=readonly -m -f '{{.Dir}}' $(FLUX)/kustomize-controller); \
	source=$(FLUX)/source-controller@$$(go list -mod=readonly -m -f '{{.Version}}' $(FLUX)/source-controller/api); \
	go mod download $$source; \
	install -m 0644 $$own/config/crd/bases/*.yaml $$(go env GOMODCACHE)/$$source/config/crd/bases/*.yaml $(TOOLS)/flux/
	@touch $@

$(TOOLS)/bin/alerts-tools: tests/tools/prometheus/go.mod tests/tools/prometheus/go.sum
	@mkdir -p $(@D)
	cd tests/tools/prometheus && go build -mod=readonly -trimpath -ldflags '-s -w' -o $(TOOLS)/bin/ github.com/prometheus/prometheus/cmd/promtool
	@touch $@

$(TOOLS)/kms/installed: tests/tools/requirements.txt
	@echo "installing the KMS server"
	@$(call venv,$<,$(@D))

$(TOOLS)/consumers/installed: tests/tools/consumers.txt $(wildcard deploy/samples/consumers/python/*.txt)
	@echo "installing what the samples need: the AWS CLI and AWS's libraries for Python"
	@$(call venv,$<,$(@D))

# A Python environment with these requirements, in this folder.
define venv
set -e; \
command -v python3 >/dev/null || { echo "Python 3 is missing: install Python 3.11 or newer"; exit 1; }; \
python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }; \
mkdir -p $(2); \
python3 -m venv $(2); \
$(2)/bin/pip install --quiet --disable-pip-version-check --requirement $(1); \
touch $(2)/installed
endef

# NAME-VERSION of a cargo subcommand.
$(TOOLS)/cargo-%: | need-rust
	@tool=$*; set -x; cargo install --quiet --locked --root $(TOOLS) cargo-$${tool%-*}@$${tool##*-}
	@touch $@

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"; exit 1; }

.PHONY: need-rust
need-rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install Rust 1.94.1 or newer (https://rustup.rs)"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install one (Debian: apt-get install gcc libc6-dev)"; exit 1; }
