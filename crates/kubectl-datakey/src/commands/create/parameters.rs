//! The parameters of `create`: flags, and what `--cli-input-json` and `--cli-input-yaml` add. Pure.

use datakey::{
    api::{DataKey, DataKeyPair, KeyKind as _, Kind, RequestFlaw, Rest, WrittenRequest},
    arn::KmsArn,
};
use serde_json::{Map, Value, json};

use crate::{
    aws_cli::{self, cli_input::CliInput},
    cli::create::{Create, DryRun},
};

/// The most grant tokens, and the most characters of one (AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`).
const MAX_GRANT_TOKENS: usize = 10;
const MAX_GRANT_TOKEN: usize = 8192;

/// Checked parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameters {
    name: String,
    /// The name of the class.
    pub class_name: Option<String>,
    /// The request to KMS; without a key ID, the class names one.
    pub request: WrittenRequest,
    /// Grant tokens; empty for none.
    pub grant_tokens: Vec<String>,
    /// The dry run that takes the place of a change.
    pub dry_run: Option<DryRun>,
}

// === impl Parameters ===

impl Parameters {
    /// Reads flags before the document, and checks them as the definition of the kind does.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn of(args: &Create) -> Result<Self, String> {
        let document = document(args)?;
        let key_id = args.key_id.clone().or(document.key_id);
        if key_id.is_none() && args.class_name.is_none() {
            return Err("name the KMS key by --key-id, for example --key-id alias/orders, or a class that names one by --class-name"
                .to_owned());
        }
        let region = region_of_spec(key_id.as_deref().unwrap_or_default(), args.aws.region.as_deref())?;
        let request = WrittenRequest {
            key_id,
            key_spec: args.key_spec.or(document.key_spec),
            number_of_bytes: args.number_of_bytes.or(document.number_of_bytes),
            key_pair_spec: args.key_pair_spec.or(document.key_pair_spec),
            encryption_context: args.encryption_context.clone().or(document.encryption_context),
            region,
            rest: Rest::new(),
        };
        if let Some(flaw) = RequestFlaw::of_written(kind(&request), &request) {
            return Err(match flaw {
                RequestFlaw::Length | RequestFlaw::KeyPairSpec => ONE_MATERIAL.to_owned(),
                flaw => by_flags(flaw),
            });
        }
        let given = args.grant_tokens.as_deref().map(aws_cli::grant_tokens).transpose();
        let given = given.map_err(|error| format!("--grant-tokens: {error}"))?;
        let grant_tokens = given.or(document.grant_tokens).unwrap_or_default();
        check_grant_tokens(&grant_tokens)?;
        let by_document = document.dry_run.unwrap_or_default() && !args.no_dry_run;
        let dry_run = args.dry_run.or(by_document.then_some(DryRun::Aws));
        if dry_run == Some(DryRun::Aws) && request.key_id.is_none() {
            return Err("a dry run asks AWS KMS about a KMS key, and the class names it, which this command does not read: give \
                        --key-id, too, or check the manifest by --dry-run=server"
                .to_owned());
        }
        let (name, class_name) = (args.name.clone().unwrap_or_default(), args.class_name.clone());
        Ok(Self { name, class_name, request, grant_tokens, dry_run })
    }

    /// Returns the kind of the object.
    pub fn kind(&self) -> &'static Kind {
        kind(&self.request)
    }

    /// Returns the manifest of the object, with nothing that was not given.
    pub fn manifest(&self, namespace: Option<&str>) -> Value {
        let mut metadata = Map::from_iter([("name".to_owned(), json!(self.name))]);
        if let Some(namespace) = namespace {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let mut spec = json!(self.request);
        if let Some(class_name) = &self.class_name {
            spec["className"] = json!(class_name);
        }
        if !self.grant_tokens.is_empty() {
            spec["grantTokens"] = json!(self.grant_tokens);
        }
        let Kind { api_version, name, .. } = self.kind();
        json!({ "apiVersion": api_version, "kind": name, "metadata": metadata, "spec": spec })
    }
}

/// What to do about a request that does not name exactly one of them.
const ONE_MATERIAL: &str = "give exactly one of --key-spec (AES_256 or AES_128), --number-of-bytes (1 to 1024) and, for a key pair, \
                            --key-pair-spec";

/// The kind of the object for a request.
fn kind(request: &WrittenRequest) -> &'static Kind {
    if request.key_pair_spec.is_some() { DataKeyPair::KIND } else { DataKey::KIND }
}

