#!/bin/sh
# Builds an image and saves it as an archive: archive.sh TOOL ARCHITECTURE DOCKERFILE FOLDER ARCHIVE
# TOOL is docker, podman or buildah; FOLDER is what the image is built from. The image is localhost/NAME:e2e, where
# ARCHIVE is NAME.tar. The tool's own store is left as it was; that of buildah is made in namespaces and goes with them.
set -eu
tool=$1
architecture=$2
dockerfile=$3
folder=$4
archive=$5
image=localhost/$(basename "$archive" .tar):e2e
set -- build --quiet --build-arg "TARGETARCH=$architecture" --tag "$image" --file "$dockerfile" "$folder"
rm -f "$archive"
case $tool in
"")
	echo "docker, podman or buildah is needed" >&2
	exit 1
	;;
*buildah)
	# shellcheck disable=SC2016 # The inner shell expands it.
	STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot "$(dirname "$0")/node.sh" sh -c \
		'image=$1 archive=$2; shift 2; buildah "$@" && buildah push --quiet "$image" "docker-archive:$archive:$image"' \
		sh "$image" "$archive" "$@" >/dev/null
	;;
*)
	"$tool" "$@" >/dev/null
	"$tool" save --output "$archive" "$image"
	"$tool" rmi "$image" >/dev/null
	;;
esac
