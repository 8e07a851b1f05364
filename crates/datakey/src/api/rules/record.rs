//! The rules that protect the record: a recorded version is neither changed nor removed.
//!
//! The API server compares an entry with the one of the same version before. It counts the fields of two objects and compares the
//! fields of the first. It ignores a field of the first that is not in the schema and not in the second. So `self == oldSelf` alone
//! is true where an unknown field replaces a known one; both directions are false. A new name for an unknown field passes both.
//!
//! Comparing an entry so costs the API server more than all other rules of a write together. So the rules compare field by field
//! where both have the same number of fields and none that is unknown: then all fields are compared, and equal ones are equal
//! objects. Fields that every entry has are compared by rules of their own, which cost least.

use super::{
    demand::{all_hold, message_of_the_first_broken},
    demands_on_a_request, write_once_message,
};
use crate::api::kind::{Kind, KindId};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

/// A rule of a field that every recorded version or its request has.
pub(in crate::api) fn recorded_value_stays(kind: &Kind) -> ValidationRule {
    write_once(kind, "self == oldSelf".to_owned())
}

/// The fields of an object that is written once.
#[derive(Clone, Copy)]
pub(in crate::api) struct Fields {
    /// Those that each such object has.
    pub required: &'static [&'static str],
    /// Those that it may have, with the most frequent first.
    pub optional: &'static [&'static str],
}

/// The fields of a recorded version.
pub(in crate::api) fn of_a_version(kind: &Kind) -> Fields {
    let required: &[&str] = match kind.id {
        KindId::DataKey => &["version", "request", "ciphertextBlob", "keyId", "issuedAt"],
        KindId::DataKeyPair => &["version", "request", "ciphertextBlob", "publicKey", "keyId", "issuedAt"],
    };
    Fields { required, optional: &["requestId", "keyMaterialId", "class", "asWritten", "rewrapOf"] }
}

/// The fields of its request.
pub(in crate::api) fn of_a_request(kind: &Kind) -> Fields {
    match kind.id {
        KindId::DataKey => {
            Fields { required: &["keyId"], optional: &["keySpec", "encryptionContext", "region", "numberOfBytes"] }
        }
        KindId::DataKeyPair => {
            Fields { required: &["keyId", "keyPairSpec"], optional: &["encryptionContext", "region"] }
        }
    }
}

/// The fields of the request as its spec has it.
pub(in crate::api) fn of_a_written_request(kind: &Kind) -> Fields {
    match kind.id {
        KindId::DataKey => {
            Fields { required: &[], optional: &["keyId", "keySpec", "encryptionContext", "region", "numberOfBytes"] }
        }
        KindId::DataKeyPair => {
            Fields { required: &["keyPairSpec"], optional: &["keyId", "encryptionContext", "region"] }
        }
    }
}

/// A rule of each recorded version. Its request has a rule of its own.
pub(in crate::api) fn recorded_version_stays(kind: &Kind) -> ValidationRule {
    write_once(kind, stays(of_a_version(kind)))
}

/// A rule of a part of a recorded version that most versions do not have.
pub(in crate::api) fn recorded_part_stays(kind: &Kind) -> ValidationRule {
    write_once(kind, "self == oldSelf && oldSelf == self".to_owned())
}

/// A rule of the request of each recorded version.
pub(in crate::api) fn recorded_request_stays(kind: &Kind) -> ValidationRule {
    write_once(kind, stays(of_a_request(kind)))
}

/// A rule of the request of each recorded version, in place of that of a pin: a recorded request was checked, and stays.
pub(in crate::api) fn request_of_new_versions(kind: &Kind) -> ValidationRule {
    let demands = demands_on_a_request(kind);
    ValidationRule {
        rule: format!("oldSelf.hasValue() || {}", all_hold(&demands)),
        message_expression: Some(message_of_the_first_broken(&demands, "''")),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

/// A rule of the list: the rule of an entry does not see that the entry is gone.
pub(in crate::api) fn recorded_versions_are_not_removed(kind: &Kind) -> ValidationRule {
    let rule = "[self.map(entry, entry.version)].all(versions, oldSelf.all(entry, entry.version in versions))";
    write_once(kind, rule.to_owned())
}

/// Whether an object has the fields that it had, if the fields that each such object has are compared elsewhere. The size of an
/// object counts its unknown fields, too: once all fields are counted, those that follow are absent, and are not selected.
fn stays(Fields { required, optional }: Fields) -> String {
    let counted = |fields: &[&str]| {
        fields.iter().fold(format!("size(dyn(self)) == {}", required.len()), |sum, field| {
            format!("{sum} + ({field}.hasValue() ? 1 : 0)")
        })
    };
    let same = (0..optional.len()).rev().fold(String::new(), |rest, last| {
        let field = optional[last];
        let or_rest = if rest.is_empty() { rest } else { format!(" || {rest}") };
        format!(
            "[self.?{field}].all({field}, [{field}] == [oldSelf.?{field}] && ({}{or_rest}))",
            counted(&optional[..=last])
        )
    });
    format!("size(dyn(self)) == size(dyn(oldSelf)) && {same} || self == oldSelf && oldSelf == self")
}

fn write_once(kind: &Kind, rule: String) -> ValidationRule {
    ValidationRule { rule, message: Some(write_once_message(kind)), ..ValidationRule::default() }
}
