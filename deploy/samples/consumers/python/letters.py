"""Encrypts small data, such as a key for more data, to the public key of a DataKeyPair, with RSA-OAEP and SHA-256.

    letters.py seal PUBLISHED FILE SEALED   under the current version of the published public keys
    letters.py open SEALED FILE             under the version that the sealed file names

PUBLISHED is a folder with the entries of the ConfigMap that `kubectl datakey public-key letters -o configmap` prints. A sealed
file is: version (4 bytes, big-endian), what RSA-OAEP made of at most 190 bytes of data, with the version as its label.
"""

import pathlib
import sys

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from key_pairs import KeyPairs

# Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another key pair.
ENCRYPTION_CONTEXT = {"purpose": "letters"}


def is_rsa_2048(private_key):
    return isinstance(private_key, rsa.RSAPrivateKey) and private_key.key_size == 2048


def public_key(published, version):
    key = load_pem_public_key((published / f"publicKey.v{version}").read_bytes())
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 2048:
        raise ValueError(f"the public key of version {version} is of another kind")
    return key


def oaep(header):
    return padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=header)


def seal(published, data):
    # The kubelet replaces all entries of a mounted ConfigMap at once by this link.
    published = published / "..data" if (published / "..data").exists() else published
    version = int((published / "version").read_text())
    header = version.to_bytes(4, "big")
    return header + public_key(published, version).encrypt(data, oaep(header))


def unseal(pairs, sealed):
    header, ciphertext = sealed[:4], sealed[4:]
    return pairs.private_key(int.from_bytes(header, "big")).decrypt(ciphertext, oaep(header))


def write(path, data):
    """All of it or nothing, for this user alone: what was sealed is secret."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_bytes(data)
    new.replace(path)


if __name__ == "__main__":
    try:
        match sys.argv[1:2], [pathlib.Path(path) for path in sys.argv[2:]]:
            case ["seal"], [published, source, target]:
                write(target, seal(published, source.read_bytes()))
            case ["open"], [source, target]:
                write(target, unseal(KeyPairs(ENCRYPTION_CONTEXT, is_rsa_2048), source.read_bytes()))
            case _:
                sys.exit(__doc__)
    except (OSError, ValueError, BotoCoreError, ClientError) as error:
        sys.exit(str(error))
