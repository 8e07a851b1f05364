//! What `kubectl datakey public-key` prints, as other programs read it: OpenSSL, OpenSSH, a JWT library, and a library with
//! ML-KEM. The private halves are those that a workload unwraps.

use std::{path::PathBuf, process::Command};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use datakey::secret::sha256;
use serde_json::{Value, json};
use testbed::{commands, eventually, key_pairs::KeyPair, tools};

use crate::{
    harness::{SOON, TestNamespace},
    key_pairs::{missing, openssl, pairs},
    plugin::{User, text},
};

/// Verifies a JSON Web Token with the key of the set that its `kid` names. Prints its subject, or the name of the error.
const VERIFY: &str = "
import jwt, pathlib, sys
key_set, token, algorithm = sys.argv[1:]
try:
    key = jwt.PyJWKSet.from_json(pathlib.Path(key_set).read_text())[jwt.get_unverified_header(token)['kid']]
    print(jwt.decode(token, key, algorithms=[algorithm])['sub'])
except (KeyError, jwt.InvalidTokenError) as error:
    print(type(error).__name__)
";

/// Encapsulates to a public key in PEM, and decapsulates with a private key in DER. Prints whether both have the same secret, and
/// whether another private key has it.
const ENCAPSULATE: &str = "
import pathlib, sys
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_public_key
published, private, other = [pathlib.Path(path).read_bytes() for path in sys.argv[1:]]
secret, ciphertext = load_pem_public_key(published).encapsulate()
private, other = [load_der_private_key(key, password=None) for key in (private, other)]
print(len(secret), private.decapsulate(ciphertext) == secret, other.decapsulate(ciphertext) == secret)
";

/// Runs a script with the Python libraries of the samples.
async fn python(script: &str, arguments: &[&str]) -> String {
    let python = tools().join("consumers/bin/python");
    assert!(python.exists(), "the requirements of the samples are missing: run `make tools`");
    let mut command = tokio::process::Command::new(python);
    commands::run(command.arg("-c").arg(script).args(arguments)).await.unwrap().trim().to_owned()
}

/// Runs `ssh-keygen`. Returns what it prints.
fn ssh_keygen(arguments: &[&str]) -> String {
    let ended = Command::new("ssh-keygen").args(arguments).output();
    let ended = ended.unwrap_or_else(|error| missing("ssh-keygen", "openssh-client", &error));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

/// A file of this test with what a command of the plugin prints.
async fn printed(user: &User<'_>, test: &TestNamespace, file: &str, words: &[&str]) -> PathBuf {
    let path = test.plane.workdir().file(&format!("{}-{file}", test.namespace));
    std::fs::write(&path, user.ends(0, &[&["public-key"], words].concat()).await.out).unwrap();
    path
}

#[tokio::test]
async fn openssl_and_openssh_read_what_is_printed() {
    let test = TestNamespace::new("public-key-forms").await;
    let _operator = test.operator();
    let user = User::of(&test);
    for (spec, ssh) in [
        ("RSA_2048", Some("2048 SHA256: (RSA)")),
        ("ECC_NIST_P256", Some("256 SHA256: (ECDSA)")),
        ("ECC_NIST_P384", Some("384 SHA256: (ECDSA)")),
        ("ECC_NIST_P521", Some("521 SHA256: (ECDSA)")),
        ("ECC_NIST_EDWARDS25519", Some("256 SHA256: (ED25519)")),
        ("ECC_SECG_P256K1", None),
    ] {
        let name = spec.to_lowercase().replace('_', "-");
        pairs(&test).issue(&name, &json!({ "keyPairSpec": spec })).await;
        let private = test.decrypt(&test.data(&name).await, "").await;
        let derived = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &private);

        let pem = user.ends(0, &["public-key", &name]).await.out;
        assert_eq!(openssl(&["pkey", "-pubin", "-outform", "DER"], &pem), derived, "{spec}");
        let der = user.ends(0, &["public-key", &name, "-o", "der"]).await.out;
        assert_eq!(openssl(&["pkey", "-pubin", "-inform", "DER", "-outform", "DER"], &der), derived, "{spec}");

        let Some(ssh) = ssh else {
            let refused = user.ends(64, &["public-key", &name, "-o", "ssh"]).await.err;
            assert!(refused.ends_with("use one of -o pem, der, jwk, jwks, configmap\n"), "{refused}");
            continue;
        };
        let file = printed(&user, &test, &format!("{name}.pub"), &[&name, "-o", "ssh"]).await;
        let path = file.display().to_string();
        let shown = ssh_keygen(&["-l", "-f", &path]);
        let words: Vec<_> = shown.split_whitespace().collect();
        assert_eq!(format!("{} SHA256: {}", words[0], words[3]), ssh, "{shown}");
        assert_eq!(words[2], format!("{}/{name}:v1", test.namespace));
        // OpenSSH reads this form of Ed25519 keys, but does not make it of PEM.
        if spec != "ECC_NIST_EDWARDS25519" {
            let pem = printed(&user, &test, &format!("{name}.pem"), &[&name]).await;
            let made = ssh_keygen(&["-i", "-m", "PKCS8", "-f", &pem.display().to_string()]);
            let line = std::fs::read_to_string(&file).unwrap();
            assert!(line.starts_with(&format!("{} ", made.trim())), "{spec}: {made}");
        }
    }
}

