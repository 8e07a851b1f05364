#!/bin/sh
# Puts into a folder what the image is made of: stage.sh BINARY CA_CERTIFICATES FOLDER ARCHITECTURE
set -eu
binary=$1
certificates=$2
folder=$3
architecture=$4
# Bytes; the image is this and the CA certificates.
budget=25000000
mkdir -p "$folder/$architecture"
install -m 0555 "$binary" "$folder/$architecture/datakey-operator"
install -m 0444 "$certificates" "$folder/ca-certificates.crt"
size=$(wc -c <"$binary")
echo "$size bytes, $budget at most"
test "$size" -le "$budget"
