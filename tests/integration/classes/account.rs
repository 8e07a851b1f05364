//! The account of a team as docs/tenancy.md sets it up: its commands, where IAM evaluates its policies.

use std::fs;

use aws_sdk_kms::{
    config::Credentials,
    error::ProvideErrorMetadata as _,
    types::{DataKeyPairSpec, DataKeySpec},
};
use serde_json::{Value, json};
use testbed::{
    asset, commands,
    iam::{self, Call},
    kms, repository,
    sts::{self, assume_role},
    tools,
};
use tokio::process::Command;

use crate::{
    documented::{PROFILES, commands::commands},
    harness::Accounts,
};

const PAGE: &str = "docs/tenancy.md";

const HEADING: &str = "\n## An account for each team\n";

/// What the page agrees on with the team.
const EXTERNAL_ID: &str = "payroll-prod-eu";

/// The tag of a session that has the namespace.
const TAG: &str = "datakey-namespace";

/// The refusal of KMS. That of STS has no `Exception`.
const KMS_DENIED: &str = "AccessDeniedException";

const STS_DENIED: &str = "AccessDenied";

/// The scripts of the section, and the commands that try it.
fn section() -> (Vec<String>, Vec<String>) {
    let page = fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, section) = page.split_once(HEADING).unwrap_or_else(|| panic!("{PAGE} has no section{HEADING}"));
    let section = section.split("\n## ").next().unwrap();
    let (setup, tries) = section.split_once("\n**5. Try it.**").expect("the step that tries it");
    let scripts: Vec<_> = commands(setup).into_iter().map(|found| found.text).collect();
    let scripts: Vec<_> = scripts.into_iter().filter(|text| text.starts_with("( set -e")).collect();
    assert_eq!(scripts.len(), setup.matches("\n```bash\n").count(), "a script that no reader can paste");
    for (script, part) in scripts.iter().zip(["create-role", "put-key-policy", "put-role-policy", "kubectl apply"]) {
        assert!(script.contains(part), "the script with {part} is missing, or at another place:\n{script}");
    }
    let tries: Vec<_> = commands(tries).into_iter().map(|found| found.text).collect();
    let tries: Vec<_> = tries.into_iter().filter(|text| !text.starts_with("kubectl datakey ")).collect();
    assert!(scripts.len() == 4 && tries.iter().any(|text| text.contains("RoleAssumed")), "{scripts:?} {tries:?}");
    (scripts, tries)
}

/// Issues a data key and a key pair, with this namespace in the encryption context. Returns the code of a refusal.
async fn issues(client: &aws_sdk_kms::Client, key: &str, namespace: Option<&str>) -> Result<(), String> {
    let context = namespace.map(|namespace| [("namespace".to_owned(), namespace.to_owned())].into());
    let call = client.generate_data_key_without_plaintext().key_id(key).key_spec(DataKeySpec::Aes256);
    let one = call.set_encryption_context(context.clone()).send().await.map(drop);
    let one = one.map_err(|error| error.code().unwrap_or("no code").to_owned());
    let call =
        client.generate_data_key_pair_without_plaintext().key_id(key).key_pair_spec(DataKeyPairSpec::EccNistP256);
    let pair = call.set_encryption_context(context).send().await.map(drop);
    let pair = pair.map_err(|error| error.code().unwrap_or("no code").to_owned());
    assert_eq!(one, pair, "data keys and key pairs");
    one
}

