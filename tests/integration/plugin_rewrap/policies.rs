//! The policies that `kubectl datakey policy --rewrap` prints, under IAM: enough for the move, and for nothing else.

use aws_sdk_kms::{error::ProvideErrorMetadata, primitives::Blob};
use datakey::api::IssuedVersion;
use serde_json::{Value, json};
use testbed::{
    iam::{self, Call},
    kms::{self, Key},
};

use super::{OTHER_ACCOUNT, key_elsewhere, path};
use crate::{
    harness::{Accounts, TestNamespace},
    plugin::{User, text},
};

/// The account of the role: it owns none of the KMS keys, so each key policy has to allow it as well.
const ROLE_ACCOUNT: &str = "333300000000";

const ROLE: &str = "mover";
const DENIED: &str = "AccessDeniedException";

/// The role and what its policies are about.
struct Mover<'a> {
    accounts: &'a Accounts,
    test: &'a TestNamespace,
    from: Key,
    to: Key,
    /// The printed policies.
    printed: Value,
}

fn role_arn() -> String {
    format!("arn:aws:iam::{ROLE_ACCOUNT}:role/{ROLE}")
}

fn call(service: &'static str, method: &'static str, arguments: Value) -> Call {
    Call { account: ROLE_ACCOUNT.to_owned(), service, method, arguments }
}

/// A policy without one of its statements.
fn without(statements: &Value, left_out: Option<usize>) -> Vec<Value> {
    let numbered = statements.as_array().unwrap().iter().enumerate();
    numbered.filter(|(number, _)| Some(*number) != left_out).map(|(_, statement)| statement.clone()).collect()
}

// === impl Mover ===

impl Mover<'_> {
    async fn put_role_policy(&self, statements: &[Value]) {
        let document = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let arguments = json!({ "RoleName": ROLE, "PolicyName": "move", "PolicyDocument": document });
        self.accounts.server.call_as_root(&[call("iam", "put_role_policy", arguments)]).await;
    }

    /// Sets the policy of a KMS key: its account administers it, and these statements.
    async fn put_key_policy(&self, key: &Key, more: &[Value]) {
        let account = key.arn.split(':').nth(4).unwrap();
        let root = json!({ "AWS": format!("arn:aws:iam::{account}:root") });
        let mut statements = vec![json!({ "Effect": "Allow", "Principal": root, "Action": "kms:*", "Resource": "*" })];
        statements.extend_from_slice(more);
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put = self.accounts.server.client_in(kms::REGION, account).put_key_policy();
        put.key_id(&key.id).policy(policy).send().await.unwrap();
    }

    /// Attaches all that is printed.
    async fn attach(&self) {
        self.put_role_policy(&without(&self.printed["rewrap"]["Statement"], None)).await;
        for key in [&self.from, &self.to] {
            self.put_key_policy(key, &without(&self.printed["keyPolicyStatements"][&key.arn], None)).await;
        }
    }
}

