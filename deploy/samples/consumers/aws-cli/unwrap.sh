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
trap 'rm -f "$plaintext/.new"' EXIT

# The version as which the data key of a version was issued: a rewrap names an earlier version, and no other does.
root() {
  local version=$1 earlier
  while [[ -e $keys/rewrapOf.v$version ]]; do
    earlier=$(<"$keys/rewrapOf.v$version")
    if [[ ! $earlier =~ ^[1-9][0-9]{0,9}$ ]] || ((earlier >= version)); then
      break
    fi
    version=$earlier
  done
  echo "$version"
}

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

# Has KMS unwrap a version; if its KMS key is gone, a version with the same data key, which another KMS key wrapped.
unwrap() {
  local why other of_other
  why=$(decrypt "$1" 2>&1 >"$plaintext/.new") && return
  # In ascending order: a later version that is falsely named a rewrap does not go first.
  for other in $(cd "$keys" && printf '%s\n' ciphertextBlob.v* | sed 's/.*\.v//' | sort -n); do
    if [[ $why =~ $gone && $other != "$1" && $(root "$other") == "$(root "$1")" ]]; then
      of_other=$(decrypt "$other" 2>&1 >"$plaintext/.new") && return
      [[ $of_other =~ $gone ]] || why=$of_other
    fi
  done
  echo "$why" >&2
  return 1
}

for blob in "$keys"/ciphertextBlob.v*; do
  if [[ ! -e $blob ]]; then
    echo "${KEYS:-/keys} is no mounted Secret of a DataKey: it has no ..data/ciphertextBlob.v1" >&2
    exit 1
  fi
  version=${blob##*.v}
  unwrap "$version"
  # The data key is AES_256.
  length=$(stat --format=%s "$plaintext/.new")
  if ((length != 32)); then
    echo "the plaintext of version $version has $length bytes, not 32" >&2
    exit 1
  fi
  mv "$plaintext/.new" "$plaintext/v$version"
done
# A version that the Secret does not hold would leave the workload without a key to encrypt under.
if [[ ! -e $plaintext/v$(<"$keys/version") ]]; then
  echo "the Secret says that version $(<"$keys/version") is current, and does not hold it" >&2
  exit 1
fi
cp "$keys/version" "$plaintext/.new"
mv "$plaintext/.new" "$plaintext/version"
