#!/bin/sh
# Prints the krew manifest of a release: render.sh OWNER/REPOSITORY FOLDER. The folder has the archives' checksums,
# ARCHIVE.sha256, as `make plugin` writes them.
set -eu
repository=$1
folder=$(cd "$2" && pwd)
cd "$(dirname "$0")"
set -- -e "s|OWNER/REPOSITORY|$repository|" -e '/^#/d'
for platform in linux_amd64 linux_arm64 darwin_amd64 darwin_arm64; do
	sum=$(cut -d ' ' -f 1 "$folder/kubectl-datakey_$platform.tar.gz.sha256")
	set -- "$@" -e "s|SHA256_$platform|$sum|"
done
exec sed "$@" datakey.yaml
