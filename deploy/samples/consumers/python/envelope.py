"""Encrypts files under the data keys of a wrapped-key Secret, with AES-256-GCM.

    envelope.py encrypt FILE SEALED   under the current version
    envelope.py decrypt SEALED FILE   under the version that the sealed file names
    envelope.py renew SEALED          encrypts it again if it is not of the current version

A sealed file is: version (4 bytes, big-endian), nonce (12 bytes), what AES-GCM made of the data and the version.
"""

import os
import pathlib
import sys

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data_keys import DataKeys


def seal(keys, data):
    version = keys.current()
    header = version.to_bytes(4, "big")
    nonce = os.urandom(12)
    # AESGCM may refer to the key instead of copying it. One for each call does not outlive the plaintext.
    return header + nonce + AESGCM(keys.plaintext(version)).encrypt(nonce, data, header)


def unseal(keys, sealed):
    if len(sealed) < 4 + 12 + 16:
        raise InvalidTag
    header, nonce, ciphertext = sealed[:4], sealed[4:16], sealed[16:]
    return AESGCM(keys.plaintext(int.from_bytes(header, "big"))).decrypt(nonce, ciphertext, header)


def write(path, data):
    """All of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


def main(keys, command, *paths):
    match command, [pathlib.Path(path) for path in paths]:
        case "encrypt", [source, sealed]:
            write(sealed, seal(keys, source.read_bytes()))
        case "decrypt", [sealed, target]:
            write(target, unseal(keys, sealed.read_bytes()))
        case "renew", [sealed]:
            old = sealed.read_bytes()
            if int.from_bytes(old[:4], "big") != keys.current():
                write(sealed, seal(keys, unseal(keys, old)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    with DataKeys() as data_keys:
        try:
            main(data_keys, *sys.argv[1:] or ["help"])
        except InvalidTag:
            sys.exit("the data was changed, or encrypted under another data key")
        except (OSError, ValueError, BotoCoreError, ClientError) as error:
            sys.exit(str(error))
