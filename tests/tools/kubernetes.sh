#!/bin/sh
# Builds etcd and programs of Kubernetes: kubernetes.sh MODULE VERSION FOLDER PROGRAM...
# MODULE is the folder of the go.mod that requires them, in VERSION.
set -eu
module=$1
version=$2
folder=$3
shift 3
echo "building $* of Kubernetes $version: some minutes, once"
mkdir -p "$folder"
cd "$module"
for program; do
	shift
	if [ "$program" = etcd ]; then
		go build -mod=readonly -trimpath -o "$folder/etcd" go.etcd.io/etcd/server/v3
	else
		set -- "$@" "k8s.io/kubernetes/cmd/$program"
	fi
done
# Without these variables every program calls itself v0.0.0, and clients believe it.
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
variables=k8s.io/component-base/version
go build -mod=readonly -trimpath -o "$folder/" -ldflags "-s -w \
	-X $variables.gitVersion=v$version -X $variables.gitMajor=$major -X $variables.gitMinor=$minor" "$@"
