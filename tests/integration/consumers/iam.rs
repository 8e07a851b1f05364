//! The policies of the documentation, as IAM evaluates them.

use std::fs;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::{
    Client,
    config::{Credentials, SharedCredentialsProvider},
    error::ProvideErrorMetadata,
    types::{DataKeyPairSpec, DataKeySpec},
};
use serde_json::{Value, json};
use testbed::{
    commands::{self, Ended},
    kms::{self, Key, KmsServer},
    repository,
};
use tokio::process::Command;

use super::{INVOICES, Mount, ORDERS, assert_failed, folder};
use crate::harness::{TestNamespace, text};

/// The ARN of the KMS key in the policies.
const EXAMPLE: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

const DENIED: &str = "AccessDeniedException";

/// A KMS server that asks IAM, with a KMS key.
struct Account {
    server: KmsServer,
    key: Key,
}

/// An identity that assumed a role.
struct Role {
    credentials: Credentials,
    client: Client,
}

// === impl Account ===

impl Account {
    async fn new(test: &TestNamespace) -> Self {
        let server = KmsServer::start_with_iam(test.plane.workdir()).await;
        let key = server.key().await;
        Self { server, key }
    }

    /// A policy of the documentation, for this account's KMS key.
    fn policy(&self, file: &str) -> Value {
        let policy = fs::read_to_string(folder("iam").join(file)).unwrap();
        serde_json::from_str(&policy.replace(EXAMPLE, &self.key.arn)).unwrap()
    }

    /// Creates roles with these inline policies, and assumes them.
    async fn roles<const N: usize>(&self, roles: [(&str, Value); N]) -> [Role; N] {
        let url = format!("http://{}", self.server.address());
        let mut command = Command::new(testbed::tools().join("consumers/bin/python"));
        command.envs(kms::environment(&url)).envs([("AWS_ENDPOINT_URL", &*url), ("AWS_DEFAULT_REGION", kms::REGION)]);
        let names = roles.each_ref().map(|(name, _)| (*name).to_owned());
        let policies: Value = roles.into_iter().map(|(name, policy)| (name.to_owned(), policy)).collect();
        command.arg(repository().join("tests/support/iam_roles.py")).arg(policies.to_string());
        let assumed: Value = serde_json::from_str(&commands::run(&mut command).await.unwrap()).unwrap();
        names.map(|name| {
            let found = |field: &str| assumed[&name][field].as_str().unwrap().to_owned();
            let token = Some(found("SessionToken"));
            let credentials = Credentials::new(found("AccessKeyId"), found("SecretAccessKey"), token, None, "test");
            Role { client: self.server.client_with(kms::REGION, credentials.clone()), credentials }
        })
    }

    /// The operator issues for orders only, the workload unwraps orders only, and neither does the other's part.
    async fn roles_do_their_part(&self, test: &TestNamespace, operator: &Role, workload: &Role) {
        let url = format!("http://{}", self.server.address());
        let _operator = test.operator_with(
            &[],
            &[
                ("AWS_ENDPOINT_URL_KMS", &url),
                ("AWS_ACCESS_KEY_ID", operator.credentials.access_key_id()),
                ("AWS_SECRET_ACCESS_KEY", operator.credentials.secret_access_key()),
                ("AWS_SESSION_TOKEN", operator.credentials.session_token().unwrap()),
            ],
        );
        let spec = |purpose: &str| json!({ "keyId": self.key.arn, "encryptionContext": { "purpose": purpose } });
        test.issue(ORDERS, &spec(ORDERS)).await;
        test.create(INVOICES, &spec(INVOICES)).await;
        test.failed(INVOICES, "AccessDenied").await;

        let data = test.data(ORDERS).await;
        let keys = Mount::new(&test.plane.workdir().file(&format!("{}-keys", test.namespace)));
        keys.show(&data);
        let sample = |role: &Role| {
            let settings = SdkConfig::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(kms::REGION))
                .credentials_provider(SharedCredentialsProvider::new(role.credentials.clone()))
                .endpoint_url(&url)
                .build();
            orders::DataKeys::new(settings, keys.path(), vec![self.key.arn.clone()])
        };
        sample(workload).seal(b"data".to_vec()).await.unwrap();
        let refused = sample(operator).seal(b"data".to_vec()).await;
        assert_failed(refused.map_err(|error| format!("{error:?}")), DENIED);
        // The program runs on Linux only.
        let roles = [(workload, 0), (operator, 3)];
        for (role, code) in roles.into_iter().filter(|_| cfg!(target_os = "linux")) {
            let ended = self.unwrap_as(role, &keys).await;
            assert_eq!(ended.code, code, "{ended:?}");
        }

