"""The key pairs of a mounted wrapped-key-pair Secret, unwrapped by this workload's own kms:Decrypt."""

import os
import pathlib

from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_public_key

from unwrap import unwrap


class KeyPairs:
    """Unwraps the private key of each version once, when it is first needed."""

    def __init__(self, encryption_context, is_wanted, secret=os.environ.get("KEYS", "/keys")):
        self._encryption_context = encryption_context
        # Whether a private key is of the kind that the workload uses.
        self._is_wanted = is_wanted
        # The kubelet replaces all entries at once by this link. The links beside it follow, so a new entry is here first.
        self._secret = pathlib.Path(secret, "..data")
        self._private_keys = {}
        self._gone = set()

    def private_key(self, version):
        """The private key of a version. The entries of a version never change, so a rotation cannot mix two versions."""
        if version not in self._private_keys:
            plaintext = unwrap(self._secret, version, self._encryption_context, self._gone)
            try:
                private_key = load_der_private_key(plaintext, password=None)
            finally:
                plaintext[:] = bytes(len(plaintext))
            if not self._is_wanted(private_key):
                raise ValueError(f"the private key of version {version} is of another kind")
            if private_key.public_key() != self.public_key(version):
                raise ValueError(f"the public key of version {version} belongs to another private key")
            self._private_keys[version] = private_key
        return self._private_keys[version]

    def public_key(self, version):
        """The public key of a version, as the Secret has it."""
        return load_pem_public_key((self._secret / f"publicKey.v{version}").read_bytes())
