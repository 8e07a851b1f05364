//! `kubectl datakey policy --class`: what it prints, and that AWS allows by it what the class allows, and nothing else.

use aws_sdk_kms::{
    Client,
    config::Credentials,
    error::ProvideErrorMetadata as _,
    primitives::Blob,
    types::{DataKeyPairSpec, DataKeySpec},
};
use serde_json::{Value, json};
use testbed::{
    iam::{self, Call},
    kms,
    sts::{self, assume_role},
};

use crate::{
    harness::{Accounts, NO_RETRY, Team, TestNamespace},
    key_pairs::pairs,
    plugin::{User, text},
};

/// The refusal of KMS. That of STS has no `Exception`.
const DENIED: &str = "AccessDeniedException";

/// The tag of a session that has the namespace.
const TAG: &str = "datakey-namespace";

#[tokio::test]
async fn policies_of_a_class_are_those_of_its_spec() {
    let test = TestNamespace::new("plugin-class-policy").await;
    let user = User::of(&test);
    let role = "arn:aws:iam::111122223333:role/shop";
    let operator = "--operator-role-arn=arn:aws:iam::444455556666:role/operator";
    let pairs = json!([{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }]);
    let tags = json!([{ "key": "datakey-namespace", "valueFrom": "Namespace" }]);
    let class = json!({
        "allow": [{ "keyIds": [test.key.arn], "keyPairSpecs": [] }],
        "encryptionContext": { "pairs": pairs, "others": "Deny" },
        "aws": { "roleArn": role, "externalId": "Example987", "sessionTags": tags },
    });
    test.class(&class).await;
    let words = ["policy", "--class", "plugin-class-policy", operator];
    let all = user.json(0, &words).await;
    for (only, field) in
        [("assume-role", "assumeRole"), ("trust", "trust"), ("role", "role"), ("key", "keyPolicyStatements")]
    {
        assert_eq!(user.json(0, &[&words[..], &["--only", only]].concat()).await, all[field], "{only}");
    }
    assert_eq!(all["assumeRole"]["Statement"][0]["Resource"], role);
    assert_eq!(all["trust"]["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"], "Example987");
    let issues = &all["role"]["Statement"];
    assert_eq!((issues.as_array().unwrap().len(), &issues[0]["Resource"]), (1, &json!(test.key.arn)));
    let namespace = &issues[0]["Condition"]["StringEquals"]["kms:EncryptionContext:namespace"];
    assert_eq!(namespace, "${aws:PrincipalTag/datakey-namespace}");
    let of_key = &all["keyPolicyStatements"][&test.key.arn];
    assert_eq!((&of_key[0]["Principal"]["AWS"], of_key.as_array().unwrap().len()), (&json!(role), 2));
    let unwraps = &of_key[1]["Condition"]["StringEquals"]["kms:EncryptionContext:namespace"];
    assert_eq!(unwraps, "plugin-class-policy");

    let described = text(&user.ends(0, &["classes", "plugin-class-policy"]).await);
    for line in [role, "external ID: yes", "session tags datakey-namespace=plugin-class-policy"] {
        assert!(described.contains(line), "{line}: {described}");
    }
    let shown = user.json(0, &["classes", "plugin-class-policy"]).await["items"][0]["aws"].take();
    assert_eq!((&shown["roleArn"], &shown["hasExternalId"]), (&json!(role), &json!(true)));
    assert!(!described.contains("Example987") && !shown.to_string().contains("Example987"), "{described}");

    // What is missing, does not fit, or is not accepted.
    let missing = user.ends(1, &["policy", "--class", "plugin-class-policy-none"]).await;
    assert!(missing.err.contains("there is no DataKeyClass plugin-class-policy-none"), "{missing:?}");
    let of_object = user.ends(64, &["policy", "orders", "--only", "trust"]).await;
    assert!(of_object.err.contains("--only trust is a policy of a class (--class)"), "{of_object:?}");
    let of_class = user.ends(64, &[&words[..], &["--only=workload"]].concat()).await;
    assert!(of_class.err.contains("choose one of assume-role, trust, role and key"), "{of_class:?}");
    test.class(&json!({})).await;
    let own = user.ends(0, &["policy", "--class", "plugin-class-policy", "-o", "yaml"]).await;
    assert!(!text(&own).contains("sts:") && own.err.contains("has no spec.aws"), "{own:?}");
    let none = user.ends(2, &["policy", "--class", "plugin-class-policy", "--only=trust"]).await;
    assert!(none.out.is_empty() && none.err.contains("assumes no role"), "{none:?}");
    test.class(&json!({ "defaults": { "keyId": "alias/other" } })).await;
    let refused = user.ends(2, &words).await;
    assert!(refused.err.contains("is not accepted") && refused.err.contains("spec.defaults.keyId"), "{refused:?}");
}

