//! Flags that the AWS CLI has, by their names there.

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use datakey::{
    api::KeyPairSpec,
    names::{MAX_LABEL, is_subdomain},
};
use datakey_aws::Overrides;

use crate::aws_cli;

/// Options of `aws kms generate-data-key-without-plaintext`, `aws kms generate-data-key-pair-without-plaintext` and `aws kms decrypt` that have no use here (AWS CLI Command
/// Reference, global options).
pub const WITHOUT_USE: [&str; 16] = [
    "--cli-auto-prompt",
    "--cli-binary-format",
    "--cli-connect-timeout",
    "--cli-read-timeout",
    "--color",
    "--debug",
    "--encryption-algorithm",
    "--no-cli-auto-prompt",
    "--no-cli-pager",
    "--no-paginate",
    "--no-sign-request",
    "--no-verify-ssl",
    "--output",
    "--query",
    "--recipient",
    "--v2-debug",
];

/// How AWS KMS is called under the user's own credentials.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// The AWS Region of the KMS key, if --key-id is no ARN.
    #[arg(long, value_parser = aws_cli::region)]
    pub region: Option<String>,

    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// The same, where the ARN of a KMS key names the Region.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "AWS")]
pub struct EndpointArgs {
    /// The profile of your AWS configuration. It goes before access keys in the environment.
    #[arg(long)]
    pub profile: Option<String>,

    /// The endpoint of AWS KMS that is called, if it is not that of AWS.
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,

    /// A file of PEM certificates to trust when AWS KMS is called, in place of those of the system.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub ca_bundle: Option<String>,
}

// === impl AwsArgs ===

impl AwsArgs {
    /// The settings that go before those of the environment.
    pub fn overrides(&self) -> Overrides {
        Overrides { region: self.region.clone(), ..self.endpoint.overrides() }
    }
}

// === impl EndpointArgs ===

impl EndpointArgs {
    /// The settings that go before those of the environment.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            region: None,
            profile: self.profile.clone(),
            endpoint_url: self.endpoint_url.clone(),
            ca_bundle: self.ca_bundle.clone(),
        }
    }
}

/// Reads the kind of a key pair by its name in the KMS API.
pub fn key_pair_spec() -> impl TypedValueParser<Value = KeyPairSpec> {
    let names = KeyPairSpec::ALL.iter().map(|spec| spec.as_str());
    let find = |name: String| KeyPairSpec::ALL.iter().find(|spec| spec.as_str() == name).copied();
    PossibleValuesParser::new(names).try_map(move |name| find(name).ok_or("it is no kind of key pair"))
}

/// Reads the name of a DataKey or DataKeyPair.
pub fn data_key_name(text: &str) -> Result<String, String> {
    // The label of its Secret has the name, too.
    if text.len() <= MAX_LABEL && is_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err("the name of a DataKey or DataKeyPair has at most 63 lower-case letters, digits, '-' and '.', and begins and ends with a letter or \
         digit"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_definition_accepts() {
        for name in ["a", "orders-2", "orders.v2", &"a".repeat(63)] {
            assert!(data_key_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a..b", ".a", "a_b", "ä", &"a".repeat(64)] {
            assert!(data_key_name(name).is_err(), "{name}");
        }
    }
}