#[tokio::test]
async fn documented_account_of_a_team_works_as_iam_allows() {
    let accounts = Accounts::with_own_control_plane().await;
    let test = accounts.namespace("account-of-no-team").await;
    // The operator has no right but what the page gives to its role.
    let (_, operator_session) = accounts.operator_role(&[]).await;
    let home = test.plane.workdir().file("reader-of-accounts");
    fs::create_dir(&home).unwrap();
    iam::write_profiles(&home, &PROFILES);
    let url = format!("http://{}", accounts.server.address());
    let runs = async |script: &str| {
        let mut command = Command::new("bash");
        let kubectl = asset("kubectl").unwrap();
        let folders = [kubectl.parent().unwrap().to_owned(), tools().join("consumers/bin")];
        let folders = folders.map(|folder| folder.display().to_string()).join(":");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&home).env_clear();
        command.env("PATH", format!("{folders}:/usr/bin:/bin")).env("HOME", &home);
        command
            .env("AWS_ENDPOINT_URL", &url)
            .env("AWS_DEFAULT_REGION", kms::REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("KUBECONFIG", test.plane.admin_kubeconfig());
        commands::run(&mut command).await.unwrap_or_else(|error| panic!("{script}\n{error}"))
    };
    let _operator = accounts.operator_of_all_as(&operator_session, &test);

    let (scripts, tries) = section();
    for command in scripts.iter().chain(&tries) {
        runs(command).await;
    }
    let asked = accounts.proxy.requests();
    let context = json!({ "cluster": "prod-eu", "namespace": "payroll" });
    assert_eq!((asked.len(), &asked[0].body["EncryptionContext"]), (1, &context));
    let sessions = accounts.proxy.sessions();
    let [(_, home_account), (_, account)] = PROFILES;
    let role_arn = format!("arn:aws:iam::{account}:role/datakey-payroll");
    assert_eq!((sessions.len(), &*sessions[0].role_arn), (1, &*role_arn));
    assert_eq!(asked[0].access_key_id, sessions[0].access_key_id);

    // A class that admits another namespace by mistake: STS refuses, and KMS is not asked.
    let admits = json!([{ "op": "add", "path": "/spec/namespaces/-", "value": test.namespace }]);
    runs(&format!("kubectl patch datakeyclass payroll --type=json --patch '{admits}'")).await;
    test.create("salaries", &json!({ "className": "payroll", "keyId": null })).await;
    test.failed("salaries", "CredentialsRejected").await;
    assert_eq!((accounts.proxy.calls(), accounts.proxy.sessions().len()), (1, 1));
    let refused = accounts.proxy.assume_role_requests().pop().unwrap();
    assert_eq!(refused.body["RoleSessionName"], format!("datakey-{}", test.namespace));

    // Who may assume the role, and how.
    let session = async |credentials: &Credentials, external_id: Option<&str>, tags: &[(&str, &str)]| {
        assume_role(&sts::client_at(&url, credentials.clone()), &role_arn, "try", external_id, tags).await
    };
    let id = Some(EXTERNAL_ID);
    for (external_id, tags) in [
        (None, vec![(TAG, "payroll")]),
        (Some("payroll"), vec![(TAG, "payroll")]),
        (id, vec![]),
        (id, vec![(TAG, "payrolls")]),
        (id, vec![("namespace", "payroll")]),
    ] {
        let answer = session(&operator_session, external_id, &tags).await;
        assert_eq!(answer.err().as_deref(), Some(STS_DENIED), "{external_id:?} {tags:?}");
    }
    let answer = session(&accounts.credentials, id, &[(TAG, "payroll")]).await;
    assert_eq!(answer.err().as_deref(), Some(STS_DENIED), "another identity of the operator's account");

    // The policy of the KMS key: each session in its own encryption context, and no other identity.
    let key =
        runs("aws --profile payroll kms describe-key --key-id alias/payroll --query KeyMetadata.Arn --output text")
            .await;
    let key = key.trim();
    let client = |credentials: Credentials| accounts.server.client_with(kms::REGION, credentials);
    let denied = Err(KMS_DENIED.to_owned());
    for (own, other) in [("payroll", "payroll-eu"), ("payroll-eu", "payroll")] {
        let of_role = client(session(&operator_session, id, &[(TAG, own)]).await.unwrap());
        assert_eq!(issues(&of_role, key, Some(own)).await, Ok(()), "{own}");
        for context in [Some(other), Some("bank"), None] {
            assert_eq!(issues(&of_role, key, context).await, denied, "{own}: {context:?}");
        }
        let plaintext = of_role.generate_data_key().key_id(key).key_spec(DataKeySpec::Aes256);
        let plaintext = plaintext.encryption_context("namespace", own).send().await.unwrap_err();
        assert_eq!(plaintext.code(), Some(KMS_DENIED), "no call answers with a plaintext");
    }
    let in_team = administrator(&accounts, account).await;
    let at_home = administrator(&accounts, home_account).await;
    for (who, credentials) in
        [("the team", in_team.clone()), ("the platform", at_home), ("the operator", operator_session)]
    {
        assert_eq!(issues(&client(credentials), key, Some("payroll")).await, denied, "{who}");
    }
    client(in_team).describe_key().key_id(key).send().await.unwrap();
}

/// A session of a role whose own policy allows everything in its account.
async fn administrator(accounts: &Accounts, account: &str) -> Credentials {
    let call = |service, method, arguments: Value| Call { account: account.to_owned(), service, method, arguments };
    let policy = |statement: Value| json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
    let root = json!({ "AWS": format!("arn:aws:iam::{account}:root") });
    let trust = policy(json!({ "Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole" }));
    let all = policy(json!({ "Effect": "Allow", "Action": "*", "Resource": "*" }));
    let name = "administrator";
    let role_arn = format!("arn:aws:iam::{account}:role/{name}");
    let calls = [
        call("iam", "create_role", json!({ "RoleName": name, "AssumeRolePolicyDocument": trust })),
        call("iam", "put_role_policy", json!({ "RoleName": name, "PolicyName": "all", "PolicyDocument": all })),
        call("sts", "assume_role", json!({ "RoleArn": role_arn, "RoleSessionName": name })),
    ];
    iam::credentials(&accounts.server.call_as_root(&calls).await[2]["Credentials"])
}
