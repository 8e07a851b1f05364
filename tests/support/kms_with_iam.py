"""The KMS server with IAM enforced, and with what it lacks for that. Each part computes what AWS documents; it is the server that
evaluates the policies.

* the condition keys kms:EncryptionContext:NAME, kms:EncryptionContextKeys and kms:DataKeyPairSpec, from each request
* policy variables such as ${aws:PrincipalTag/NAME}, in the values of conditions
* sts:TagSession in the policies of a caller that passes session tags; the server asks the trust policy of the role only
* policies for a KMS key also where a request names an alias of it
* no sts:ExternalId in the trust policy for sts:TagSession: it is a condition key of sts:AssumeRole only
* KMS keys of other accounts, by key ARN and alias ARN. The server looks for a KMS key only in the account of the caller.
* ReEncrypt, by kms:ReEncryptFrom for the source and kms:ReEncryptTo for the destination: each with the encryption context of its
  side, and with kms:ReEncryptOnSameKey

Not modeled: the root of an account that calls a KMS key of another one (it finds none), transitive tags, and roles whose trust
policy alone lets a caller of the same account assume them."""

import contextvars
import dataclasses
import json
import re

import kms_with_reencrypt
from kms_with_reencrypt import OPERATION, reencrypt, sides, without_dry_run
from ministack.app import main
from ministack.core import iam_actions, iam_evaluator, responses
from ministack.services import kms

# The operations that AWS allows across accounts (KMS developer guide, "Allowing users in other accounts to use a KMS key"), of those
# that tests call.
ACROSS_ACCOUNTS = {
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
}

# The permission of ReEncrypt that the caller lacks, for the error message.
denied_permission = contextvars.ContextVar("denied_permission", default="")

access_denied = iam_actions.access_denied_response
conditions = iam_actions.request_tag_context
conditions_met = iam_evaluator._conditions_met
enforce = iam_evaluator.enforce
trusts = iam_evaluator.evaluate_trust_policy
handle_kms = kms.handle_request
key_policy = kms.key_policy_for_arn
resource_arn = iam_actions.extract_resource_arn


def with_conditions_of_kms(service, action, body, parameters):
    found = conditions(service, action, body, parameters)
    if service == "kms":
        request = json.loads(body or b"{}")
        found |= of_encryption_context(request)
        if "GenerateDataKeyPair" in action:
            found["kms:DataKeyPairSpec"] = request.get("KeyPairSpec", "")
        if action == f"kms:{OPERATION}":
            found["sides"] = permissions(body)
    return found


def of_encryption_context(request):
    pairs = request.get("EncryptionContext") or {}
    found = {f"kms:EncryptionContext:{name}": value for name, value in pairs.items()}
    if pairs:
        found["kms:EncryptionContextKeys"] = list(pairs)
    return found


def permissions(body):
    """What ReEncrypt needs: a permission, on a KMS key, under condition keys (KMS developer guide, "kms:ReEncryptOnSameKey")."""
    requests = sides(body)
    scope = (responses.get_region(), responses.get_account_id())
    arns = [with_key_of_alias("kms", "POST", "/", {}, json.dumps(request).encode(), {}, *scope) for request in requests]
    on_same_key = {"kms:ReEncryptOnSameKey": str(arns[0] == arns[1]).lower()}
    names = ("kms:ReEncryptFrom", "kms:ReEncryptTo")
    return [(name, arn, of_encryption_context(request) | on_same_key) for name, arn, request in zip(names, arns, requests)]


def with_variables(block, context):
    """A policy variable without a value equals nothing (IAM user guide, "Policy variables with no value")."""

    def expand(values):
        for value in values if isinstance(values, list) else [values]:
            names = re.findall(r"\$\{([^}]+)\}", value) if isinstance(value, str) else []
            found = {name: iam_evaluator._resolve_condition_key(name, context) for name in names}
            if all(isinstance(text, str) for text in found.values()):
                for name, text in found.items():
                    value = value.replace("${" + name + "}", text)
                yield value

    expanded = {
        operator: {key: list(expand(values)) for key, values in pairs.items()} for operator, pairs in (block or {}).items()
    }
    return conditions_met(expanded, context)


def with_tag_session(access_key, action, service, region, resource_arn="*", service_context=None):
    denied = enforce(access_key, action, service, region, resource_arn, service_context)
    if not denied and action == "sts:AssumeRole" and (service_context or {}).get("aws:TagKeys"):
        denied = enforce(access_key, "sts:TagSession", service, region, resource_arn, service_context)
    return denied


def with_both_sides(access_key, action, service, region, resource_arn="*", service_context=None):
    if action != f"kms:{OPERATION}":
        return with_tag_session(access_key, action, service, region, resource_arn, service_context)
    for permission, arn, context in service_context["sides"]:
        if denied := enforce(access_key, permission, service, region, arn, context):
            denied_permission.set(permission)
            return denied
    return None


def with_denied_permission(service, action, *arguments, **named):
    permission = denied_permission.get() if action == f"kms:{OPERATION}" else ""
    return access_denied(service, permission or action, *arguments, **named)


def trusts_by_own_keys(document, principal, context):
    if context.action == "sts:TagSession":
        own = {key: value for key, value in context.service_context.items() if key != "sts:externalid"}
        context = dataclasses.replace(context, service_context=own)
    return trusts(document, principal, context)


def account_of(arn):
    """The root of an account calls as that account."""
    root = f"arn:aws:iam::{responses.get_account_id()}:root"
    return kms_with_reencrypt.account_of("" if iam_evaluator.caller_arn() == root else arn)


def with_key_of_alias(service, *request):
    arn = resource_arn(service, *request)
    if service != "kms":
        return arn
    with account_of(arn):
        key = kms._resolve_key(arn)
    return key["Arn"] if key else arn


def with_owner(arn):
    """The key policy and the account of the KMS key. If that is not the caller's, the server wants both sides to allow a call."""
    with account_of(arn):
        return key_policy(arn)


async def with_keys_of_accounts(method, path, headers, body, parameters):
    operation = headers.get("x-amz-target", "").split(".")[-1]
    if operation == OPERATION:
        return reencrypt(body, account_of)
    arn = str(json.loads(body or b"{}").get("KeyId") or "") if operation in ACROSS_ACCOUNTS else ""
    with account_of(arn):
        return without_dry_run(headers, body, await handle_kms(method, path, headers, body, parameters))


iam_actions.access_denied_response = with_denied_permission
iam_actions.request_tag_context = with_conditions_of_kms
iam_actions.extract_resource_arn = with_key_of_alias
iam_evaluator._conditions_met = with_variables
iam_evaluator.enforce = with_both_sides
iam_evaluator.evaluate_trust_policy = trusts_by_own_keys
kms.handle_request = with_keys_of_accounts
kms.key_policy_for_arn = with_owner
main()
