#!/bin/sh
# Puts into a folder what the images are made of: stage.sh BINARIES CA_CERTIFICATES FOLDER ARCHITECTURE
set -eu
binaries=$1
certificates=$2
folder=$3
architecture=$4
mkdir -p "$folder/$architecture"
install -m 0444 "$certificates" "$folder/ca-certificates.crt"
# A binary and the most bytes of its image, which is the binary and the CA certificates.
stage() {
	install -m 0555 "$binaries/$1" "$folder/$architecture/$1"
	size=$(cat "$binaries/$1" "$certificates" | wc -c)
	echo "$1: $size bytes, $2 at most"
	test "$size" -le "$2"
}
stage datakey-operator 25000000
stage datakey-unwrap 15000000