#[tokio::test]
async fn printed_policies_are_enough_for_the_move_and_no_more() {
    let accounts = Accounts::new().await;
    let test = accounts.namespace("rewrap-iam").await;
    let from = accounts.server.key().await;
    let to = key_elsewhere(&accounts.server).await;
    let third = key_elsewhere(&accounts.server).await;
    let principal = json!({ "AWS": format!("arn:aws:iam::{ROLE_ACCOUNT}:root") });
    let trust = json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
    let trust = json!({ "Version": "2012-10-17", "Statement": [trust] }).to_string();
    let answers = accounts
        .server
        .call_as_root(&[
            call("iam", "create_role", json!({ "RoleName": ROLE, "AssumeRolePolicyDocument": trust })),
            call("sts", "assume_role", json!({ "RoleArn": role_arn(), "RoleSessionName": ROLE })),
        ])
        .await;
    let session = iam::credentials(&answers[1]["Credentials"]);

    // Two versions with an encryption context each.
    let _operator = test.operator();
    let issue = |version: i32, purpose: &str| json!({ "keyId": from.arn, "version": version, "encryptionContext": { "purpose": purpose } });
    test.issue("orders", &issue(1, "orders")).await;
    test.patch("orders", &json!({ "spec": issue(2, "invoices") })).await;
    let before = test.ready("orders").await;
    let admin = User::of(&test);
    let words = ["policy", "orders", "--rewrap", "--to-key-id", &to.arn, "--rewrap-role-arn", &role_arn()];
    let printed = admin.json(0, &words).await;
    let mover = Mover { accounts: &accounts, test: &test, from, to, printed };
    mover.attach().await;
    let user = User::of(mover.test)
        .with("AWS_ACCESS_KEY_ID", session.access_key_id())
        .with("AWS_SECRET_ACCESS_KEY", session.secret_access_key())
        .with("AWS_SESSION_TOKEN", session.session_token().unwrap());
    let file = path(&test, "orders.yaml");
    let words = ["rewrap", "orders", "--to-key-id", &mover.to.arn, "--no-rotate", "--output", &file];
    let is_denied = async |what: &str| {
        let refused = user.ends(1, &words).await;
        let said = text(&refused) + &refused.err;
        assert!(said.contains(DENIED), "{what}: {said}");
        assert!(!std::fs::exists(&file).unwrap(), "{what}");
    };

    // Each statement is needed: of the role, and of both key policies.
    let of_role = &mover.printed["rewrap"]["Statement"];
    assert_eq!(of_role.as_array().unwrap().len(), 4);
    for left_out in 0..4 {
        mover.put_role_policy(&without(of_role, Some(left_out))).await;
        is_denied(&format!("the role without {}", of_role[left_out])).await;
    }
    mover.attach().await;
    for key in [&mover.from, &mover.to] {
        let statements = &mover.printed["keyPolicyStatements"][&key.arn];
        assert_eq!(statements.as_array().unwrap().len(), 2);
        for left_out in 0..2 {
            mover.put_key_policy(key, &without(statements, Some(left_out))).await;
            is_denied(&format!("the KMS key without {}", statements[left_out])).await;
        }
        mover.attach().await;
    }

    // With all of them the move is allowed, and nothing beside it. The third KMS key allows the role everything.
    let everything = json!({
        "Effect": "Allow", "Principal": { "AWS": role_arn() }, "Action": "kms:*", "Resource": "*",
    });
    mover.put_key_policy(&third, &[everything]).await;
    let client = accounts.server.client_with(kms::REGION, session);
    let rewraps = async |issued: &IssuedVersion, to: &Key, context: &[(&str, &str)]| {
        let call =
            client.re_encrypt().ciphertext_blob(Blob::new(&*issued.ciphertext_blob.0)).source_key_id(&issued.key_id);
        let from = Some(issued.request.context().clone().into_iter().collect());
        let call = call.set_source_encryption_context(from).destination_key_id(&to.arn);
        let call = context.iter().fold(call, |call, (key, value)| call.destination_encryption_context(*key, *value));
        call.send().await.map(drop).map_err(|error| error.code().unwrap_or("no code").to_owned())
    };
    let denied = Err(DENIED.to_owned());
    let [one, _] = before.record() else { panic!("two versions: {before:?}") };
    assert_eq!(rewraps(one, &mover.to, &[("purpose", "orders")]).await, Ok(()));
    assert_eq!(rewraps(one, &third, &[("purpose", "orders")]).await, denied, "a third KMS key");
    for context in [&[][..], &[("purpose", "other")], &[("purpose", "orders"), ("more", "x")]] {
        assert_eq!(rewraps(one, &mover.to, context).await, denied, "{context:?}");
    }
    assert_eq!(rewraps(one, &mover.from, &[("purpose", "orders")]).await, denied, "the same KMS key");
    let unwraps = client.decrypt().key_id(&one.key_id).ciphertext_blob(Blob::new(&*one.ciphertext_blob.0));
    let unwraps = unwraps.encryption_context("purpose", "orders").send().await.unwrap_err();
    assert_eq!(unwraps.code(), Some(DENIED));
    let others = user.ends(1, &["rewrap", "orders", "--to-key-id", &third.arn, "--output", &file]).await;
    assert!((text(&others) + &others.err).contains(DENIED), "{others:?}");

    user.ends(0, &[&words[..], &["--apply"]].concat()).await;
    let key = test.ready("orders").await;
    let accounts_of: Vec<_> = key.record().iter().map(|issued| issued.key_id.split(':').nth(4).unwrap()).collect();
    assert_eq!(accounts_of, [kms::ACCOUNT, kms::ACCOUNT, OTHER_ACCOUNT, OTHER_ACCOUNT]);
    // The new blobs do not unwrap for the role either.
    let rewrap = &key.record()[2];
    let unwraps = client.decrypt().key_id(&rewrap.key_id).ciphertext_blob(Blob::new(&*rewrap.ciphertext_blob.0));
    let unwraps = unwraps.encryption_context("purpose", "orders").send().await.unwrap_err();
    assert_eq!(unwraps.code(), Some(DENIED));
}
