#!/bin/sh
# A Kubernetes node's surroundings on this machine, and nothing of them on it:
#
#   node.sh parts              what the node needs is there, or is installed; else says what is not, and ends with 77
#   node.sh PROGRAM [ARGS...]  runs a program in mount, process, network, IPC, UTS and cgroup namespaces of its own
#
# The first process in the namespaces is process 1 of the node: when it ends, in whatever way, the kernel ends every other
# one, and what they mounted and configured goes with the namespaces.
set -eu

# The node and, in place of kube-proxy, the first address of the Services (tests/support/src/node.rs).
ADDRESSES="10.1.0.1 10.0.0.1"

parts() {
	cannot() {
		echo "make e2e: SKIPPED, nothing was tested: $1" >&2
		exit 77
	}
	[ "$(uname -s)" = Linux ] || cannot "a node runs on Linux only; for a cluster see tests/e2e/README.md"
	[ "$(id -u)" = 0 ] || cannot "namespaces for a node can be made by root only"
	missing=""
	need() { command -v "$1" >/dev/null || missing="$missing $2"; }
	need unshare util-linux
	need ip iproute2
	need containerd containerd
	need runc runc
	need musl-gcc musl-tools
	[ -n "$(cni)" ] || missing="$missing containernetworking-plugins"
	{ docker info || podman info; } >/dev/null 2>&1 || need buildah buildah
	if [ -n "$missing" ]; then
		command -v apt-get >/dev/null || cannot "missing, and there is no apt-get to install them:$missing"
		echo "installing$missing"
		log=$(mktemp)
		# shellcheck disable=SC2086 # These are the names of several packages.
		if ! { apt-get update && apt-get install --yes --no-install-recommends $missing; } >"$log" 2>&1; then
			tail -n 5 "$log" >&2
			rm "$log"
			cannot "can't be installed:$missing"
		fi
		rm "$log"
	fi
	unshare --mount --pid --fork --net --ipc --uts --cgroup true 2>/dev/null || cannot "no namespaces can be made here"
}

# The folder of the CNI plugins: Debian's, or that of other systems.
cni() {
	for folder in /usr/lib/cni /opt/cni/bin; do
		if [ -x $folder/bridge ]; then
			echo $folder
			return
		fi
	done
}

# A cgroup of the node in every hierarchy, one a line: the file system's type, its options, the cgroup.
cgroups() {
	while IFS=: read -r id controllers own; do
		if [ "$id" != 0 ]; then
			mount=$(awk -v one="${controllers%%,*}" '$3 == "cgroup" && index("," $4 ",", "," one ",") { print $2; exit }' /proc/mounts)
			[ -z "$mount" ] || echo "cgroup $controllers $mount${own%/}/$1"
		else
			mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
			# At the top: below a cgroup with processes no controller can be handed on.
			[ -z "$mount" ] || echo "cgroup2 - $mount/$1"
		fi
	done </proc/self/cgroup
}

