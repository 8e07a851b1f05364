//! An AWS account for each team: a role that the operator may assume, and a KMS key that the role may use for its own namespace.
//! The KMS server evaluates all policies.

use std::{path::PathBuf, sync::Arc};

use aws_sdk_kms::config::Credentials;
use serde_json::{Value, json};
use testbed::{
    control_plane::ControlPlane,
    iam::{self, Call},
    kms::{self, Key, KmsServer},
    proxy::KmsProxy,
};

use super::{Operator, TestNamespace};

/// The tag of a session that policies compare with the encryption context.
const TAG: &str = "datakey-namespace";

/// The name of the operator's user, of its role, and of their policies.
const OPERATOR: &str = "datakey-operator";

/// The account of the platform team, whose user the operator is, and those of the teams.
pub struct Accounts {
    pub server: KmsServer,
    /// Counts the calls to KMS and STS and makes them fail.
    pub proxy: Arc<KmsProxy>,
    /// What the operator calls AWS with.
    pub credentials: Credentials,
    /// The ARN of the operator's user.
    pub operator: String,
    plane: Arc<ControlPlane>,
    kubeconfig: PathBuf,
}

/// A team with a namespace, a class of the same name, and an account.
pub struct Team {
    pub test: TestNamespace,
    pub account: String,
    pub role_arn: String,
    pub external_id: String,
    /// The KMS key, `alias/NAMESPACE` in the account.
    pub key: Key,
}

/// A policy with one statement.
fn policy(statement: &Value) -> String {
    json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string()
}

// === impl Accounts ===

impl Accounts {
    /// On the control plane that all tests share.
    pub async fn new() -> Self {
        let (plane, kubeconfig) = TestNamespace::shared_control_plane().await;
        Self::on_control_plane(plane, kubeconfig).await
    }

    /// On a control plane that only this test uses, so that its operator can serve all namespaces.
    pub async fn with_own_control_plane() -> Self {
        let plane = Arc::new(ControlPlane::start().await);
        let kubeconfig = plane.operator_kubeconfig().await;
        Self::on_control_plane(plane, kubeconfig).await
    }

    async fn on_control_plane(plane: Arc<ControlPlane>, kubeconfig: PathBuf) -> Self {
        let server = KmsServer::start_with_iam(plane.workdir()).await;
        let proxy = Arc::new(KmsProxy::start(server.address()).await);
        let user = json!({ "UserName": OPERATOR });
        let calls = [at_home("create_user", user.clone()), at_home("create_access_key", user)];
        let answers = server.call_as_root(&calls).await;
        let credentials = iam::credentials(&answers[1]["AccessKey"]);
        let operator = answers[0]["User"]["Arn"].as_str().unwrap().to_owned();
        Self { server, proxy, credentials, operator, plane, kubeconfig }
    }

    /// Sets up teams with these namespaces: each lets the operator assume its role, for its namespace only, and the operator may
    /// assume these roles.
    pub async fn teams<const N: usize>(&self, namespaces: [&str; N]) -> [Team; N] {
        let mut teams = Vec::new();
        let mut calls = Vec::new();
        for (number, namespace) in namespaces.into_iter().enumerate() {
            let team = self.team(namespace, format!("{}", 222_200_000_000 + number)).await;
            calls.push(team.iam(
                "create_role",
                json!({
                    "RoleName": namespace,
                    "AssumeRolePolicyDocument": team.trust_policy(&self.operator, &team.external_id),
                }),
            ));
            // The policies of the KMS keys decide.
            let actions = ["kms:GenerateDataKeyWithoutPlaintext", "kms:GenerateDataKeyPairWithoutPlaintext"];
            calls.push(team.iam(
                "put_role_policy",
                json!({
                    "RoleName": namespace,
                    "PolicyName": "issue-data-keys",
                    "PolicyDocument": policy(&json!({ "Effect": "Allow", "Action": actions, "Resource": "*" })),
                }),
            ));
            teams.push(team);
        }
        let roles: Vec<_> = teams.iter().map(|team| &team.role_arn).collect();
        calls.push(at_home(
            "put_user_policy",
            json!({
                "UserName": OPERATOR,
                "PolicyName": "assume-roles",
                "PolicyDocument": policy(&assume(&json!(roles))),
            }),
        ));
        self.server.call_as_root(&calls).await;
        teams.try_into().unwrap_or_else(|_| unreachable!("as many teams as namespaces"))
    }

