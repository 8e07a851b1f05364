# What is shipped: binaries, the archives of the plugin, the SBOM, the image.

# What runs in a cluster, always in one build: what is tested has the features of what is shipped. Each program is built with the
# features that the other one asks for; both are small (processes of tokio, for one), and what is not used is not linked. In builds of
# their own, the two programs would have most dependencies compiled twice, some minutes each time.
PROGRAMS := --locked --package datakey-operator --bin datakey-operator --package datakey-unwrap --bin datakey-unwrap

ARCH := $(subst arm64,aarch64,$(shell uname -m))
GOARCH := $(subst x86_64,amd64,$(subst aarch64,arm64,$(ARCH)))
OS := $(shell uname -s | tr '[:upper:]' '[:lower:]')
MUSL := $(ARCH)-unknown-linux-musl
PLUGIN := $(TARGET)/plugin
CARGO_HOME_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
CA_BUNDLE ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IMAGE ?= datakey-operator:$(VERSION)
UNWRAP_IMAGE ?= datakey-unwrap:$(VERSION)
# One that works: docker's client without its server does not.
CONTAINER_TOOL ?= $(firstword $(foreach tool,docker podman,$(shell $(tool) info >/dev/null 2>&1 && echo $(tool))) $(shell command -v buildah))
E2E := $(TARGET)/e2e
export E2E_ARCHIVES ?= $(E2E)

# mimalloc's default for huge pages (MIMALLOC_ALLOW_THP): objects here are small and many, and come and go; with huge pages
# twice as much of the memory was resident.
ALLOCATOR := -DMI_DEFAULT_ALLOW_THP=0

# The environment in which a static binary is built. It is the same binary, byte for byte, wherever it is built from the same
# commit with the same toolchain.
STATIC := SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
	CC_$(subst -,_,$(MUSL))=musl-gcc \
	CFLAGS="$(ALLOCATOR) -ffile-prefix-map=$(CARGO_HOME_DIR)=/cargo -ffile-prefix-map=$(TARGET)=/target -ffile-prefix-map=$(CURDIR)=/source" \
	RUSTFLAGS="--remap-path-prefix=$(CARGO_HOME_DIR)=/cargo --remap-path-prefix=$(TARGET)=/target --remap-path-prefix=$(CURDIR)=/source" \
	PATH="$(TOOLS)/bin:$$PATH"

.PHONY: operator release dist image image-unwrap sbom plugin plugin-static plugin-archive e2e-images need-musl

operator: need-rust ## The operator and datakey-unwrap for tests, target/operator: a debug build of what is shipped
	@$(STEP) operator 'the operator and datakey-unwrap, as they are shipped' cargo build $(PROGRAMS)
	@mkdir -p $(TARGET)/operator
	@install -m 0755 $(TARGET)/debug/datakey-operator $(TARGET)/debug/datakey-unwrap $(TARGET)/operator

release: need-rust ## The release binaries, target/release/datakey-operator and datakey-unwrap, and that KMS operations in them are just theirs
	cargo build --release $(PROGRAMS)
	DATAKEY_BINARY=$(TARGET)/release/datakey-operator DATAKEY_UNWRAP=$(TARGET)/release/datakey-unwrap cargo test --locked --workspace --test repository -- binary::

dist: need-musl $(TOOLS)/cargo-auditable-$(CARGO_AUDITABLE) ## The static binaries of the images, target/dist, for this architecture
	@test -n "$(CA_BUNDLE)" || { echo "no CA certificates found: set CA_BUNDLE to a file of them"; exit 1; }
	$(STATIC) cargo auditable build --release $(PROGRAMS) --target $(MUSL)
	@deploy/stage.sh $(TARGET)/$(MUSL)/release $(CA_BUNDLE) $(TARGET)/dist $(GOARCH)
	DATAKEY_BINARY=$(TARGET)/dist/$(GOARCH)/datakey-operator DATAKEY_UNWRAP=$(TARGET)/dist/$(GOARCH)/datakey-unwrap cargo test --locked --workspace --test repository -- binary:: --include-ignored

