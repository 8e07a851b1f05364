//! The same under IAM: the server evaluates the policies of both sides.

use aws_sdk_kms::{Client, error::ProvideErrorMetadata, primitives::Blob};
use serde_json::{Value, json};
use testbed::{
    iam::{self, Call},
    kms::{self, Key, KmsServer},
    process::Workdir,
    proxy::{KmsProxy, REENCRYPT},
};

use super::{DataKey, OTHER_ACCOUNT, issue, rewrap, unwrap};

const ROLE: &str = "mover";
const DENIED: &str = "AccessDeniedException";

/// A role of one account, and a data key that a KMS key of this account wraps.
struct Mover {
    _workdir: Workdir,
    server: KmsServer,
    /// A client with a session of the role, which has no policy at first.
    client: Client,
    /// The KMS key of the account of the role.
    from: Key,
    /// A KMS key of the other account. Its policy allows the role `kms:ReEncryptTo`.
    to: Key,
    data_key: DataKey,
}

fn call(service: &'static str, method: &'static str, arguments: Value) -> Call {
    Call { account: kms::ACCOUNT.to_owned(), service, method, arguments }
}

fn policy(statements: &[Value]) -> String {
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

fn role_arn() -> String {
    format!("arn:aws:iam::{}:role/{ROLE}", kms::ACCOUNT)
}

/// A statement of an identity policy.
fn allow(action: &str, condition: &Value) -> Value {
    json!({ "Effect": "Allow", "Action": action, "Resource": "*", "Condition": condition })
}

/// A statement of a key policy for the role.
fn for_role(effect: &str, action: &str) -> Value {
    json!({ "Effect": effect, "Principal": { "AWS": role_arn() }, "Action": action, "Resource": "*" })
}

// === impl Mover ===

impl Mover {
    async fn new() -> Self {
        let workdir = Workdir::new("reencrypt-iam");
        let server = KmsServer::start_with_iam(&workdir).await;
        let (from, to) = (server.key().await, kms::create_key(&server.client_in(kms::REGION, OTHER_ACCOUNT)).await);
        let principal = json!({ "AWS": format!("arn:aws:iam::{}:root", kms::ACCOUNT) });
        let trust = json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
        let role = json!({ "RoleName": ROLE, "AssumeRolePolicyDocument": policy(&[trust]) });
        let session = json!({ "RoleArn": role_arn(), "RoleSessionName": ROLE });
        let calls = [call("iam", "create_role", role), call("sts", "assume_role", session)];
        let answers = server.call_as_root(&calls).await;
        let client = server.client_with(kms::REGION, iam::credentials(&answers[1]["Credentials"]));
        let data_key = issue(&server.client(), &from.id, "orders").await;
        let mover = Self { _workdir: workdir, server, client, from, to, data_key };
        mover.put_key_policy(OTHER_ACCOUNT, &[for_role("Allow", "kms:ReEncryptTo")]).await;
        mover
    }

    /// Sets the own policy of the role.
    async fn put_role_policy(&self, statements: &[Value]) {
        let arguments = json!({ "RoleName": ROLE, "PolicyName": "move", "PolicyDocument": policy(statements) });
        self.server.call_as_root(&[call("iam", "put_role_policy", arguments)]).await;
    }

    /// Sets the policy of the KMS key of an account: besides these statements, that account decides.
    async fn put_key_policy(&self, account: &str, more: &[Value]) {
        let root = json!({ "AWS": format!("arn:aws:iam::{account}:root") });
        let mut statements = vec![json!({ "Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*" })];
        statements.extend_from_slice(more);
        let key = if account == kms::ACCOUNT { &self.from } else { &self.to };
        let put = self.server.client_in(kms::REGION, account).put_key_policy();
        put.key_id(&key.id).policy(policy(&statements)).send().await.unwrap();
    }

    /// Moves the data key to the other account, for this purpose; the code of the refusal.
    async fn refusal(&self, purpose: &str) -> Option<String> {
        let (from, to) = ((&*self.from.arn, "orders"), (&*self.to.arn, purpose));
        rewrap(&self.client, &self.data_key.blob, from, to).await.err()
    }

    /// The message of the refusal.
    async fn denial(&self) -> String {
        let call = self.client.re_encrypt().ciphertext_blob(Blob::new(&*self.data_key.blob));
        let call = call.source_key_id(&self.from.arn).source_encryption_context("purpose", "orders");
        let call = call.destination_key_id(&self.to.arn).destination_encryption_context("purpose", "moved");
        let error = call.send().await.unwrap_err();
        assert_eq!(error.code(), Some(DENIED));
        error.message().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn rewrap_needs_both_permissions() {
    let mover = Mover::new().await;
    let none = json!({});
    assert!(mover.denial().await.contains("kms:ReEncryptFrom"));
    for (actions, lacks) in [
        (vec!["kms:ReEncryptFrom"], "kms:ReEncryptTo"),
        (vec!["kms:ReEncryptTo"], "kms:ReEncryptFrom"),
        (vec!["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*"], "kms:ReEncryptFrom"),
    ] {
        let statements: Vec<_> = actions.iter().map(|action| allow(action, &none)).collect();
        mover.put_role_policy(&statements).await;
        assert!(mover.denial().await.contains(lacks), "{actions:?}");
    }
    mover.put_role_policy(&[allow("kms:ReEncryptFrom", &none), allow("kms:ReEncryptTo", &none)]).await;
    let (from, to) = ((&*mover.from.arn, "orders"), (&*mover.to.arn, "moved"));
    let answer = rewrap(&mover.client, &mover.data_key.blob, from, to).await.unwrap();
    assert_eq!((answer.source_key_id(), answer.key_id()), (Some(&*mover.from.arn), Some(&*mover.to.arn)));
    let blob = answer.ciphertext_blob.unwrap().into_inner();
    let other = mover.server.client_in(kms::REGION, OTHER_ACCOUNT);
    assert_eq!(unwrap(&other, &mover.to.arn, &blob, "moved").await.as_ref(), Ok(&mover.data_key.plaintext));
    // The role itself does not get the plaintext.
    let own = unwrap(&mover.client, &mover.from.arn, &mover.data_key.blob, "orders").await;
    assert_eq!(own, Err(DENIED.to_owned()));

    // Each permission is for the KMS key of its side.
    let on = |action: &str, key: &Key| json!({ "Effect": "Allow", "Action": action, "Resource": key.arn });
    mover.put_role_policy(&[on("kms:ReEncryptFrom", &mover.from), on("kms:ReEncryptTo", &mover.to)]).await;
    assert_eq!(mover.refusal("moved").await, None);
    mover.put_role_policy(&[on("kms:ReEncryptFrom", &mover.to), on("kms:ReEncryptTo", &mover.from)]).await;
    assert_eq!(mover.refusal("moved").await.as_deref(), Some(DENIED));
}

#[tokio::test]
async fn rewrap_needs_the_key_policy_of_the_other_account() {
    let mover = Mover::new().await;
    mover.put_role_policy(&[allow("kms:ReEncrypt*", &json!({}))]).await;
    assert_eq!(mover.refusal("moved").await, None);
    for statements in [vec![], vec![for_role("Allow", "kms:ReEncryptFrom")]] {
        mover.put_key_policy(OTHER_ACCOUNT, &statements).await;
        assert_eq!(mover.refusal("moved").await.as_deref(), Some(DENIED));
    }
    mover.put_key_policy(OTHER_ACCOUNT, &[for_role("Allow", "kms:ReEncryptTo")]).await;
    assert_eq!(mover.refusal("moved").await, None);
    mover.put_key_policy(kms::ACCOUNT, &[for_role("Deny", "kms:ReEncryptFrom")]).await;
    assert_eq!(mover.refusal("moved").await.as_deref(), Some(DENIED));

    // Not even the root of an account uses a KMS key of another one without it. The server does not show that key to a root.
    mover.put_key_policy(OTHER_ACCOUNT, &[]).await;
    let (from, to) = ((&*mover.from.arn, "orders"), (&*mover.to.arn, "moved"));
    let answer = rewrap(&mover.server.client(), &mover.data_key.blob, from, to).await;
    assert_eq!(answer.err().as_deref(), Some("NotFoundException"));

    // The other way needs the other permission there.
    mover.put_key_policy(kms::ACCOUNT, &[]).await;
    let other = mover.server.client_in(kms::REGION, OTHER_ACCOUNT);
    let theirs = issue(&other, &mover.to.id, "orders").await;
    for source in [&*mover.to.arn, ""] {
        for (action, expected) in [("kms:ReEncryptTo", Some(DENIED)), ("kms:ReEncryptFrom", None)] {
            mover.put_key_policy(OTHER_ACCOUNT, &[for_role("Allow", action)]).await;
            let answer = rewrap(&mover.client, &theirs.blob, (source, "orders"), (&mover.from.arn, "moved")).await;
            assert_eq!(answer.err().as_deref(), expected, "{source} {action}");
        }
    }
}

#[tokio::test]
async fn contexts_of_both_sides_are_conditions() {
    let mover = Mover::new().await;
    let equals = |purpose: &str| json!({ "StringEquals": { "kms:EncryptionContext:purpose": purpose } });
    mover
        .put_role_policy(&[allow("kms:ReEncryptFrom", &equals("orders")), allow("kms:ReEncryptTo", &equals("moved"))])
        .await;
    assert_eq!(mover.refusal("moved").await, None);
    assert_eq!(mover.refusal("orders").await.as_deref(), Some(DENIED), "the context of the destination");
    let foreign = issue(&mover.server.client(), &mover.from.id, "moved").await;
    let answer = rewrap(&mover.client, &foreign.blob, (&mover.from.arn, "moved"), (&mover.to.arn, "moved")).await;
    assert_eq!(answer.err().as_deref(), Some(DENIED), "the context of the source");

    let names = |name: &str| json!({ "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": [name] } });
    for (from, to, expected) in
        [("purpose", "purpose", None), ("stage", "purpose", Some(DENIED)), ("purpose", "stage", Some(DENIED))]
    {
        mover.put_role_policy(&[allow("kms:ReEncryptFrom", &names(from)), allow("kms:ReEncryptTo", &names(to))]).await;
        assert_eq!(mover.refusal("moved").await.as_deref(), expected, "{from} {to}");
    }
}

#[tokio::test]
async fn same_key_is_a_condition_of_both_permissions() {
    let mover = Mover::new().await;
    let alias = "alias/orders";
    let create = mover.server.client().create_alias();
    create.alias_name(alias).target_key_id(&mover.from.id).send().await.unwrap();
    let bool = |is_same: bool| json!({ "Bool": { "kms:ReEncryptOnSameKey": is_same.to_string() } });
    for (from, to, same, other) in [
        (bool(true), bool(true), None, Some(DENIED)),
        (bool(true), json!({}), None, Some(DENIED)),
        (json!({}), bool(true), None, Some(DENIED)),
        (bool(false), json!({}), Some(DENIED), None),
        (json!({}), bool(false), Some(DENIED), None),
    ] {
        mover.put_role_policy(&[allow("kms:ReEncryptFrom", &from), allow("kms:ReEncryptTo", &to)]).await;
        for destination in [&*mover.from.arn, &mover.from.id, alias] {
            let source = (&*mover.from.arn, "orders");
            let answer = rewrap(&mover.client, &mover.data_key.blob, source, (destination, "moved")).await;
            assert_eq!(answer.err().as_deref(), same, "{from} {to} {destination}");
        }
        assert_eq!(mover.refusal("moved").await.as_deref(), other, "{from} {to}");
    }
}

#[tokio::test]
async fn allowed_rewrap_is_refused_as_without_iam() {
    let mover = Mover::new().await;
    mover.put_role_policy(&[allow("kms:ReEncrypt*", &json!({}))]).await;
    let wrong = mover.server.key().await;
    let destination = (&*mover.to.arn, "moved");
    for (from, to, expected) in [
        ((&*mover.from.arn, "invoices"), destination, "InvalidCiphertextException"),
        ((&wrong.arn, "orders"), destination, "IncorrectKeyException"),
        ((&mover.from.arn, "orders"), ("alias/none", "moved"), "NotFoundException"),
        ((&mover.from.arn, "orders"), (&mover.to.id, "moved"), "NotFoundException"),
    ] {
        let answer = rewrap(&mover.client, &mover.data_key.blob, from, to).await;
        assert_eq!(answer.err().as_deref(), Some(expected), "{from:?} {to:?}");
    }
    for (account, key) in [(kms::ACCOUNT, &mover.from), (OTHER_ACCOUNT, &mover.to)] {
        let owner = mover.server.client_in(kms::REGION, account);
        owner.disable_key().key_id(&key.id).send().await.unwrap();
        assert_eq!(mover.refusal("moved").await.as_deref(), Some("DisabledException"));
        owner.enable_key().key_id(&key.id).send().await.unwrap();
        assert_eq!(mover.refusal("moved").await, None);
    }
}

#[tokio::test]
async fn proxy_leaves_the_decision_to_iam() {
    let mover = Mover::new().await;
    let proxy = KmsProxy::start(mover.server.address()).await;
    let client = Client::from_conf(mover.client.config().to_builder().endpoint_url(proxy.url()).build());
    let (from, to) = ((&*mover.from.arn, "orders"), (&*mover.to.arn, "moved"));
    assert_eq!(rewrap(&client, &mover.data_key.blob, from, to).await.err().as_deref(), Some(DENIED));
    mover.put_role_policy(&[allow("kms:ReEncrypt*", &json!({}))]).await;
    assert_eq!(rewrap(&client, &mover.data_key.blob, from, to).await.err(), None);
    assert_eq!(proxy.calls_of(REENCRYPT), 2);
    assert_eq!(proxy.operations(), [REENCRYPT]);
}
