"""Calls AWS as the root of accounts, in order: [[ACCOUNT, SERVICE, METHOD, ARGUMENTS], ...] to the answers, in JSON."""

import functools
import json
import sys

import botocore.session

session = botocore.session.get_session()


@functools.cache
def client(account, service):
    return session.create_client(service, aws_access_key_id=account, aws_secret_access_key="test")


def call(account, service, method, arguments):
    return getattr(client(account, service), method)(**arguments)


print(json.dumps([call(*each) for each in json.loads(sys.argv[1])], default=str))