/// Reads `--cli-input-json` or `--cli-input-yaml`.
fn document(args: &Create) -> Result<CliInput, String> {
    match (&args.cli_input_json, &args.cli_input_yaml) {
        (Some(json), _) => CliInput::json(json).map_err(|error| format!("--cli-input-json: {error}")),
        (None, Some(yaml)) => CliInput::yaml(yaml).map_err(|error| format!("--cli-input-yaml: {error}")),
        (None, None) => Ok(CliInput::default()),
    }
}

/// Returns `spec.region`: an ARN names its Region itself.
pub fn region_of_spec(key_id: &str, region: Option<&str>) -> Result<Option<String>, String> {
    match (KmsArn::parse(key_id), region) {
        (Some(arn), Some(region)) if arn.region != region => Err(format!(
            "the ARN in --key-id names Region {}: leave out --region {region}, or name the key in that Region",
            arn.region
        )),
        (Some(_), _) => Ok(None),
        (None, region) => Ok(region.map(str::to_owned)),
    }
}

/// What to do about a flaw, by the names of the flags.
pub fn by_flags(flaw: RequestFlaw) -> String {
    match flaw {
        RequestFlaw::Length => {
            "give exactly one of --key-spec (AES_256 or AES_128) and --number-of-bytes (1 to 1024)".to_owned()
        }
        RequestFlaw::KeyId => flaw.advice().replacen("keyId", "--key-id", 1),
        RequestFlaw::AwsManagedKey => format!("--key-id: {}", flaw.advice()),
        _ => flaw.advice(),
    }
}

