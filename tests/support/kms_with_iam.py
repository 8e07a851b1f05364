"""The KMS server with IAM enforced, and with what it lacks for that: the condition keys kms:EncryptionContext:NAME and
kms:EncryptionContextKeys and kms:DataKeyPairSpec, from each request, as AWS documents them. It is the server that evaluates the policies."""

import json

from ministack.app import main
from ministack.core import iam_actions

conditions = iam_actions.request_tag_context


def with_conditions_of_kms(service, action, body, parameters):
    found = conditions(service, action, body, parameters)
    if service == "kms":
        request = json.loads(body or b"{}")
        pairs = request.get("EncryptionContext") or {}
        found |= {f"kms:EncryptionContext:{name}": value for name, value in pairs.items()}
        if pairs:
            found["kms:EncryptionContextKeys"] = list(pairs)
        if "GenerateDataKeyPair" in action:
            found["kms:DataKeyPairSpec"] = request.get("KeyPairSpec", "")
    return found


iam_actions.request_tag_context = with_conditions_of_kms
main()
