#!/bin/sh
# Fuzzes the targets, one after the other: run.sh CARGO_FUZZ FOLDER SECONDS TARGET...
# CARGO_FUZZ is the program; FOLDER takes the build, the logs and what is found; each target runs for SECONDS.
set -eu
cargo_fuzz=$1
folder=$2
seconds=$3
shift 3
here=$(dirname "$0")
command -v c++ >/dev/null || {
	echo "A C++ compiler is missing: install one (Debian: apt-get install g++)" >&2
	exit 1
}
fuzz() {
	command=$1
	shift
	# The sanitizers need a nightly Rust; this crate has no unsafe code.
	"$cargo_fuzz" "$command" --fuzz-dir "$here" --target-dir "$folder" --sanitizer none "$@"
}

cargo fetch --quiet --locked --manifest-path "$here/Cargo.toml"
fuzz build
for target; do
	echo "fuzzing $target for $seconds seconds"
	found=$folder/found/$target
	log=$found.log
	mkdir -p "$found"
	fuzz run "$target" "$found" "$here/corpus/$target" -- -max_total_time="$seconds" -timeout=10 \
		-dict="$here/dictionary.txt" -artifact_prefix="$found-" >"$log" 2>&1 || {
		grep -a -A 4 -e panicked -e ERROR -e 'Test unit written' "$log" | cut -c 1-1000
		echo "$log has the rest. To replay it: copy it to $here/corpus/$target, and cargo test --test corpus"
		exit 1
	}
	grep -a -o 'DONE .*' "$log"
done
# cargo-fuzz makes these folders, and nothing is in them: what is found goes to FOLDER.
rmdir -p "$here"/artifacts/* 2>/dev/null || true