fn check_grant_tokens(tokens: &[String]) -> Result<(), String> {
    if tokens.len() > MAX_GRANT_TOKENS {
        return Err(format!("--grant-tokens: there may be at most {MAX_GRANT_TOKENS}"));
    }
    match tokens.iter().find(|token| !(1..=MAX_GRANT_TOKEN).contains(&token.chars().count())) {
        Some(_) => Err(format!("--grant-tokens: each has 1 to {MAX_GRANT_TOKEN} characters")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use datakey::fixtures::ARN;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parameters(words: &[&str]) -> Result<Parameters, String> {
        let words = [&["kubectl-datakey", "create", "orders"], words].concat();
        match Cli::try_parse_from(words).unwrap().command {
            Command::Create(args) => Parameters::of(&args),
            other => panic!("{other:?}"),
        }
    }

    fn spec(words: &[&str]) -> Value {
        parameters(words).unwrap().manifest(None)["spec"].take()
    }

    const LENGTH: &str = "--key-spec=AES_256";

    #[test]
    fn manifest_has_what_was_given_and_nothing_else() {
        let manifest = parameters(&["--key-id", "alias/orders", LENGTH]).unwrap().manifest(None);
        assert_eq!(
            manifest,
            json!({
                "apiVersion": "datakey.dev/v1alpha1",
                "kind": "DataKey",
                "metadata": { "name": "orders" },
                "spec": { "keyId": "alias/orders", "keySpec": "AES_256" },
            })
        );
        let all = parameters(&[
            "--key-id=alias/orders",
            "--number-of-bytes=64",
            "--encryption-context=purpose=orders,stage=prod",
            "--grant-tokens",
            "one",
            "two",
            "--region=eu-north-1",
        ]);
        assert_eq!(
            all.unwrap().manifest(Some("shop")),
            json!({
                "apiVersion": "datakey.dev/v1alpha1",
                "kind": "DataKey",
                "metadata": { "name": "orders", "namespace": "shop" },
                "spec": {
                    "keyId": "alias/orders",
                    "numberOfBytes": 64,
                    "encryptionContext": { "purpose": "orders", "stage": "prod" },
                    "grantTokens": ["one", "two"],
                    "region": "eu-north-1",
                },
            })
        );
    }

    #[test]
    fn kind_of_a_key_pair_makes_a_data_key_pair() {
        let words = ["--key-id=alias/tokens", "--key-pair-spec=ECC_NIST_P256", "--encryption-context=purpose=tokens"];
        let pair = parameters(&words).unwrap();
        let spec = json!({
            "keyId": "alias/tokens", "keyPairSpec": "ECC_NIST_P256", "encryptionContext": { "purpose": "tokens" },
        });
        let manifest = json!({
            "apiVersion": "datakey.dev/v1alpha1", "kind": "DataKeyPair", "metadata": { "name": "orders" }, "spec": spec,
        });
        assert_eq!((pair.kind().name, pair.manifest(None)), ("DataKeyPair", manifest.clone()));
        let document = r#"--cli-input-json={"KeyId": "alias/tokens", "KeyPairSpec": "RSA_2048",
            "EncryptionContext": {"purpose": "tokens"}}"#;
        assert_eq!(parameters(&[document, "--key-pair-spec=ECC_NIST_P256"]).unwrap().manifest(None), manifest);
        for wrong in ["--key-spec=AES_256", "--number-of-bytes=32"] {
            let error = parameters(&[document, wrong]).unwrap_err();
            assert!(error.contains("exactly one of --key-spec") && error.contains("--key-pair-spec"), "{error}");
        }
    }

    #[test]
    fn class_can_name_the_key() {
        assert_eq!(spec(&["--class-name=shop", LENGTH]), json!({ "className": "shop", "keySpec": "AES_256" }));
        assert_eq!(
            spec(&["--class-name=dkc/shop", "--key-id=alias/a", "--key-pair-spec=ECC_NIST_P256", "--region=eu-west-1"]),
            json!({ "className": "shop", "keyId": "alias/a", "keyPairSpec": "ECC_NIST_P256", "region": "eu-west-1" })
        );
        for (words, message) in [
            (&["--class-name=shop"][..], "exactly one of --key-spec"),
            (&["--class-name=shop", LENGTH, "--encryption-context=aws:a=b"], "reserved"),
            (&["--class-name=shop", LENGTH, "--dry-run"], "give --key-id, too"),
            (&["--class-name=shop", LENGTH, r#"--cli-input-json={"DryRun": true}"#], "give --key-id, too"),
        ] {
            let error = parameters(words).unwrap_err();
            assert!(error.contains(message), "{words:?}: {error}");
        }
        for by in ["--dry-run=client", "--dry-run=server"] {
            assert!(parameters(&["--class-name=shop", LENGTH, by]).is_ok(), "{by}");
        }
        assert!(parameters(&["--class-name=shop", "--key-id=alias/a", LENGTH, "--dry-run"]).is_ok());
    }

    #[test]
    fn region_is_in_the_spec_only_beside_no_arn() {
        assert_eq!(spec(&["--key-id", ARN, LENGTH, "--region=eu-west-1"]).get("region"), None);
        let other = parameters(&["--key-id", ARN, LENGTH, "--region=eu-north-1"]).unwrap_err();
        assert!(other.contains("names Region eu-west-1"), "{other}");
    }

    #[test]
    fn flags_go_before_the_document() {
        let document = r#"{"KeyId": "alias/a", "KeySpec": "AES_128", "EncryptionContext": {"a": "b"}, "DryRun": true}"#;
        let json = format!("--cli-input-json={document}");
        assert_eq!(
            spec(&[&json]),
            json!({ "keyId": "alias/a", "keySpec": "AES_128", "encryptionContext": { "a": "b" } })
        );
        let both = ["--key-id=alias/b", LENGTH, "--encryption-context=c=d", &format!("--cli-input-yaml={document}")];
        assert_eq!(spec(&both), json!({ "keyId": "alias/b", "keySpec": "AES_256", "encryptionContext": { "c": "d" } }));
        let dry_run = |words: &[&str]| parameters(&[&[json.as_str()], words].concat()).unwrap().dry_run;
        assert_eq!(dry_run(&[]), Some(DryRun::Aws));
        assert_eq!(dry_run(&["--no-dry-run"]), None);
        assert_eq!(dry_run(&["--dry-run=client"]), Some(DryRun::Client));
        assert_eq!(dry_run(&["--dry-run"]), Some(DryRun::Aws));
    }

    #[test]
    fn wrong_parameters_are_refused_with_what_to_do() {
        for (words, message) in [
            (&[LENGTH][..], "name the KMS key by --key-id, for example --key-id alias/orders, or a class"),
            (&["--key-id=orders", LENGTH], "--key-id must be a key ID"),
            (&["--key-id=alias/aws/s3", LENGTH], "name a customer managed key"),
            (&["--key-id=alias/a"], "exactly one of --key-spec"),
            (&["--key-id=alias/a", LENGTH, "--number-of-bytes=32"], "exactly one of --key-spec"),
            (&["--key-id=alias/a", r#"--cli-input-json={"NumberOfBytes": 0}"#], "exactly one of --key-spec"),
            (&["--key-id=alias/a", LENGTH, "--encryption-context=aws:a=b"], "reserved"),
            (&["--key-id=alias/a", LENGTH, "--encryption-context=a=b,A=c"], "differ in case only"),
            (&["--key-id=alias/a", LENGTH, "--grant-tokens="], "each has 1 to 8192"),
            (&["--cli-input-json={"], "--cli-input-json: it is no JSON"),
            (&["--cli-input-yaml=[]"], "--cli-input-yaml: it has no parameters by name"),
        ] {
            let error = parameters(words).unwrap_err();
            assert!(error.contains(message), "{words:?}: {error}");
        }
        let tokens = ["t"; 11];
        let many = [&["--key-id=alias/a", LENGTH, "--grant-tokens"], &tokens[..]].concat();
        assert!(parameters(&many).unwrap_err().contains("at most 10"));
    }
}
