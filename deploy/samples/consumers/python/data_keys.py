"""The data keys of a mounted wrapped-key Secret, unwrapped by this workload's own kms:Decrypt."""

import os
import pathlib

from unwrap import unwrap, versions

# Set here, as the KMS keys are in the settings of the workload, not read from the Secret: a user who changes the Secret cannot
# make the workload unwrap another data key.
ENCRYPTION_CONTEXT = {"purpose": "orders"}
# AES_256. AES-GCM would take a shorter key, too.
KEY_BYTES = 32


class DataKeys:
    """Unwraps each version once, when it is first needed. Use it in `with`: its end wipes the plaintexts."""

    def __init__(self, secret=os.environ.get("KEYS", "/keys")):
        # The kubelet replaces all entries at once by this link. The links beside it follow, so a new entry is here first.
        self._secret = pathlib.Path(secret, "..data")
        self._plaintexts = {}
        self._gone = set()

    def current(self):
        """The version to encrypt under. Read each time, so that a rotation needs no restart."""
        return int((self._secret / "version").read_text())

    def versions(self):
        """All versions that there are."""
        return versions(self._secret)

    def plaintext(self, version):
        """The plaintext of a version. The entries of a version never change, so a rotation cannot mix two versions."""
        if version not in self._plaintexts:
            plaintext = unwrap(self._secret, version, ENCRYPTION_CONTEXT, self._gone)
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