        // IAM refuses before KMS looks at the data key: else the code would be InvalidCiphertextException.
        // It ignores the case of a pair's name, as that is part of a condition key's name; KMS does not.
        let cases = [
            (vec![], DENIED),
            (vec![("purpose", INVOICES)], DENIED),
            (vec![("purpose", "Orders")], DENIED),
            (vec![("Purpose", ORDERS)], "InvalidCiphertextException"),
        ];
        for (wrong, code) in cases {
            let refused = unwrap(&workload.client, &text(&data, "keyId"), &data["ciphertextBlob"], &wrong).await;
            assert_eq!(refused, Err(code.to_owned()), "{wrong:?}");
        }
        let issue = workload.client.generate_data_key_without_plaintext().key_id(&self.key.arn);
        let issue = issue.key_spec(DataKeySpec::Aes256).encryption_context("purpose", ORDERS);
        assert_eq!(issue.send().await.unwrap_err().code(), Some(DENIED));
        // No role may make the call that answers with the plaintext.
        for role in [operator, workload] {
            let issue = role.client.generate_data_key().key_id(&self.key.arn);
            let issue = issue.key_spec(DataKeySpec::Aes256).encryption_context("purpose", ORDERS);
            assert_eq!(issue.send().await.unwrap_err().code(), Some(DENIED));
        }
    }
}

// === impl Account ===

impl Account {
    /// Runs `datakey-unwrap` under a role.
    async fn unwrap_as(&self, role: &Role, keys: &Mount) -> Ended {
        let mut command = Command::new(testbed::unwrap());
        command.env_clear().envs(kms::environment(&format!("http://{}", self.server.address()))).envs([
            ("AWS_ACCESS_KEY_ID", role.credentials.access_key_id()),
            ("AWS_SECRET_ACCESS_KEY", role.credentials.secret_access_key()),
            ("AWS_SESSION_TOKEN", role.credentials.session_token().unwrap()),
        ]);
        let trust = format!("{} purpose={ORDERS}", self.key.arn);
        command.args(["check", "--key-spec=AES_256", "--trust", &trust, "--from"]).arg(keys.path());
        commands::end_of(command).await
    }
}

async fn unwrap(client: &Client, key_arn: &str, blob: &[u8], context: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let context: Vec<_> = context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    kms::unwrap_key(client, key_arn, blob, context.iter().map(|(name, value)| (name, value))).await
}

#[tokio::test]
async fn role_policies_allow_each_part_in_its_own_context_only() {
    let test = TestNamespace::new("iam-roles").await;
    let account = Account::new(&test).await;
    let policies = [("datakey-operator", account.policy("operator.json")), ("orders", account.policy("workload.json"))];
    let [operator, workload] = account.roles(policies).await;
    account.roles_do_their_part(&test, &operator, &workload).await;
}

#[tokio::test]
async fn key_policy_alone_allows_both_and_shuts_out_administrators() {
    let test = TestNamespace::new("iam-key").await;
    let account = Account::new(&test).await;
    let policy = account.policy("key-policy.json").to_string();
    account.server.client().put_key_policy().key_id(&account.key.id).policy(policy).send().await.unwrap();
    let everything = json!({ "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }] });
    let policies = [("datakey-operator", Value::Null), ("orders", Value::Null), ("administrator", everything)];
    let [operator, workload, administrator] = account.roles(policies).await;
    account.roles_do_their_part(&test, &operator, &workload).await;

    let data = test.data(ORDERS).await;
    let context = [("purpose", ORDERS)];
    let refused = unwrap(&administrator.client, &text(&data, "keyId"), &data["ciphertextBlob"], &context).await;
    assert_eq!(refused, Err(DENIED.to_owned()));
    administrator.client.describe_key().key_id(&account.key.id).send().await.unwrap();
}

#[tokio::test]
async fn policy_allows_key_pairs_of_the_named_kinds_only() {
    let test = TestNamespace::new("iam-key-pairs").await;
    let account = Account::new(&test).await;
    let statement = json!({
        "Effect": "Allow",
        "Action": "kms:GenerateDataKeyPairWithoutPlaintext",
        "Resource": account.key.arn,
        "Condition": { "StringEquals": { "kms:DataKeyPairSpec": ["ECC_NIST_P256", "ECC_NIST_EDWARDS25519"] } },
    });
    let [role] = account.roles([("issuer", json!({ "Version": "2012-10-17", "Statement": [statement] }))]).await;
    for (spec, refused) in [
        (DataKeyPairSpec::EccNistP256, None),
        (DataKeyPairSpec::EccNistEdwards25519, None),
        (DataKeyPairSpec::EccNistP384, Some(DENIED)),
        (DataKeyPairSpec::Rsa2048, Some(DENIED)),
    ] {
        let call = role.client.generate_data_key_pair_without_plaintext().key_id(&account.key.arn);
        let answer = call.key_pair_spec(spec.clone()).send().await;
        assert_eq!(answer.err().as_ref().and_then(ProvideErrorMetadata::code), refused, "{spec}");
    }
    let call = role.client.generate_data_key_pair().key_id(&account.key.arn);
    let call = call.key_pair_spec(DataKeyPairSpec::EccNistP256).send().await;
    assert_eq!(call.unwrap_err().code(), Some(DENIED), "the operation whose answer has the private key");
}
