#!/bin/bash
# Unwraps all versions of the data key in a mounted wrapped-key Secret into a folder in memory, for another container of
# the pod: /plaintext/v1, /plaintext/v2, ..., and /plaintext/version, the version to encrypt under.
set -euo pipefail
umask 077
plaintext=${PLAINTEXT:-/plaintext}
# One retry: a KMS endpoint that does not answer stops the workload for seconds, not for minutes.
export AWS_MAX_ATTEMPTS=2
# The folder of the present entries. A rotation creates another folder, so all entries that this script reads belong together.
keys=$(realpath "${KEYS:-/keys}/..data")

if [[ $(stat --file-system --format=%T "$plaintext") != tmpfs ]]; then
  echo "$plaintext is not in memory: make it an emptyDir with medium: Memory" >&2
  exit 1
fi
# Where plaintexts are until they are checked.
new=$plaintext/.new
rm -rf "$new"
mkdir "$new"
trap 'rm -rf "$new"' EXIT

# In ascending order: a later version that is falsely named a rewrap does not go first.
versions=$(cd "$keys" && printf '%s\n' ciphertextBlob.v* | sed 's/.*\.v//' | sort -n)
if [[ $versions == '*' ]]; then
  echo "${KEYS:-/keys} is no mounted Secret of a DataKey: it has no ..data/ciphertextBlob.v1" >&2
  exit 1
fi
# By version: the one as which its data key was issued, and why it was not unwrapped.
declare -A root refused
for version in $versions; do
  root[$version]=$version
  if [[ -e $keys/rewrapOf.v$version ]]; then
    earlier=$(<"$keys/rewrapOf.v$version")
    # A rewrap names an earlier version, and no other does.
    if [[ $earlier =~ ^[1-9][0-9]{0,9}$ ]] && ((earlier < version)); then
      root[$version]=${root[$earlier]:-$earlier}
    fi
  fi
done

# Has KMS unwrap one version.
decrypt() {
  local key_arn
  key_arn=$(<"$keys/keyId.v$1") || return
  if [[ " $KMS_KEY_ARNS " != *" $key_arn "* ]]; then
    echo "version $1 is wrapped by $key_arn, which is not in KMS_KEY_ARNS" >&2
    return 1
  fi
  # The encryption context is set here, not read from the Secret: a user who changes the Secret cannot make the workload
  # unwrap another data key.
  aws kms decrypt \
    --cli-connect-timeout 5 --cli-read-timeout 5 \
    --region "$(cut -d: -f4 <<<"$key_arn")" \
    --key-id "$key_arn" \
    --ciphertext-blob "fileb://$keys/ciphertextBlob.v$1" \
    --encryption-context purpose=orders \
    --query Plaintext --output text | base64 --decode
}

# The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret
# was changed.
gone='which is not in KMS_KEY_ARNS|An error occurred \((AccessDenied|Disabled|KMSInvalidState|NotFound)Exception\)'

# Has KMS unwrap a version, unless that was tried before: other versions can need the same answer.
try() {
  local why
  if [[ ! -e $new/v$1 && ! -v refused[$1] ]]; then
    if why=$(decrypt "$1" 2>&1 >"$new/part"); then
      mv "$new/part" "$new/v$1"
    else
      refused[$1]=$why
    fi
  fi
  [[ -e $new/v$1 ]]
}

# Has KMS unwrap a version; if its KMS key is gone, a version with the same data key, which another KMS key wrapped. The
# plaintext is then that of the version "$from".
unwrap() {
  local why other
  from=$1
  try "$1" && return
  why=${refused[$1]}
  for other in $versions; do
    if [[ $why =~ $gone && ${root[$other]} == "${root[$1]}" ]]; then
      from=$other
      try "$other" && return
      [[ ${refused[$other]} =~ $gone ]] || why=${refused[$other]}
    fi
  done
  echo "$why" >&2
  return 1
}

for version in $versions; do
  unwrap "$version"
  # The data key is AES_256.
  length=$(stat --format=%s "$new/v$from")
  if ((length != 32)); then
    echo "the plaintext of version $version has $length bytes, not 32" >&2
    exit 1
  fi
  cp "$new/v$from" "$new/part"
  mv "$new/part" "$plaintext/v$version"
done
# A version that the Secret does not hold would leave the workload without a key to encrypt under.
if [[ ! -e $plaintext/v$(<"$keys/version") ]]; then
  echo "the Secret says that version $(<"$keys/version") is current, and does not hold it" >&2
  exit 1
fi
cp "$keys/version" "$new/part"
mv "$new/part" "$plaintext/version"