/// A token with this header and subject, signed with a private key in PKCS#8.
fn token(algorithm: &str, kid: &str, subject: &str, private: &[u8]) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({ "alg": algorithm, "kid": kid }).to_string();
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(json!({ "sub": subject }).to_string().as_bytes()));
    let random = SystemRandom::new();
    let signature = match algorithm {
        "ES256" => {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private).unwrap();
            key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec()
        }
        "EdDSA" => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private).unwrap();
            key.sign(signed.as_bytes()).as_ref().to_vec()
        }
        _ => {
            let key = RsaKeyPair::from_pkcs8(private).unwrap();
            assert_eq!(key.public_modulus_len(), KeySize::Rsa2048.len());
            let mut signature = vec![0; key.public_modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
            signature
        }
    };
    format!("{signed}.{}", encode(&signature))
}

#[tokio::test]
async fn jwt_library_verifies_tokens_against_the_key_set() {
    let test = TestNamespace::new("public-key-jwks").await;
    let _operator = test.operator();
    let user = User::of(&test);
    for (spec, algorithm) in [("ECC_NIST_P256", "ES256"), ("ECC_NIST_EDWARDS25519", "EdDSA"), ("RSA_2048", "RS256")] {
        let name = algorithm.to_lowercase();
        pairs(&test).issue(&name, &json!({ "keyPairSpec": spec })).await;
        pairs(&test).patch(&name, &json!({ "spec": { "version": 2 } })).await;
        pairs(&test).ready(&name).await;
        let data = test.data(&name).await;
        let all = printed(&user, &test, &format!("{name}-all"), &[&name, "-o", "jwks"]).await;
        let last = printed(&user, &test, &format!("{name}-last"), &[&name, "-o", "jwks", "--versions", "2"]).await;
        let verify = async |key_set: &PathBuf, token: &str| {
            python(VERIFY, &[&key_set.display().to_string(), token, algorithm]).await
        };
        let mut kids = Vec::new();
        for version in ["1", "2"] {
            let jwk = user.ends(0, &["public-key", &name, "-o", "jwk", "--versions", version]).await.out;
            let jwk: Value = serde_json::from_slice(&jwk).unwrap();
            let kid = jwk["kid"].as_str().unwrap().to_owned();
            let private = test.decrypt(&data, &format!(".v{version}")).await;
            let signed = token(algorithm, &kid, "Ada", &private);
            assert_eq!(verify(&all, &signed).await, "Ada", "{spec} {version}");
            let expected = if version == "2" { "Ada" } else { "KeyError" };
            assert_eq!(verify(&last, &signed).await, expected, "only that key is in this set");
            kids.push((kid, private));
        }
        let forged = token(algorithm, &kids[1].0, "Eve", &kids[0].1);
        assert_eq!(verify(&all, &forged).await, "InvalidSignatureError", "{spec}");
    }
}

/// On AWS this was not seen: the test's proxy issues these key pairs, with the crate ml-kem. OpenSSL, which encapsulates here, is
/// another implementation.
#[tokio::test]
async fn library_with_ml_kem_encapsulates_to_the_public_key() {
    let test = TestNamespace::new("public-key-ml-kem").await;
    let _operator = test.operator();
    let user = User::of(&test);
    for spec in ["ML_KEM_768", "ML_KEM_1024"] {
        let name = spec.to_lowercase().replace('_', "-");
        pairs(&test).issue(&name, &json!({ "keyPairSpec": spec })).await;
        pairs(&test).patch(&name, &json!({ "spec": { "version": 2 } })).await;
        pairs(&test).ready(&name).await;
        let data = test.data(&name).await;
        let published = printed(&user, &test, &format!("{name}.pem"), &[&name, "--versions", "1"]).await;
        let mut files = vec![published.display().to_string()];
        for version in [".v1", ".v2"] {
            let file = test.plane.workdir().file(&format!("{name}{version}.der"));
            std::fs::write(&file, test.decrypt(&data, version).await).unwrap();
            files.push(file.display().to_string());
        }
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        assert_eq!(python(ENCAPSULATE, &files).await, "32 True False", "{spec}");
        let refused = user.ends(64, &["public-key", &name, "-o", "jwks", "--versions", "all"]).await.err;
        assert!(refused.ends_with("has no JSON Web Key form: use one of -o pem, der, configmap\n"), "{refused}");
    }
    // Python's library has no ML-KEM-512.
    pairs(&test).issue("small", &json!({ "keyPairSpec": "ML_KEM_512" })).await;
    pairs(&test).issue("other", &json!({ "keyPairSpec": "ML_KEM_512" })).await;
    let published = user.ends(0, &["public-key", "small", "-o", "der"]).await.out;
    for (name, shares) in [("small", true), ("other", false)] {
        let private = test.decrypt(&test.data(name).await, "").await;
        assert_eq!(KeyPair::shares_a_secret(&published, &private), shares, "{name}");
    }
}