    /// A namespace of no team.
    pub async fn namespace(&self, name: &str) -> TestNamespace {
        let (plane, kubeconfig, proxy) = (Arc::clone(&self.plane), self.kubeconfig.clone(), Arc::clone(&self.proxy));
        TestNamespace::on_control_plane(name, plane, kubeconfig, proxy).await
    }

    async fn team(&self, namespace: &str, account: String) -> Team {
        let root = self.server.client_in(kms::REGION, &account);
        let key = kms::create_key(&root).await;
        root.create_alias().alias_name(format!("alias/{namespace}")).target_key_id(&key.id).send().await.unwrap();
        let team = Team {
            test: self.namespace(namespace).await,
            role_arn: format!("arn:aws:iam::{account}:role/{namespace}"),
            external_id: format!("{namespace}-external-id"),
            account,
            key,
        };
        self.put_key_policy(&team, &[]).await;
        team
    }

    /// Sets the policy of a team's KMS key: its role may issue in the encryption context of the namespace that its session is for.
    /// More statements add to that.
    pub async fn put_key_policy(&self, team: &Team, more: &[Value]) {
        let context = json!({ "kms:EncryptionContext:namespace": format!("${{aws:PrincipalTag/{TAG}}}") });
        let mut statements = vec![
            json!({
                "Sid": "Administer",
                "Effect": "Allow",
                "Principal": { "AWS": format!("arn:aws:iam::{}:root", team.account) },
                "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:Put*", "kms:ScheduleKeyDeletion"],
                "Resource": "*",
            }),
            json!({
                "Sid": "Issue",
                "Effect": "Allow",
                "Principal": { "AWS": team.role_arn },
                "Action": ["kms:GenerateDataKeyWithoutPlaintext", "kms:GenerateDataKeyPairWithoutPlaintext"],
                "Resource": "*",
                "Condition": { "StringEquals": context },
            }),
        ];
        statements.extend_from_slice(more);
        let policy = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
        let put = self.server.client_in(kms::REGION, &team.account).put_key_policy();
        put.key_id(&team.key.id).policy(policy).send().await.unwrap();
    }

    /// Sets the trust policy of a team's role: this principal may assume it, with this external ID.
    pub async fn put_trust_policy(&self, team: &Team, principal: &str, external_id: &str) {
        let arguments = json!({
            "RoleName": team.test.namespace,
            "PolicyDocument": team.trust_policy(principal, external_id),
        });
        self.server.call_as_root(&[team.iam("update_assume_role_policy", arguments)]).await;
    }

    /// Lets the operator use the KMS key of a team as itself: its own policy and that of the KMS key allow it.
    pub async fn let_operator_use_key(&self, team: &Team) {
        let action = "kms:GenerateDataKeyWithoutPlaintext";
        let own = json!({ "Effect": "Allow", "Action": action, "Resource": team.key.arn });
        let arguments = json!({
            "UserName": OPERATOR,
            "PolicyName": format!("use-{}", team.test.namespace),
            "PolicyDocument": policy(&own),
        });
        self.server.call_as_root(&[at_home("put_user_policy", arguments)]).await;
        let principal = json!({ "AWS": self.operator });
        let statement = json!({ "Effect": "Allow", "Principal": principal, "Action": action, "Resource": "*" });
        self.put_key_policy(team, &[statement]).await;
    }

    /// Makes a role for the operator that may assume the roles of these teams: its ARN, and the credentials of a session.
    pub async fn operator_role(&self, teams: &[&Team]) -> (String, Credentials) {
        let role_arn = format!("arn:aws:iam::{}:role/{OPERATOR}", kms::ACCOUNT);
        let principal = json!({ "AWS": format!("arn:aws:iam::{}:root", kms::ACCOUNT) });
        let trust = json!({ "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole" });
        let roles: Vec<_> = teams.iter().map(|team| &team.role_arn).collect();
        let mut calls = vec![
            at_home("create_role", json!({ "RoleName": OPERATOR, "AssumeRolePolicyDocument": policy(&trust) })),
            Call {
                account: kms::ACCOUNT.to_owned(),
                service: "sts",
                method: "assume_role",
                arguments: json!({ "RoleArn": role_arn, "RoleSessionName": OPERATOR }),
            },
        ];
        if !roles.is_empty() {
            let arguments = json!({
                "RoleName": OPERATOR,
                "PolicyName": "assume-roles",
                "PolicyDocument": policy(&assume(&json!(roles))),
            });
            calls.push(at_home("put_role_policy", arguments));
        }
        let answers = self.server.call_as_root(&calls).await;
        (role_arn, iam::credentials(&answers[1]["Credentials"]))
    }

    /// Starts an operator for the namespaces of these teams.
    pub fn operator(&self, teams: &[&Team], flags: &[&str]) -> Operator {
        self.operator_as(&self.credentials, teams, flags)
    }

    /// The same with other credentials.
    pub fn operator_as(&self, credentials: &Credentials, teams: &[&Team], flags: &[&str]) -> Operator {
        let [first, others @ ..] = teams else { panic!("an operator without namespaces") };
        let namespaces = others.iter().map(|team| format!("--namespace={}", team.test.namespace));
        let flags: Vec<_> = namespaces.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let environment = self.environment(credentials);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        first.test.operator_with(&flags, &environment)
    }

    /// Starts an operator that serves all namespaces, and writes the status of classes.
    pub fn operator_of_all(&self, team: &Team) -> Operator {
        self.operator_of_all_as(&self.credentials, &team.test)
    }

    /// The same with other credentials.
    pub fn operator_of_all_as(&self, credentials: &Credentials, test: &TestNamespace) -> Operator {
        let environment = self.environment(credentials);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        test.operator_of_all_with(&[], &environment)
    }

    fn environment(&self, credentials: &Credentials) -> Vec<(&'static str, String)> {
        let token = credentials.session_token().map(|token| ("AWS_SESSION_TOKEN", token.to_owned()));
        let own = [
            ("AWS_ENDPOINT_URL_STS", self.proxy.url()),
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key().to_owned()),
        ];
        own.into_iter().chain(token).collect()
    }
}

