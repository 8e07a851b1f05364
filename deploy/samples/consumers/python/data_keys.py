"""The data keys of a mounted wrapped-key Secret, unwrapped by this workload's own kms:Decrypt."""

import os
import pathlib

import boto3
from botocore.config import Config

# Set here and in the settings of the workload, not read from the Secret: a user who changes the Secret cannot make
# the workload unwrap another data key.
ENCRYPTION_CONTEXT = {"purpose": "orders"}
KMS_KEY_ARNS = os.environ.get("KMS_KEY_ARNS", "").split()
# AES_256. AES-GCM would take a shorter key, too.
KEY_BYTES = 32
# Without these, a KMS endpoint that does not answer stops the workload for minutes.
DEADLINES = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})


class DataKeys:
    """Unwraps each version once, when it is first needed. Use it in `with`: its end wipes the plaintexts."""

    def __init__(self, secret=os.environ.get("KEYS", "/keys")):
        # The kubelet replaces all entries at once by this link. The links beside it follow, so a new entry is here first.
        self._secret = pathlib.Path(secret, "..data")
        self._plaintexts = {}

    def current(self):
        """The version to encrypt under. Read each time, so that a rotation needs no restart."""
        return int((self._secret / "version").read_text())

    def versions(self):
        """All versions that there are."""
        return sorted(int(blob.suffix.removeprefix(".v")) for blob in self._secret.glob("ciphertextBlob.v*"))

    def plaintext(self, version):
        """The plaintext of a version. The entries of a version never change, so a rotation cannot mix two versions."""
        if version not in self._plaintexts:
            key_arn = (self._secret / f"keyId.v{version}").read_text()
            if key_arn not in KMS_KEY_ARNS:
                raise PermissionError(f"version {version} is wrapped by {key_arn}, which is not in KMS_KEY_ARNS")
            kms = boto3.client("kms", region_name=key_arn.split(":")[3], config=DEADLINES)
            answer = kms.decrypt(
                KeyId=key_arn,
                CiphertextBlob=(self._secret / f"ciphertextBlob.v{version}").read_bytes(),
                EncryptionContext=ENCRYPTION_CONTEXT,
            )
            # The objects that boto3 created from the answer are immutable: they can be dropped, but not overwritten.
            plaintext = bytearray(answer.pop("Plaintext"))
            if len(plaintext) != KEY_BYTES:
                plaintext[:] = bytes(len(plaintext))
                raise ValueError(f"the plaintext of version {version} has {len(plaintext)} bytes, not {KEY_BYTES}")
            self._plaintexts[version] = plaintext
        return self._plaintexts[version]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for plaintext in self._plaintexts.values():
            plaintext[:] = bytes(len(plaintext))
        self._plaintexts.clear()