#[tokio::test]
async fn public_keys_are_read_from_the_record_alone() {
    let test = TestNamespace::new("public-key-record").await;
    let operator = test.operator();
    let pair = pairs(&test).issue("tokens", &json!({})).await;
    pairs(&test).patch("tokens", &json!({ "spec": { "version": 2 } })).await;
    pairs(&test).ready("tokens").await;
    let data = test.data("tokens").await;
    // A user of the role `view` may not read Secrets, and has no AWS credentials.
    let kubeconfig = test.kubeconfig_with_role("view").await;
    let viewer = User::of(&test).with("KUBECONFIG", &kubeconfig.display().to_string());
    eventually(SOON, "the rights are there", async || viewer.runs(&["public-key", "tokens"]).await.code == 0).await;
    let may_not = viewer.types(&["get", "secret", "tokens", "-n", &test.namespace]).await;
    assert!(may_not.err.contains("forbidden"), "{}", may_not.err);

    drop(operator);
    test.edit_secret("tokens", &json!({ "data": { "publicKey": "eA==", "publicKey.v1": "eA==", "version": "MQ==" } }))
        .await;
    let operations = test.proxy.operations();
    assert_eq!(viewer.ends(0, &["public-key", "tokens"]).await.out, data["publicKey.v2"]);
    assert_eq!(viewer.ends(0, &["public-key", "tokens", "--versions", "1"]).await.out, data["publicKey.v1"]);
    let both = viewer.ends(0, &["public-key", "tokens", "--versions", "2,1"]).await.out;
    assert_eq!(both, [&data["publicKey.v1"][..], &data["publicKey.v2"]].concat());
    let der = viewer.ends(0, &["public-key", "tokens", "-o", "der", "--versions", "1"]).await.out;
    assert_eq!(Some(sha256(&der)), pair.status.unwrap().public_key_sha256);

    // The API server accepts the ConfigMap as it is printed.
    let map = printed(&viewer, &test, "map.yaml", &["tokens", "-o", "configmap"]).await;
    test.plane.kubectl(&["create", "-f", &map.display().to_string(), "--validate=strict"]).await.unwrap();
    let entry = |entry: &str| format!("jsonpath={{.data['{}']}}", entry.replace('.', r"\."));
    for name in ["publicKey", "publicKey.v1", "publicKey.v2", "keyPairSpec", "keyPairSpec.v1", "version"] {
        let get = ["get", "configmap", "tokens-public-keys", "-n", &test.namespace, "-o", &entry(name)];
        assert_eq!(test.plane.kubectl(&get).await.unwrap().as_bytes(), data[name], "{name}");
    }

    for (words, code, message) in [
        (&["public-key", "tokens", "--versions", "7"][..], 64, "has no version 7: it has 1, 2"),
        (&["public-key", "tokens", "-o", "jwk", "--versions", "all"], 64, "name one by --versions, or use -o jwks"),
        (&["public-key", "none"], 1, "there is no DataKeyPair none in namespace public-key-record"),
        (&["public-key", "../datakeys/x"], 64, "write datakey/NAME or datakeypair/NAME"),
        (&["public-key", "datakeypair/.."], 64, "no object can have such a name"),
    ] {
        let ended = viewer.ends(code, words).await;
        assert!(ended.err.contains(message) && ended.out.is_empty(), "{words:?}: {}", ended.err);
    }
    let file = test.plane.workdir().file("public-key-record.pub");
    let to = ["public-key", "tokens", "-o", "ssh", "--to", &file.display().to_string()];
    assert_eq!(text(&viewer.ends(0, &to).await), "");
    assert!(std::fs::read_to_string(&file).unwrap().ends_with(" public-key-record/tokens:v2\n"));
    assert!(viewer.ends(1, &to).await.err.contains("is there already"));
    assert_eq!(test.proxy.operations(), operations, "KMS is not asked");
}
