"""Has AWS KMS unwrap the versions of a mounted wrapped-key Secret, under this workload's own kms:Decrypt."""

import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# Set in the settings of the workload, not read from the Secret.
KMS_KEY_ARNS = os.environ.get("KMS_KEY_ARNS", "").split()
# Without these, a KMS endpoint that does not answer stops the workload for minutes.
DEADLINES = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})
# The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret
# was changed.
KEY_IS_GONE = {"AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"}


def unwrap(secret, version, encryption_context, gone):
    """The plaintext of a version. If its KMS key is gone, that of a version with the same one, which another KMS key wrapped.

    The set `gone` is for all calls: where another version was unwrapped, those before it are not tried again.
    """
    refusals = {}
    numbers = [version, *same_key(secret, version)]
    for number in [number for number in numbers if number not in gone] or numbers:
        key_arn = (secret / f"keyId.v{number}").read_text()
        if key_arn not in KMS_KEY_ARNS:
            why = f"version {number} is wrapped by {key_arn}, which is not in KMS_KEY_ARNS"
            refusals[number] = PermissionError(why)
            continue
        kms = boto3.client("kms", region_name=key_arn.split(":")[3], config=DEADLINES)
        blob = (secret / f"ciphertextBlob.v{number}").read_bytes()
        try:
            answer = kms.decrypt(KeyId=key_arn, CiphertextBlob=blob, EncryptionContext=encryption_context)
        except ClientError as error:
            if error.response["Error"]["Code"] not in KEY_IS_GONE:
                raise
            refusals[number] = error
            continue
        gone.update(refusals)
        # The objects that boto3 created from the answer are immutable: they can be dropped, but not overwritten.
        return bytearray(answer.pop("Plaintext"))
    raise next(iter(refusals.values()))


def versions(secret):
    """All versions that there are."""
    return sorted(int(blob.suffix.removeprefix(".v")) for blob in secret.glob("ciphertextBlob.v*"))


def same_key(secret, version):
    """The other versions with the same plaintext, in ascending order."""
    return [
        number
        for number in versions(secret)
        if number != version and root(secret, number) == root(secret, version)
    ]


def root(secret, version):
    """The version as which the plaintext was issued: a rewrap names an earlier version, and no other does."""
    entry = secret / f"rewrapOf.v{version}"
    earlier = int(entry.read_text()) if entry.exists() else version
    return root(secret, earlier) if earlier < version else version
