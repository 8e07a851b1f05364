"""Makes IAM roles and assumes them, as the account's root: {"NAME": POLICY or null, ...} to their credentials, in JSON."""

import json
import sys

import boto3

iam, sts = boto3.client("iam"), boto3.client("sts")
account = sts.get_caller_identity()["Account"]
trust = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    ],
}
credentials = {}
for name, policy in json.loads(sys.argv[1]).items():
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    if policy:
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
    credentials[name] = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
print(json.dumps(credentials, default=str))
