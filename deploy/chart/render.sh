#!/bin/sh
# Writes the chart of a release into FOLDER/datakey-operator: render.sh OWNER/REPOSITORY IMAGE FOLDER. Where the repository and the
# image are is known only then: the chart in charts/ names neither.
set -eu
repository=$1
image=$2
folder=$3
chart=$(cd "$(dirname "$0")/../../charts/datakey-operator" && pwd)
version=$(sed -n 's/^version: //p' "$chart/Chart.yaml")
github=https://github.com/$repository
mkdir -p "$folder"
cp -R "$chart" "$folder"
cd "$folder/datakey-operator"
sed -e "s|^  repository: \"\"\$|  repository: $image|" -e "s|/OWNER/REPOSITORY/blob/main/|/$repository/blob/v$version/|" "$chart/values.yaml" >values.yaml
grep -q "^  repository: $image\$" values.yaml
grep -q "runbookUrl: $github/blob/v$version/docs/operations.md" values.yaml
{
	cat <<END
home: $github
sources: [$github]
icon: https://raw.githubusercontent.com/$repository/v$version/charts/icon.svg
END
	# Its annotations are at the end.
	cat "$chart/Chart.yaml"
	cat <<END
  artifacthub.io/links: |
    - name: Documentation
      url: $github/tree/v$version/docs
    - name: support
      url: $github/issues
  artifacthub.io/images: |
    - name: datakey-operator
      image: $image:$version
END
} >Chart.yaml
