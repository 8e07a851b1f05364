#!/bin/sh
# Builds the operator of an earlier commit: earlier.sh COMMIT SOURCES TARGET
# The tree of the commit goes to SOURCES, the binary to TARGET/debug.
set -eu
commit=$1
sources=$2
target=$3
git cat-file -e "$commit^{commit}" || {
	echo "commit $commit is missing: git fetch --unshallow" >&2
	exit 1
}
rm -rf "$sources"
mkdir -p "$sources"
git archive "$commit" | tar -x -C "$sources"
cargo build --locked --no-default-features --bin datakey-operator \
	--manifest-path "$sources/Cargo.toml" --target-dir "$target"
