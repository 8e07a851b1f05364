"""The KMS server with what it lacks. DryRun: the server carries the operation out, and what it generates is dropped; what it refuses, it
refuses as a dry run, too. ReEncrypt: Decrypt and Encrypt of the server itself, each in the account of its KMS key.

Answers and errors are those that AWS documents (KMS API reference, "ReEncrypt"); the plaintext stays in the server. Without IAM any
account may use the KMS keys of all accounts, by key ARN and alias ARN. `kms_with_iam.py` asks IAM first.

What the server does not check: the integrity of a blob. Which KMS key wrapped it stands at its beginning."""

import base64
import binascii
import contextlib
import json

from ministack.app import main
from ministack.core import responses
from ministack.services import kms

OPERATION = "ReEncrypt"
DRY_RUNS = ["GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPairWithoutPlaintext"]
handle_kms = kms.handle_request


@contextlib.contextmanager
def account_of(arn):
    """The server looks for a KMS key in the account and the Region of the request: here in the account of the ARN."""
    caller = responses.get_account_id()
    account = arn.split(":")[4] if arn.startswith("arn:aws:kms:") and arn.count(":") == 5 else caller
    responses.set_request_account_id(account)
    try:
        yield
    finally:
        responses.set_request_account_id(caller)


def keys_that_wrapped(blob):
    """The KMS key that wrapped a blob; of a multi-Region key all replicas. In whatever account."""
    try:
        key_id = base64.b64decode(blob)[:36].decode(errors="ignore")
    except binascii.Error:
        return []
    return [key for (_, _, each), key in kms._keys._data.items() if each == key_id]


def sides(body):
    """The request of each side. Without SourceKeyId the source is the KMS key that wrapped the blob."""
    request = json.loads(body or b"{}")
    blob = request.get("CiphertextBlob") or ""

    def side(name):
        return {
            "KeyId": request.get(f"{name}KeyId") or "",
            "EncryptionContext": request.get(f"{name}EncryptionContext") or {},
            "EncryptionAlgorithm": request.get(f"{name}EncryptionAlgorithm") or "SYMMETRIC_DEFAULT",
        }

    source = side("Source") | {"CiphertextBlob": blob}
    in_region = f":{responses.get_region()}:"
    found = [key["Arn"] for key in keys_that_wrapped(blob) if in_region in key["Arn"]]
    source["KeyId"] = source["KeyId"] or next(iter(found), "")
    return source, side("Destination")


def error(code, message=""):
    return responses.error_response_json(code, message, 400)


def flaw_of(key, request):
    """Why the KMS key of one side is refused, before anything is decrypted."""
    if not key:
        return error("NotFoundException", f"Key {request['KeyId']} not found")
    if key["KeyUsage"] != "ENCRYPT_DECRYPT":
        return error("InvalidKeyUsageException", f"{key['Arn']} key usage is {key['KeyUsage']}")
    return None


def reencrypt(body, account_of):
    source, destination = sides(body)
    if not source["KeyId"]:
        return error("InvalidCiphertextException")
    with account_of(source["KeyId"]):
        from_key = kms._resolve_key(source["KeyId"])
        if flaw := flaw_of(from_key, source):
            return flaw
        wrapped_by = keys_that_wrapped(source["CiphertextBlob"])
        if wrapped_by and from_key["KeyId"] != wrapped_by[0]["KeyId"]:
            return error("IncorrectKeyException", f"{from_key['Arn']} did not encrypt the ciphertext")
        status, _, decrypted = answer = kms._decrypt(source)
        if status != 200:
            return answer
    with account_of(destination["KeyId"]):
        to_key = kms._resolve_key(destination["KeyId"])
        if flaw := flaw_of(to_key, destination):
            return flaw
        plaintext = json.loads(decrypted)["Plaintext"]
        status, _, encrypted = answer = kms._encrypt(destination | {"Plaintext": plaintext})
        if status != 200:
            return answer
    found = {
        "CiphertextBlob": json.loads(encrypted)["CiphertextBlob"],
        "SourceKeyId": from_key["Arn"],
        "KeyId": to_key["Arn"],
        "SourceEncryptionAlgorithm": source["EncryptionAlgorithm"],
        "DestinationEncryptionAlgorithm": destination["EncryptionAlgorithm"],
    }
    for name, key in ("Source", from_key), ("Destination", to_key):
        if "_symmetric_key" in key:
            found[f"{name}KeyMaterialId"] = kms._key_material_id(key)
    return responses.json_response(found)


def without_dry_run(headers, body, answer):
    """The answer to a call, or what AWS answers to a dry run that would succeed (KMS developer guide, "Testing your permissions")."""
    operation = headers.get("x-amz-target", "").split(".")[-1]
    is_dry_run = operation in DRY_RUNS and json.loads(body or b"{}").get("DryRun") is True
    if is_dry_run and answer[0] == 200:
        message = "The request would have succeeded, but the DryRun option is set."
        return responses.error_response_json("DryRunOperationException", message, 412)
    return answer


async def with_reencrypt(method, path, headers, body, parameters):
    if headers.get("x-amz-target", "").split(".")[-1] == OPERATION:
        return reencrypt(body, account_of)
    return without_dry_run(headers, body, await handle_kms(method, path, headers, body, parameters))


if __name__ == "__main__":
    kms.handle_request = with_reencrypt
    main()