image: dist ## The operator's image, with docker, podman or buildah; IMAGE names it
	$(call BUILD_IMAGE,$(IMAGE),deploy/Dockerfile)

image-unwrap: dist ## The image of datakey-unwrap; UNWRAP_IMAGE names it
	$(call BUILD_IMAGE,$(UNWRAP_IMAGE),deploy/unwrap.Dockerfile)

define BUILD_IMAGE
@test -n "$(CONTAINER_TOOL)" || { echo "docker, podman or buildah is needed"; exit 1; }
$(CONTAINER_TOOL) build $(if $(findstring docker,$(CONTAINER_TOOL)),,--timestamp 0) --build-arg TARGETARCH=$(GOARCH) --tag $(1) --file $(2) $(TARGET)/dist
endef

sbom: $(TOOLS)/cargo-cyclonedx-$(CARGO_CYCLONEDX) ## What the binaries of the images are made of, CycloneDX, target/dist
	@mkdir -p $(TARGET)/dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PATH="$(TOOLS)/bin:$$PATH" cargo cyclonedx \
		--format json --spec-version 1.5 --describe binaries --no-build-deps --target $(MUSL) --target-in-filename
	@mv datakey-operator_bin_$(MUSL).cdx.json $(TARGET)/dist/sbom-$(GOARCH).cdx.json
	@mv crates/datakey-unwrap/datakey-unwrap_bin_$(MUSL).cdx.json $(TARGET)/dist/sbom-unwrap-$(GOARCH).cdx.json
	@rm tests/support/*_bin_$(MUSL).cdx.json crates/*/*_bin_$(MUSL).cdx.json

plugin: need-rust ## The kubectl plugin for this machine, target/plugin (5 to 10 minutes on two cores), and that it calls the two KMS operations it needs
	@echo 'This builds the plugin as it is shipped, which takes 5 to 10 minutes on two cores the first time.'
	@$(STEP) plugin 'the plugin, as it is shipped' cargo build --release --locked --package kubectl-datakey
	@$(MAKE) --no-print-directory plugin-archive BUILT=$(TARGET)/release/kubectl-datakey

plugin-static: need-musl $(TOOLS)/cargo-auditable-$(CARGO_AUDITABLE) ## The same as a static binary, for any Linux
	$(STATIC) cargo auditable build --release --locked --package kubectl-datakey --target $(MUSL)
	@$(MAKE) --no-print-directory plugin-archive BUILT=$(TARGET)/$(MUSL)/release/kubectl-datakey

plugin-archive:
	DATAKEY_PLUGIN=$(BUILT) cargo test --locked --workspace --test repository -- binary::kubectl_plugin
	@deploy/krew/archive.sh $(BUILT) $(PLUGIN) $(OS)_$(GOARCH)

e2e-images: dist ## The images of make e2e, as archives in target/e2e: for kind load image-archive
	cd tests/e2e/consumer && $(GO_BUILD) -buildvcs=false -o $(E2E)/consumer/ .
	@tests/e2e/archive.sh "$(CONTAINER_TOOL)" $(GOARCH) deploy/Dockerfile $(TARGET)/dist $(E2E_ARCHIVES)/datakey-operator.tar
	@tests/e2e/archive.sh "$(CONTAINER_TOOL)" $(GOARCH) deploy/unwrap.Dockerfile $(TARGET)/dist $(E2E_ARCHIVES)/datakey-unwrap.tar
	@tests/e2e/archive.sh "$(CONTAINER_TOOL)" $(GOARCH) tests/e2e/consumer/Dockerfile $(E2E)/consumer $(E2E_ARCHIVES)/datakey-consumer.tar

need-musl: need-rust
	@command -v musl-gcc >/dev/null || { echo "musl-gcc is missing: install it (Debian: apt-get install musl-tools)"; exit 1; }
	@rustup target list --installed 2>/dev/null | grep -qx $(MUSL) || rustup target add $(MUSL)
