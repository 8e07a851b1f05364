//! `kubectl datakey create` reads parameters as the real AWS CLI does: both get the same words. No server is needed.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use testbed::{process::Workdir, tools};

/// Runs the AWS CLI in one process for many command lines, up to the request that it would send. Prints the body of each request,
/// or null where the AWS CLI refuses the words.
const AWS: &str = r#"
import contextlib, io, json, sys
from types import SimpleNamespace
from awscli.clidriver import create_clidriver

results = []
for words in json.loads(sys.argv[1]):
    sent = []
    def capture(params, **_):
        sent.append(json.loads(params["body"]))
        return SimpleNamespace(status_code=200), {"ResponseMetadata": {"HTTPStatusCode": 200}}
    driver = create_clidriver()
    driver.session.register("before-call.kms.GenerateDataKeyWithoutPlaintext", capture)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            driver.main(["kms", "generate-data-key-without-plaintext", *words])
        except SystemExit:
            pass
    results.append(sent[0] if sent else None)
print(json.dumps(results))
"#;

/// The fields of a DataKey, and the parameters of KMS.
const FIELDS: [(&str, &str); 5] = [
    ("keyId", "KeyId"),
    ("keySpec", "KeySpec"),
    ("numberOfBytes", "NumberOfBytes"),
    ("encryptionContext", "EncryptionContext"),
    ("grantTokens", "GrantTokens"),
];

/// Encryption contexts. HERE is the folder of the files.
const CONTEXTS: [&str; 63] = [
    "purpose=orders",
    "purpose=orders,stage=prod",
    "a = b , c = d",
    " a=b",
    "a=b ",
    "a='b, c',d=\"e=f\"",
    r"a=b\,c,d=e",
    r"a=\,",
    r"a='it\'s'",
    r#"a="say \"x\"""#,
    r"a='b\\'",
    r"a='b\\',c=d'",
    r"a='b\\',c='d'",
    r"a='\n'",
    r"a=b\c",
    "a='b'x",
    "a='b",
    "a=",
    "a=,b=c",
    "a='',b=c",
    "a=b=c",
    "a==b",
    "a=b c",
    "a=b'c'",
    "a=[b,c]",
    "a={b=c}",
    "a=b[c{d|e",
    "a=b]",
    "a=]",
    "a=}x",
    "a=b,c",
    "a=b,",
    ",a=b",
    "a=b,a=c",
    "a b=c",
    "ä=b",
    "a=ä\u{a0}",
    "app:s3:x=y",
    "app/x.y#z_-:=1",
    "a@=b",
    "a @= b",
    "a@=file://HERE/lines",
    "a@='file://HERE/lines',b=c",
    "a@=file://HERE/none",
    "a=file://HERE/lines",
    "file://HERE/json",
    "file://HERE/shorthand",
    "file://~/json",
    "file://$CONTEXT_DIR/json",
    "file://${CONTEXT_DIR}/json",
    "file://$NOT_SET/json",
    "file://HERE/none",
    "fileb://HERE/json",
    r#"{"a": "b", "c": "d, e=f"}"#,
    r#" {"a": "\u00e9"}"#,
    r#"{"a": 1}"#,
    r#"{"a": ["b"]}"#,
    r#"{"a": null}"#,
    r#"{"a": "b"} x"#,
    r#"["a"]"#,
    "{",
    "",
    "purpose",
];

fn environment(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs([("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
    command.env("HOME", home).env("CONTEXT_DIR", home).env("LC_ALL", "C.UTF-8").env("PYTHONWARNINGS", "ignore");
}

/// What the AWS CLI would send for each command line.
fn sent_by_aws(lines: &[Vec<String>], home: &Path) -> Vec<Value> {
    let mut python = Command::new(tools().join("consumers/bin/python"));
    environment(&mut python, home);
    let output = python.args(["-c", AWS, &json!(lines).to_string()]).output().unwrap();
    let read = serde_json::from_slice(&output.stdout);
    read.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The same by the names of KMS, from the DataKey that the plugin prints.
fn printed_by_plugin(words: &[String], home: &Path) -> Value {
    let mut plugin = Command::new(testbed::plugin());
    environment(&mut plugin, home);
    let output = plugin.args(["create", "k", "--dry-run=client"]).args(words).output().unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(64), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        return Value::Null;
    }
    let manifest: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let spec = &manifest["spec"];
    FIELDS.iter().filter_map(|(field, parameter)| Some(((*parameter).to_owned(), spec.get(field)?.clone()))).collect()
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn parameters_are_read_as_by_the_real_aws_cli() {
    let home = Workdir::new("aws-cli");
    let write = |name: &str, text: &str| std::fs::write(home.file(name), text).unwrap();
    write("json", "{\"purpose\": \"orders\",\r\n \"stage\": \"prod\"}\r\n");
    write("shorthand", "purpose=orders,stage='a, b'\n");
    write("lines", "a\r\nb\rc\n");
    write("tokens", r#"["one", "two"]"#);
    write(
        "document",
        r#"{"KeyId": "alias/d", "NumberOfBytes": 24, "EncryptionContext": {"a": "b"}, "GrantTokens": ["t"]}"#,
    );
    write("key", "alias/file");
    let in_home = |text: &str| text.replace("HERE", &home.path().display().to_string());

    let key = ["--key-id", "alias/orders", "--key-spec", "AES_256"];
    let mut lines: Vec<_> = CONTEXTS
        .iter()
        .map(|context| line(&[&key[..], &["--encryption-context", &in_home(context)]].concat()))
        .collect();
    for words in [
        &["--key-id", "alias/a", "--number-of-bytes", "64"][..],
        &["--key-id=alias/a", "--number-of-bytes=x"],
        &["--key-id", "file://HERE/key", "--key-spec=AES_128"],
        &["--key-spec=AES_128", "--key-id", "alias/a", "--grant-tokens", "one", "two"],
        &["--key-spec=AES_128", "--key-id", "alias/a", "--grant-tokens", r#"["one", "two"]"#],
        &["--key-spec=AES_128", "--key-id", "alias/a", "--grant-tokens", "[\"one\", 2]"],
        &["--key-spec=AES_128", "--key-id", "alias/a", "--grant-tokens", "file://HERE/tokens"],
        &["--cli-input-json", "file://HERE/document"],
        &["--cli-input-json", "file://HERE/document", "--key-id", "alias/a", "--encryption-context", "c=d"],
        &["--cli-input-json", r#"{"KeyId": "alias/a", "KeySpec": "AES_256"}"#],
        &["--cli-input-json", r#"{"KeyID": "alias/a", "KeySpec": "AES_256"}"#],
        &["--cli-input-json", r#"{"KeyId": 7, "KeySpec": "AES_256"}"#],
        &["--cli-input-json", r#"{"KeyId": "alias/a", "NumberOfBytes": "7"}"#],
        &["--cli-input-json", r#"{"KeyId": "alias/a", "KeySpec": "AES_256", "EncryptionContext": null}"#],
        &["--cli-input-json", "[]"],
        &["--cli-input-json", "{"],
        &["--cli-input-json", "fileb://HERE/none"],
        &["--key-spec=AES_256"],
    ] {
        lines.push(words.iter().map(|word| in_home(word)).collect());
    }
    let mut different = Vec::new();
    for (words, sent) in lines.iter().zip(sent_by_aws(&lines, home.path())) {
        let printed = printed_by_plugin(words, home.path());
        if printed != sent {
            different.push(format!("{words:?}\n  AWS CLI: {sent}\n  plugin:  {printed}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
