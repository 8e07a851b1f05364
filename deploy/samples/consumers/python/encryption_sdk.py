"""The same with the AWS Encryption SDK: its raw AES keyring wraps the SDK's own key for each message by our data key.

    encryption_sdk.py encrypt FILE MESSAGE   under the current version
    encryption_sdk.py decrypt MESSAGE FILE   under whichever version the message names
"""

import pathlib
import sys

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    AesWrappingAlg,
    CreateMultiKeyringInput,
    CreateRawAesKeyringInput,
)
from botocore.exceptions import BotoCoreError, ClientError

from data_keys import ENCRYPTION_CONTEXT, DataKeys

CLIENT = aws_encryption_sdk.EncryptionSDKClient()
PROVIDERS = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())


def keyring(keys, version):
    """Each message contains its namespace and name, and so the version that it was encrypted under."""
    return PROVIDERS.create_raw_aes_keyring(
        input=CreateRawAesKeyringInput(
            key_namespace="orders",
            key_name=f"v{version}",
            # A keyring needs bytes, which cannot be overwritten: they end with the process.
            wrapping_key=bytes(keys.plaintext(version)),
            wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )


def encrypt(keys, data):
    message, _ = CLIENT.encrypt(
        source=data, keyring=keyring(keys, keys.current()), encryption_context=ENCRYPTION_CONTEXT
    )
    return message


def decrypt(keys, message):
    """A multi-keyring without a generator decrypts only. It unwraps all versions, with one KMS call for each."""
    all_versions = CreateMultiKeyringInput(child_keyrings=[keyring(keys, version) for version in keys.versions()])
    data, _ = CLIENT.decrypt(
        source=message,
        keyring=PROVIDERS.create_multi_keyring(input=all_versions),
        encryption_context=ENCRYPTION_CONTEXT,
    )
    return data


if __name__ == "__main__":
    with DataKeys() as data_keys:
        try:
            match sys.argv[1:]:
                case ["encrypt", source, target]:
                    pathlib.Path(target).write_bytes(encrypt(data_keys, pathlib.Path(source).read_bytes()))
                case ["decrypt", source, target]:
                    pathlib.Path(target).write_bytes(decrypt(data_keys, pathlib.Path(source).read_bytes()))
                case _:
                    sys.exit(__doc__)
        except (
            OSError,
            ValueError,
            BotoCoreError,
            ClientError,
            aws_encryption_sdk.exceptions.AWSEncryptionSDKClientError,
        ) as error:
            sys.exit(str(error))