/// A call of the root of a team's account.
fn of_team(team: &Team, service: &'static str, method: &'static str, arguments: Value) -> Call {
    Call { account: team.account.clone(), service, method, arguments }
}

/// Sets the policy of a team's KMS key: its administrators, and these statements.
async fn put_key_policy(accounts: &Accounts, team: &Team, actions: &str, more: &Value) {
    let root = json!({ "AWS": format!("arn:aws:iam::{}:root", team.account) });
    let administer = json!({ "Effect": "Allow", "Principal": root, "Action": actions, "Resource": "*" });
    let statements = [&[administer], &more.as_array().unwrap()[..]].concat();
    let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let put = accounts.server.client_in(kms::REGION, &team.account).put_key_policy();
    put.key_id(&team.key.id).policy(policy).send().await.unwrap();
}

/// What a role does with the KMS key of a team.
struct Caller<'a> {
    client: Client,
    key: &'a str,
}

// === impl Caller ===

impl<'a> Caller<'a> {
    fn new(accounts: &Accounts, team: &'a Team, credentials: Credentials) -> Self {
        Self { client: accounts.server.client_with(kms::REGION, credentials), key: &team.key.arn }
    }

    async fn issues(&self, context: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let call = self.client.generate_data_key_without_plaintext().key_id(self.key).key_spec(DataKeySpec::Aes256);
        let call = context.iter().fold(call, |call, (key, value)| call.encryption_context(*key, *value));
        let answer = call.send().await.map_err(|error| error.code().unwrap_or("no code").to_owned())?;
        Ok(answer.ciphertext_blob.unwrap().into_inner())
    }

    async fn issues_pair(&self, spec: DataKeyPairSpec, namespace: &str) -> Result<(), String> {
        let call = self.client.generate_data_key_pair_without_plaintext().key_id(self.key).key_pair_spec(spec);
        let answer = call.encryption_context("namespace", namespace).send().await;
        answer.map(drop).map_err(|error| error.code().unwrap_or("no code").to_owned())
    }

    async fn unwraps(&self, blob: &[u8], namespace: &str) -> Result<(), String> {
        let call = self.client.decrypt().key_id(self.key).ciphertext_blob(Blob::new(blob));
        let answer = call.encryption_context("namespace", namespace).send().await;
        answer.map(drop).map_err(|error| error.code().unwrap_or("no code").to_owned())
    }

    /// Asserts that it may issue what the class allows its namespace, and nothing else. Returns a wrapped data key.
    async fn assert_issues_for(&self, namespace: &str) -> Vec<u8> {
        let own = ("namespace", namespace);
        let blob = self.issues(&[own]).await.unwrap();
        self.issues_pair(DataKeyPairSpec::EccNistP256, namespace).await.unwrap();
        for context in [&[][..], &[("namespace", "bank")], &[own, ("purpose", "orders")], &[("purpose", namespace)]] {
            assert_eq!(self.issues(context).await, Err(DENIED.to_owned()), "{context:?}");
        }
        let denied = Err(DENIED.to_owned());
        assert_eq!(self.issues_pair(DataKeyPairSpec::Rsa2048, namespace).await, denied, "a kind that the class lacks");
        assert_eq!(self.issues_pair(DataKeyPairSpec::EccNistP256, "bank").await, denied);
        assert_eq!(self.unwraps(&blob, namespace).await, denied);
        let plaintext = self.client.generate_data_key().key_id(self.key).key_spec(DataKeySpec::Aes256);
        let plaintext = plaintext.encryption_context("namespace", namespace).send().await.unwrap_err();
        assert_eq!(plaintext.code(), Some(DENIED), "no call answers with a plaintext");
        blob
    }
}

