#!/bin/sh
# Builds Flux's kustomize-controller, and copies the definitions that it works with: build.sh FOLDER
# The program goes to FOLDER/bin, the definitions go to FOLDER/flux.
set -eu
folder=$1
flux=github.com/fluxcd
mkdir -p "$folder/bin"
cd "$(dirname "$0")"
go build -mod=readonly -trimpath -ldflags '-s -w' -o "$folder/bin/" $flux/kustomize-controller
rm -rf "$folder/flux"
mkdir "$folder/flux"
own=$(go list -mod=readonly -m -f '{{.Dir}}' $flux/kustomize-controller)
# The module has source-controller's API only; its definitions are in the controller's module, of the same version.
source=$flux/source-controller@$(go list -mod=readonly -m -f '{{.Version}}' $flux/source-controller/api)
go mod download "$source"
install -m 0644 "$own"/config/crd/bases/*.yaml "$(go env GOMODCACHE)/$source"/config/crd/bases/*.yaml "$folder/flux/"
