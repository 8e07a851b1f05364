//! The manifests of deploy/samples/unwrap, with what a sample leaves open filled in.

use std::fs;

use aws_sdk_kms::config::Credentials;
use serde_json::{Value, json};
use testbed::repository;

use super::EXAMPLE;

/// The image of the helper in the samples. The others are those of applications.
const HELPER: &str = "datakey-unwrap";

/// The program of the application in the image of exec.yaml.
const APPLICATION: &str = "/orders";

/// What a sample leaves open.
pub struct Filling<'a> {
    /// The image of `datakey-unwrap`.
    pub helper: &'a str,
    /// The image of the application: tests/e2e/consumer.
    pub application: &'a str,
    /// The arguments of the application, where the sample has none.
    pub arguments: &'a [&'a str],
    /// The ARN of the KMS key.
    pub key_arn: &'a str,
    /// The address of KMS.
    pub endpoint: &'a str,
    /// Credentials in place of those of the web identity.
    pub credentials: &'a Credentials,
}

/// The objects of a sample. All else stays as the sample has it.
pub fn manifests(file: &str, filling: &Filling) -> Vec<Value> {
    let text = fs::read_to_string(repository().join("deploy/samples/unwrap").join(file)).unwrap();
    assert_eq!(text.matches(EXAMPLE).count(), 1, "{file} trusts one KMS key");
    let mut objects = serde_saphyr::from_multiple::<Value>(&text.replace(EXAMPLE, filling.key_arn)).unwrap();
    let pods = objects.iter_mut().filter_map(|object| object.pointer_mut("/spec/template/spec"));
    let [pod] = &mut pods.collect::<Vec<_>>()[..] else { panic!("{file} has one workload") };
    for kind in ["initContainers", "containers"] {
        pod[kind].as_array_mut().unwrap().iter_mut().for_each(|container| fill_in(container, filling));
    }
    objects
}

fn fill_in(container: &mut Value, filling: &Filling) {
    if container["image"] == HELPER {
        container["image"] = filling.helper.into();
    } else {
        container["image"] = filling.application.into();
    }
    // In exec.yaml, the helper's command line ends with that of the application.
    let is_exec = container.get("command").is_some();
    if is_exec {
        let program = container["command"].as_array_mut().unwrap().last_mut().unwrap();
        assert_eq!(program, APPLICATION);
        *program = "/consumer".into();
    } else if container["image"] == filling.application {
        container["args"] = json!(filling.arguments);
    }
    let Some(environment) = container.get_mut("env") else { return };
    // These two are the web identity.
    assert_eq!(environment[0]["name"], "AWS_ROLE_ARN");
    assert_eq!(environment[1]["name"], "AWS_WEB_IDENTITY_TOKEN_FILE");
    let credentials = filling.credentials;
    let mut variables = vec![
        json!({ "name": "AWS_ACCESS_KEY_ID", "value": credentials.access_key_id() }),
        json!({ "name": "AWS_SECRET_ACCESS_KEY", "value": credentials.secret_access_key() }),
    ];
    variables.extend(credentials.session_token().map(|token| json!({ "name": "AWS_SESSION_TOKEN", "value": token })));
    *environment = variables.into();
    let endpoint = json!(format!("--endpoint-url={}", filling.endpoint));
    let arguments = container[if is_exec { "command" } else { "args" }].as_array_mut().unwrap();
    // At the end, but before what the helper runs.
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.insert(end, endpoint);
}
