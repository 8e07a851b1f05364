#!/bin/sh
# Runs `make e2e`: in the cluster of E2E_CLUSTER, else on a node that is made here. Where this machine can have no node, it
# says so and succeeds; with E2E_REQUIRED=1 it fails.
set -eu
cd "$(dirname "$0")/../.."
if [ -n "${E2E_CLUSTER:-}" ]; then
	exec make e2e-cluster
fi
code=0
tests/e2e/node.sh parts || code=$?
case $code in
# A make of its own: it finds the programs that `node.sh parts` installed.
0) exec make e2e-node ;;
77) [ "${E2E_REQUIRED:-}" != 1 ] ;;
*) exit "$code" ;;
esac