/// A call of IAM in the account of the operator.
fn at_home(method: &'static str, arguments: Value) -> Call {
    Call { account: kms::ACCOUNT.to_owned(), service: "iam", method, arguments }
}

/// What an identity needs to assume roles and to tag their sessions.
fn assume(roles: &Value) -> Value {
    json!({ "Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": roles })
}

// === impl Team ===

impl Team {
    /// A call of IAM in the account of the team.
    fn iam(&self, method: &'static str, arguments: Value) -> Call {
        Call { account: self.account.clone(), service: "iam", method, arguments }
    }

    /// A trust policy: this principal may assume the role with this external ID, and with the tag of the team's namespace.
    fn trust_policy(&self, principal: &str, external_id: &str) -> String {
        let tagged = json!({ format!("aws:RequestTag/{TAG}"): self.test.namespace });
        let mut identified = tagged.clone();
        identified["sts:ExternalId"] = json!(external_id);
        let allow = |action: &str, conditions: &Value| {
            json!({
                "Effect": "Allow",
                "Principal": { "AWS": principal },
                "Action": action,
                "Condition": { "StringEquals": conditions },
            })
        };
        let statements = [allow("sts:AssumeRole", &identified), allow("sts:TagSession", &tagged)];
        json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
    }

    /// The alias of the KMS key, in the account of the team.
    pub fn alias(&self) -> String {
        format!("alias/{}", self.test.namespace)
    }

    /// What the class of the team says of its role.
    pub fn aws(&self) -> Value {
        let tags = json!([{ "key": TAG, "valueFrom": "Namespace" }]);
        json!({ "roleArn": self.role_arn, "externalId": self.external_id, "sessionTags": tags })
    }

    /// Creates or replaces the class of the team: its KMS key, the namespace in the encryption context, and its role.
    pub async fn class(&self, fields: &Value) {
        let mut class = json!({
            "defaults": { "keyId": self.alias() },
            "allow": [{ "keyIds": [self.alias()] }],
            "encryptionContext": { "pairs": [{ "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" }] },
            "aws": self.aws(),
        });
        class.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.test.class(&class).await;
    }

    /// The spec of an object of the class that leaves the rest to it.
    pub fn spec(&self) -> Value {
        json!({ "className": self.test.namespace, "keyId": null })
    }
}
