#!/bin/sh
# Installs Python packages into an environment of their own: venv.sh REQUIREMENTS FOLDER [OPTIONS OF PIP]
set -eu
requirements=$1
folder=$2
shift 2
command -v python3 >/dev/null || {
	echo "Python 3 is missing: install Python 3.11 or newer" >&2
	exit 1
}
python3 -c 'import venv, ensurepip' 2>/dev/null || {
	echo "Python's venv is missing: install it (Debian: apt-get install python3-venv)" >&2
	exit 1
}
# Its programs name the Python of the place where they were installed: what is there may have been copied.
python3 -m venv --clear "$folder"
"$folder/bin/python3" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" "$@"
