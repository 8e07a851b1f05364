//! What the owners of AWS accounts set up: users, roles and policies.

use std::{fs, path::Path};

use aws_sdk_kms::config::Credentials;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    commands,
    kms::{self, KmsServer},
    repository, tools,
};

/// A call of the root of an account.
#[derive(Clone, Debug)]
pub struct Call {
    /// The account.
    pub account: String,
    /// The service as botocore names it, such as `iam`.
    pub service: &'static str,
    /// The method of botocore, such as `create_role`.
    pub method: &'static str,
    /// Its arguments.
    pub arguments: Value,
}

// === impl KmsServer ===

impl KmsServer {
    /// Calls AWS as the root of accounts, in order, and returns the answers.
    pub async fn call_as_root(&self, calls: &[Call]) -> Vec<Value> {
        let calls: Vec<_> =
            calls.iter().map(|call| json!([call.account, call.service, call.method, call.arguments])).collect();
        let url = format!("http://{}", self.address());
        let mut command = Command::new(tools().join("kms/bin/python"));
        command.envs(kms::environment(&url)).envs([("AWS_ENDPOINT_URL", &*url), ("AWS_DEFAULT_REGION", kms::REGION)]);
        command.arg(repository().join("tests/support/aws_calls.py")).arg(Value::from(calls).to_string());
        let answers = commands::run(&mut command).await.expect("the calls of the root");
        serde_json::from_str(&answers).expect("the answers")
    }
}

/// The credentials in an answer of IAM or STS.
pub fn credentials(answer: &Value) -> Credentials {
    let field = |name: &str| answer[name].as_str().map(str::to_owned);
    let [id, secret] = ["AccessKeyId", "SecretAccessKey"].map(|name| field(name).expect("credentials"));
    Credentials::new(id, secret, field("SessionToken"), None, "testbed")
}

/// Writes profiles of the AWS CLI into a home folder: each has the name and the credentials of the root of an account.
pub fn write_profiles(home: &Path, profiles: &[(&str, &str)]) {
    let folder = home.join(".aws");
    fs::create_dir(&folder).expect("the folder of the AWS CLI");
    let profile = |(name, account): &(&str, &str)| {
        format!("[{name}]\naws_access_key_id = {account}\naws_secret_access_key = test\n")
    };
    fs::write(folder.join("credentials"), profiles.iter().map(profile).collect::<String>()).expect("the profiles");
}
