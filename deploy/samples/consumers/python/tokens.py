"""Issues JSON Web Tokens with ES256, and verifies them with the key set that is published for them.

    tokens.py issue SUBJECT          a token for an hour, signed with the version SIGNING_VERSION
    tokens.py verify KEY_SET TOKEN   prints the subject

KEY_SET is a file with what `kubectl datakey public-key tokens -o jwks` prints.
"""

import base64
import hashlib
import json
import os
import pathlib
import sys
import time

import jwt
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from key_pairs import KeyPairs

# Set here, not read from the Secret: a user who changes the Secret cannot make the workload unwrap another key pair.
ENCRYPTION_CONTEXT = {"purpose": "tokens"}
ISSUER = "https://shop.example.com"
AUDIENCE = "orders"


def is_p256(private_key):
    return isinstance(private_key, ec.EllipticCurvePrivateKey) and isinstance(private_key.curve, ec.SECP256R1)


def thumbprint(public_key):
    """The key ID in the published set (RFC 7638)."""
    jwk = ECAlgorithm.to_jwk(public_key, as_dict=True)
    members = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()


def issue(pairs, version, subject):
    private_key = pairs.private_key(version)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 3600}
    headers = {"kid": thumbprint(private_key.public_key())}
    return jwt.encode(claims, private_key, algorithm="ES256", headers=headers)


def verify(key_set, token):
    key = jwt.PyJWKSet.from_json(key_set)[jwt.get_unverified_header(token)["kid"]]
    # The algorithm is fixed here: a token must not choose it.
    claims = jwt.decode(
        token, key, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE, options={"require": ["exp", "sub"]}
    )
    return claims["sub"]


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["issue", name]:
                # A setting, not the current version of the Secret: verifiers need the public key of a version before it signs.
                print(issue(KeyPairs(ENCRYPTION_CONTEXT, is_p256), int(os.environ["SIGNING_VERSION"]), name))
            case ["verify", path, signed]:
                print(verify(pathlib.Path(path).read_text(), signed))
            case _:
                sys.exit(__doc__)
    except KeyError as error:
        sys.exit(f"there is no {error}")
    except (OSError, ValueError, BotoCoreError, ClientError, jwt.PyJWTError) as error:
        sys.exit(str(error))