outside() {
	self=$0
	name=datakey-e2e-$$
	cgroups "$name" | while read -r type _ cgroup; do
		# Of runs that could not clean up.
		find "$(dirname "$cgroup")" -depth -type d -path '*/datakey-e2e-*' -exec rmdir {} + 2>/dev/null || true
		mkdir "$cgroup"
		[ "$type" = cgroup ] || mkdir "$cgroup/init"
		if [ -e "$cgroup/cpuset.mems" ] && [ -e "$cgroup/tasks" ]; then
			cat "$cgroup/../cpuset.cpus" >"$cgroup/cpuset.cpus"
			cat "$cgroup/../cpuset.mems" >"$cgroup/cpuset.mems"
		fi
	done
	clean() {
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			left=""
			for cgroup in $(cgroups "$name" | cut -d ' ' -f 3); do
				[ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || left="$left $cgroup"
			done
			[ -n "$left" ] || return 0
			sleep 0.3
		done
		echo "left behind:$left" >&2
	}
	trap clean EXIT
	trap 'kill -KILL $node 2>/dev/null; wait $node; exit 130' INT TERM HUP
	(
		# The subshell has no ID of its own in $$.
		me=$(exec sh -c 'echo $PPID')
		cgroups "$name" | while read -r type _ cgroup; do
			[ "$type" = cgroup ] || cgroup=$cgroup/init
			echo "$me" >"$cgroup/cgroup.procs"
		done
		exec setpriv --pdeathsig KILL \
			unshare --mount --pid --fork --kill-child --mount-proc --net --ipc --uts \
			sh "$self" enter "$name" "$@"
	) </dev/null &
	node=$!
	wait $node
}

# Process 1, which makes its cgroups the top of what the node sees. Version 2 hands controllers on only from a cgroup
# without processes, so that none may stay there.
enter() {
	name=$1
	shift
	cgroups "$name" | while read -r type _ cgroup; do
		if [ "$type" = cgroup2 ]; then echo 1 >"$cgroup/cgroup.procs"; fi
	done
	exec unshare --cgroup sh "$0" inside "$@"
}

# Process 1.
inside() {
	# containerd and the kubelet pass mounts on to each other.
	mount --make-rshared /
	hostname node
	hierarchies=$(cgroups "")
	mount -t sysfs sysfs /sys
	if echo "$hierarchies" | grep -q '^cgroup '; then
		mount -t tmpfs tmpfs /sys/fs/cgroup
		echo "$hierarchies" | while read -r type options _; do
			[ "$type" = cgroup ] || continue
			mkdir "/sys/fs/cgroup/${options#name=}"
			mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/${options#name=}"
		done
	else
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		echo 1 >/sys/fs/cgroup/init/cgroup.procs
		read -r controllers </sys/fs/cgroup/cgroup.controllers
		for controller in $controllers; do
			echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
		done
	fi
	# Whatever the node writes lies in memory and ends with the namespaces; the testbed's folder of runs, too.
	runs="${DATAKEY_TOOLS%/*}/run"
	mkdir -p "$runs"
	mount -t tmpfs tmpfs "$runs"
	mount -t tmpfs -o mode=755 tmpfs /run
	for folder in /etc /var/lib /var/log; do
		mkdir -p "/run/over$folder" "/run/work$folder"
		mount -t overlay -o "lowerdir=$folder,upperdir=/run/over$folder,workdir=/run/work$folder" overlay "$folder"
	done
	# An overlay of containerd's or buildah's can't lie on an overlay.
	for folder in cni containerd containers kubelet; do
		mkdir -p "/var/lib/$folder"
		mount -t tmpfs -o mode=755 tmpfs "/var/lib/$folder"
	done
	mkdir -m 1777 /run/tmp
	export TMPDIR=/run/tmp
	# The kubelet wants these settings, and they are the machine's, not the namespace's.
	mkdir /run/sysctl
	while read -r setting value; do
		echo "$value" >"/run/sysctl/${setting##*/}"
		mount --bind "/run/sysctl/${setting##*/}" "/proc/sys/$setting"
	done <<-END
		vm/overcommit_memory 1
		vm/panic_on_oom 0
		kernel/panic 10
		kernel/panic_on_oops 1
		kernel/keys/root_maxkeys 1000000
		kernel/keys/root_maxbytes 25000000
	END
	ip link set lo up
	for address in $ADDRESSES; do ip address add "$address/32" dev lo; done
	CNI=$(cni)
	export CNI
	"$@" &
	# Meanwhile the shell buries whom containerd leaves to it.
	wait $!
}

case "${1:-}" in
parts) parts ;;
enter) shift && enter "$@" ;;
inside) shift && inside "$@" ;;
"") echo "node.sh parts, or node.sh PROGRAM [ARGS...]" >&2 && exit 64 ;;
*) outside "$@" ;;
esac