#[tokio::test]
async fn printed_policies_are_enough_and_no_more() {
    let accounts = Accounts::new().await;
    let [team] = accounts.teams(["plugin-policy-team"]).await;
    let namespace = team.test.namespace.as_str();
    let (operator, credentials) = accounts.operator_role(&[&team]).await;
    let limits = json!({ "keyIds": [team.alias()], "keyArns": [team.key.arn], "keyPairSpecs": ["ECC_NIST_P256"] });
    let pair = json!({ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" });
    let context = json!({ "pairs": [pair], "others": "Deny" });
    let admitted = json!([namespace, "plugin-policy-vault"]);
    team.class(&json!({ "namespaces": admitted, "allow": [limits], "encryptionContext": context })).await;
    let workload = format!("arn:aws:iam::{}:role/workload", team.account);
    let words = ["policy", "--class", namespace, "--operator-role-arn", &operator, "--role-arn", &workload];
    let printed = User::of(&team.test).json(0, &words).await;

    let root = json!({ "AWS": format!("arn:aws:iam::{}:root", team.account) });
    let by_root = json!({ "Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole" });
    let by_root = json!({ "Version": "2012-10-17", "Statement": [by_root] }).to_string();
    let printed_role = json!({
        "RoleName": namespace, "PolicyName": "issue-data-keys", "PolicyDocument": printed["role"].to_string(),
    });
    let own = json!({
        "RoleName": "datakey-operator", "PolicyName": "assume-roles", "PolicyDocument": printed["assumeRole"].to_string(),
    });
    let trust = json!({ "RoleName": namespace, "PolicyDocument": printed["trust"].to_string() });
    let answers = accounts
        .server
        .call_as_root(&[
            Call { account: kms::ACCOUNT.to_owned(), service: "iam", method: "put_role_policy", arguments: own },
            of_team(&team, "iam", "update_assume_role_policy", trust),
            of_team(&team, "iam", "put_role_policy", printed_role),
            of_team(
                &team,
                "iam",
                "create_role",
                json!({ "RoleName": "workload", "AssumeRolePolicyDocument": by_root }),
            ),
            of_team(&team, "sts", "assume_role", json!({ "RoleArn": workload, "RoleSessionName": "workload" })),
        ])
        .await;

    // STS: the external ID, and each tag of the class.
    let sts = sts::client_at(&format!("http://{}", accounts.server.address()), credentials.clone());
    let id = Some(team.external_id.as_str());
    let own = (TAG, namespace);
    for (id, tags) in [
        (None, &[own][..]),
        (Some("another-external-id"), &[own]),
        (id, &[]),
        (id, &[("team", namespace)]),
        (id, &[(TAG, "bank")]),
    ] {
        let refused = assume_role(&sts, &team.role_arn, "test", id, tags).await.map(drop);
        assert_eq!(refused, Err("AccessDenied".to_owned()), "{id:?} {tags:?}");
    }
    let session = assume_role(&sts, &team.role_arn, "test", id, &[own]).await.unwrap();
    let session = Caller::new(&accounts, &team, session);
    let of_vault = assume_role(&sts, &team.role_arn, "test", id, &[(TAG, "plugin-policy-vault")]).await.unwrap();
    let of_vault = Caller::new(&accounts, &team, of_vault);

    // KMS: by the IAM policy alone, then by the key policy alone.
    put_key_policy(&accounts, &team, "kms:*", &json!([])).await;
    let blob = session.assert_issues_for(namespace).await;
    let workload = Caller::new(&accounts, &team, iam::credentials(&answers[4]["Credentials"]));
    assert_eq!(workload.unwraps(&blob, namespace).await, Err(DENIED.to_owned()), "it has no IAM policy");
    let nothing = json!({ "RoleName": namespace, "PolicyName": "issue-data-keys" });
    accounts.server.call_as_root(&[of_team(&team, "iam", "delete_role_policy", nothing)]).await;
    let statements = &printed["keyPolicyStatements"][&team.key.arn];
    put_key_policy(&accounts, &team, "kms:PutKeyPolicy", statements).await;
    session.assert_issues_for(namespace).await;
    assert_eq!(of_vault.issues(&[("namespace", namespace)]).await, Err(DENIED.to_owned()), "another namespace");
    workload.unwraps(&blob, namespace).await.unwrap();
    assert_eq!(workload.unwraps(&blob, "bank").await, Err(DENIED.to_owned()));
    assert_eq!(workload.issues(&[("namespace", namespace)]).await, Err(DENIED.to_owned()));

    let _operator = accounts.operator_as(&credentials, &[&team], &NO_RETRY);
    team.test.issue("orders", &team.spec()).await;
    pairs(&team.test).issue("tokens", &team.spec()).await;
}
