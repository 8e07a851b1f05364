#!/bin/sh
# etcd, kube-apiserver and kubectl of the demo: servers.sh TOOLS VERSION BUILD...
#
# Released ones of the minor version of VERSION, which setup-envtest fetches and checks, go to TOOLS/envtest. Where they
# can't be had, the command BUILD builds those of VERSION in TOOLS/bin. Where they are built already, nothing is fetched.
# TOOLS/demo leads to what it is.
#
# ENVTEST_INDEX is the URL of the index, if not that of setup-envtest; with `none` nothing is fetched.
# SETUP_ENVTEST is the program, if it is built already.
set -eu
tools=$1
version=$2
shift 2
minor=${version%.*}
released=$tools/envtest
part=$released.part
log=$tools/envtest.log
# The index is small; an archive has a hundred megabytes.
answer=4
download=150

clean() {
	# What setup-envtest unpacked is read-only.
	chmod -R u+w "$part" 2>/dev/null || true
	rm -rf "$part"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# Runs a command for so many seconds at most.
limited() {
	left=$(($1 * 10))
	shift
	"$@" &
	child=$!
	trap 'kill $child 2>/dev/null; exit 130' INT TERM HUP
	while kill -0 $child 2>/dev/null; do
		if [ $left -eq 0 ]; then
			kill $child
			wait $child 2>/dev/null || true
			echo "no answer in time" >&2
			return 1
		fi
		left=$((left - 1))
		sleep 0.1
	done
	wait $child
}

setup_envtest() {
	limit=$1
	shift
	set -- --bin-dir "$part" "$@"
	[ -z "${ENVTEST_INDEX:-}" ] || set -- --index "$ENVTEST_INDEX" "$@"
	# The archive is a temporary file.
	TMPDIR=$part limited "$limit" "$program" "$@"
}

# Why it fails is the last line of the log.
fetch() {
	clean
	mkdir -p "$part" || return
	program=${SETUP_ENVTEST:-$tools/bin/setup-envtest}
	if [ ! -x "$program" ]; then
		(cd "$(dirname "$0")" && CGO_ENABLED=0 go build -mod=readonly -trimpath -o "$program" \
			sigs.k8s.io/controller-runtime/tools/setup-envtest) || return
	fi
	setup_envtest $answer list "$minor.x" >"$part/list" || return
	# Newest first, unless the very version is there.
	newest=$(awk -v exact="v$version" '$1 == "(available)" && ($2 == exact || !found) { found = $2 } END { print found }' "$part/list")
	[ -n "$newest" ] || {
		echo "the index has no $minor for this machine" >&2
		return 1
	}
	setup_envtest $download use "${newest#v}" --print path >"$part/path" || return
	folder=$(cat "$part/path")
	chmod -R u+w "$folder"
	for one in etcd kube-apiserver kubectl; do
		[ -x "$folder/$one" ] || {
			echo "the archive of $newest has no $one" >&2
			return 1
		}
	done
	found=$("$folder/kube-apiserver" --version) || return
	[ "$found" = "Kubernetes $newest" ] || {
		echo "the archive of $newest has a kube-apiserver that calls itself $found" >&2
		return 1
	}
	rm -rf "$released"
	mv "$folder" "$released" || return
	touch "$released/kubernetes-$version"
}

lead() {
	ln -sfn "$1" "$tools/demo"
}

mkdir -p "$tools/bin"
begun=$(date +%s)
if [ -e "$tools/bin/kubernetes-$version" ]; then
	lead bin
	exit
fi
if [ "${ENVTEST_INDEX:-}" = none ]; then
	reason="ENVTEST_INDEX is none"
elif fetch 2>"$log"; then
	printf '%-52s %5d s\n' "etcd, kube-apiserver, kubectl $newest: released" $(($(date +%s) - begun))
	lead envtest
	exit
else
	reason=$(grep . "$log" | tail -n 1 | cut -c 1-300)
fi
echo "Released servers cannot be fetched, so etcd, kube-apiserver and kubectl are built. Why:"
echo "$reason" | fold -s -w 76 | sed 's/^/  /'
"$@"
touch "$tools/bin/kubernetes-$version"
lead bin
