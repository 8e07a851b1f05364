#!/bin/sh
# Runs one step of a build: step.sh NAME TITLE COMMAND...
# What the command prints goes to NAME.log in target/log. A line says what was done and how long it took; where it takes more
# than 5 seconds, a line before says that it runs. Where the command fails, the end of the log is shown, too.
set -u
name=$1
title=$2
shift 2
logs=${STEP_LOGS:-target/log}
log=$logs/$name.log
mkdir -p "$logs" || exit
# The jobserver of make is not for cargo, which warns where it can't use it.
unset MAKEFLAGS MFLAGS
begun=$(date +%s)
"$@" </dev/null >"$log" 2>&1 &
child=$!
# A step of minutes says so. The output of sleep is not that of the step, or a pipe behind make would wait for it.
(sleep 5 >/dev/null 2>&1 && printf '%-52s ... see %s\n' "$title" "$log") &
notice=$!
trap 'kill $child $notice 2>/dev/null; wait $child; exit 130' INT TERM HUP
wait $child
code=$?
kill $notice 2>/dev/null
seconds=$(($(date +%s) - begun))
# In a subshell it has no children. Its second line is that of the command: user and system time.
times >"$log.times"
processor=$(awk 'NR == 2 { gsub("s", ""); split($0, part, /[m ]/); print int(60 * (part[1] + part[3]) + part[2] + part[4] + 0.5) }' "$log.times")
rm "$log.times"
if [ "$code" -ne 0 ]; then
	printf '%-52s FAILED after %d s\n' "$title" "$seconds"
	tail -n "${STEP_LINES:-30}" "$log" | sed 's/^/  /'
	echo "  the whole log: $log"
	exit "$code"
fi
printf '%-52s %5d s, %d s of CPU\n' "$title" "$seconds" "$processor"
