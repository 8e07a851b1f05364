#!/bin/sh
# Builds etcd and programs of Kubernetes: kubernetes.sh MODULE VERSION FOLDER PROGRAM...
# MODULE is the folder of the go.mod that requires them, in VERSION.
set -eu
module=$1
version=$2
folder=$3
shift 3
mkdir -p "$folder"
cd "$module"
# Without C, and without tables for a debugger: both are work for the compiler that no test needs. The compiler collects its
# garbage rarely.
export CGO_ENABLED=0 GOGC="${GOGC:-400}"
compile() {
	go build -mod=readonly -trimpath -gcflags=all=-dwarf=false "$@"
}
for program; do
	shift
	if [ "$program" = etcd ]; then
		compile -o "$folder/etcd" -ldflags '-s -w' go.etcd.io/etcd/server/v3
	else
		set -- "$@" "k8s.io/kubernetes/cmd/$program"
	fi
done
# Without these variables every program calls itself v0.0.0, and clients believe it.
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
variables=k8s.io/component-base/version
compile -o "$folder/" -ldflags "-s -w \
	-X $variables.gitVersion=v$version -X $variables.gitMajor=$major -X $variables.gitMinor=$minor" "$@"
