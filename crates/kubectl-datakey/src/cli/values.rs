//! The values of flags and arguments. clap prints the doc comments of the variants as help.

use clap::ValueEnum;
use datakey::arn::{KmsArn, RoleArn};

/// What a completion script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionTarget {
    /// bash.
    Bash,
    /// elvish.
    Elvish,
    /// fish.
    Fish,
    /// PowerShell.
    #[value(name = "powershell")]
    PowerShell,
    /// zsh.
    Zsh,
    /// kubectl's own completion, in whatever shell.
    Kubectl,
}

/// How policies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyFormat {
    /// JSON, as AWS takes it.
    Json,
    /// YAML, as CloudFormation takes it.
    Yaml,
}

/// In what form a wrapped data key is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A ConfigMap with all entries that the Secret has, as YAML: for Git, and for clusters without the operator.
    Manifest,
    /// One JSON object.
    Json,
    /// Assignments for a shell, the wrapped data key in base64.
    Env,
    /// The bytes of the wrapped data key alone.
    Raw,
}

/// One of the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// Without --class and --rewrap: the IAM policy of the operator's role.
    Operator,
    /// Without --class and --rewrap: the IAM policy of the workload's role.
    Workload,
    /// With --rewrap: the IAM policy of the role that rewraps.
    Rewrap,
    /// The statements of the KMS key's policy.
    Key,
    /// With --class: the IAM policy of the operator's role, by which it may assume the role of the class.
    AssumeRole,
    /// With --class: the trust policy of the role of the class.
    Trust,
    /// With --class: the IAM policy of the role of the class; of the operator's role if the class has none.
    Role,
}

// === impl Document ===

impl Document {
    /// Returns the name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Checks the ARN of an IAM role.
pub fn role_arn(text: &str) -> Result<String, String> {
    let wrong = || "write it as arn:aws:iam::111122223333:role/NAME".to_owned();
    RoleArn::parse(text).map(|_| text.to_owned()).ok_or_else(wrong)
}

/// Checks the ARN of a KMS key. An alias is refused: it can name another key when AWS KMS is called.
///
/// # Errors
/// Returns a message that says how to get the ARN.
pub fn key_arn(text: &str) -> Result<String, String> {
    let wrong = || {
        "write the ARN of the KMS key, as aws kms describe-key --key-id KEY --query KeyMetadata.Arn --output text prints it".to_owned()
    };
    KmsArn::parse(text).filter(KmsArn::is_key).map(|_| text.to_owned()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::ARN;

    #[test]
    fn only_the_arn_of_a_kms_key_is_accepted() {
        let multi_region = format!("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-{}", "0a".repeat(16));
        for arn in [ARN, &multi_region] {
            assert_eq!(key_arn(arn).as_deref(), Ok(arn));
        }
        let (_, key_id) = ARN.rsplit_once('/').unwrap();
        let alias = ARN.replace(&format!("key/{key_id}"), "alias/orders");
        for other in ["", key_id, "alias/orders", &alias, &ARN.replace(key_id, "*"), &ARN.replace(":kms:", ":s3:")] {
            assert!(key_arn(other).unwrap_err().contains("--query KeyMetadata.Arn"), "{other}");
        }
    }

    #[test]
    fn role_arns_may_have_any_partition_and_a_path() {
        for arn in ["arn:aws-cn:iam::111122223333:role/x", "arn:aws:iam::111122223333:role/team/x"] {
            assert_eq!(role_arn(arn).as_deref(), Ok(arn));
        }
    }

    #[test]
    fn other_arns_are_refused() {
        for arn in [
            "",
            "orders",
            "arn:aws:iam::1111:role/x",
            "arn:aws:iam::111122223333:user/x",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(role_arn(arn).is_err(), "{arn}");
        }
    }
}
