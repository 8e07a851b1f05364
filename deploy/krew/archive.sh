#!/bin/sh
# Packs the plugin as krew installs it, the binary and the license: archive.sh BINARY FOLDER PLATFORM
# FOLDER gets both, the archive and, for render.sh, the archive's checksum. PLATFORM is for example linux_amd64.
set -eu
binary=$1
folder=$2
platform=$3
mkdir -p "$folder"
install -m 0755 "$binary" "$folder/kubectl-datakey"
install -m 0644 "$(dirname "$0")/../../LICENSE" "$folder/LICENSE"
cd "$folder"
archive=kubectl-datakey_$platform.tar.gz
tar -czf "$archive" kubectl-datakey LICENSE
{ sha256sum "$archive" 2>/dev/null || shasum -a 256 "$archive"; } | tee "$archive.sha256"
