//! The one rule of the whole object, where spec and status are seen together: what was issued stays.
//!
//! It is one rule because each selection of `self.spec` and `self.status` costs the API server time on every write. Each demand
//! is a function here; the error has the message of the first demand that is not met.
//!
//! The demands use these names: `spec`, `status`, `record` (`status.versions`) and `secretName` (`status.secretName`, empty
//! where it is absent); `oldStatus`, `oldRecord` and `oldSecretName` are those of the object before the write.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

use super::{WRITE_ONCE, is_same_request};

/// Something that must be true.
pub(super) struct Demand {
    /// The CEL expression.
    pub holds: String,
    /// What the user must do if it is false.
    pub message: &'static str,
}

/// The rule. It is a transition rule, so the API server does not evaluate it for a new object, which has no record.
///
/// A write of the status that records nothing needs no look at the spec. The API server changes spec and status in different
/// writes (Kubernetes API conventions, "Spec and Status"), and the earlier writes were checked. The rule recognizes such a write
/// by a change of `status.secret`; other writes are checked in full.
///
/// Three other rules make "records nothing" true: those of the list and of its entries, and the one that makes versions integers, so
/// that no two entries have the same one. Without them a write could change an entry and keep the number of entries.
///
/// Where the API server cannot evaluate the rule, it refuses the write with `message`.
pub(in crate::api) fn issued_settings_stay() -> ValidationRule {
    let records_nothing = "size(record) == size(oldRecord) && [secretName] == [oldSecretName] && \
                           [status.?secret.?resourceVersion.orValue('')] != [oldStatus.?secret.?resourceVersion.orValue('')]";
    let (of_status, of_spec) = (demands_on_the_status(), demands_on_the_spec());
    let holds =
        format!("{} && ({records_nothing} || [self.spec].all(spec, {}))", all_hold(&of_status), all_hold(&of_spec));
    // Without a status before, nothing was issued: then the names have no values, and an error is true where the alternative is.
    // The definition's default replaces a status that a write removes.
    let nothing_issued = "!has(oldSelf.status) || (!has(self.status) && !has(oldSelf.status.versions))";
    let message =
        format!("{}[self.spec].map(spec, {}'')[0]", messages_if_broken(&of_status), messages_if_broken(&of_spec));
    ValidationRule {
        rule: format!("{} || {nothing_issued}", with_names(&holds, "all", "")),
        message: Some("what is issued must stay as status.versions records it".to_owned()),
        message_expression: Some(with_names(&message, "map", "[0]")),
        field_path: Some(".spec".to_owned()),
        ..ValidationRule::default()
    }
}

/// Gives the values their names, by a macro of CEL over lists of one element.
fn with_names(expression: &str, each: &str, result: &str) -> String {
    let names = [
        ("self.status", "status"),
        ("oldSelf.status", "oldStatus"),
        ("status.?versions.orValue([])", "record"),
        ("oldStatus.?versions.orValue([])", "oldRecord"),
        ("status.?secretName.orValue('')", "secretName"),
        ("oldStatus.?secretName.orValue('')", "oldSecretName"),
    ];
    names
        .iter()
        .rev()
        .fold(expression.to_owned(), |inner, (value, name)| format!("[{value}].{each}({name}, {inner}){result}"))
}

fn all_hold(demands: &[Demand]) -> String {
    let all: Vec<_> = demands.iter().map(|demand| format!("({})", demand.holds)).collect();
    all.join(" && ")
}

/// The beginning of a conditional expression: the message of the first demand that is not met, or else what follows.
fn messages_if_broken(demands: &[Demand]) -> String {
    let choices = demands.iter().map(|Demand { holds, message }| format!("!({holds}) ? {} : ", literal(message)));
    choices.collect::<Vec<_>>().concat()
}

/// A string literal of CEL. The messages have no other characters that CEL would read as an escape.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn demands_on_the_status() -> Vec<Demand> {
    vec![record_is_not_removed(), secret_name_stays()]
}

pub(super) fn demands_on_the_spec() -> Vec<Demand> {
    vec![
        recorded_versions_are_different_data_keys(),
        spec_answers_the_record(),
        secret_name_is_fixed_once_issued(),
        deletion_policy_is_fixed_once_issued(),
        pins_agree_with_the_record(),
        pins_are_not_other_recorded_versions(),
    ]
}

/// The rules of the list and of its entries are not evaluated when the list is gone, nor for the first record.
pub(super) fn record_is_not_removed() -> Demand {
    Demand { holds: "size(record) > 0 || size(oldRecord) == 0".to_owned(), message: WRITE_ONCE }
}

pub(super) fn secret_name_stays() -> Demand {
    Demand {
        holds: "[oldSecretName] == [''] || [secretName] == [oldSecretName]".to_owned(),
        message: "status.secretName is fixed once a version is issued: leave it as it is",
    }
}

/// Tolerates duplicates from before the rule, because otherwise the status of such an object could not be written any more.
pub(super) fn recorded_versions_are_different_data_keys() -> Demand {
    Demand {
        holds: "size(record) < 2 || \
                [size(oldRecord) > 0 ? oldSelf.status.versions.map(entry, entry.version) : []].all(before, \
                [self.status.versions.map(entry, [entry.ciphertextBlob])].all(blobs, self.status.versions.all(entry, \
                entry.version in before || blobs.exists_one(blob, blob == [entry.ciphertextBlob]))))"
            .to_owned(),
        message: "status.versions records one ciphertextBlob twice: each version must have a data key of its own",
    }
}

pub(super) fn spec_answers_the_record() -> Demand {
    Demand {
        holds: format!(
            "size(record) == 0 || [has(spec.version) ? spec.version : 1].all(wanted, self.status.versions.all(entry, \
             entry.version != wanted || [entry.request].all(request, {})))",
            is_same_request("request", "spec")
        ),
        message: "this version's data key is issued: keyId, keySpec, numberOfBytes, encryptionContext and region must stay as \
                  status.versions records them. To issue a data key with other settings, set spec.version to a new number",
    }
}

pub(super) fn secret_name_is_fixed_once_issued() -> Demand {
    Demand {
        holds: "[secretName] == [''] || [has(spec.secretName) ? spec.secretName : self.metadata.name] == [secretName]"
            .to_owned(),
        message: "secretName is fixed once a version is issued: set it back to status.secretName. For another Secret create \
                  another DataKey",
    }
}

/// Compares with the spec before, because the record has no policy.
pub(super) fn deletion_policy_is_fixed_once_issued() -> Demand {
    Demand {
        holds: "size(oldRecord) == 0 || [oldSelf.spec].all(oldSpec, \
                [has(spec.deletionPolicy) ? spec.deletionPolicy : 'Retain'] == \
                [has(oldSpec.deletionPolicy) ? oldSpec.deletionPolicy : 'Retain'])"
            .to_owned(),
        message: "deletionPolicy is fixed once a version is issued: set it back. To keep the Secret of a DataKey under Delete, run \
                  kubectl datakey keep NAME; or run kubectl delete datakey NAME --cascade=orphan, and then apply the DataKey under \
                  Retain: it takes over what the Secret holds",
    }
}

/// The record names the replica of a multi-Region key in its own Region. The operator, not this rule, checks that the rest of
/// the ARN is the same.
pub(super) fn pins_agree_with_the_record() -> Demand {
    Demand {
        holds: format!(
            "!has(spec.wrappedKeys) || size(record) == 0 || [self.status.versions.map(entry, entry.version)].all(versions, \
             self.spec.wrappedKeys.all(pin, [versions.indexOf(pin.version)].all(index, index < 0 || \
             [self.status.versions[index]].all(entry, [entry.ciphertextBlob] == [pin.ciphertextBlob] && \
             ([entry.keyId] == [pin.keyId] || \
             self.status.versions[index].keyId.contains(':key/mrk-') && pin.keyId.contains(':key/mrk-')) && \
             [entry.request].all(recorded, [pin.request].all(pinned, {}))))))",
            is_same_request("recorded", "pinned")
        ),
        message: "spec.wrappedKeys pins another data key than status.versions records for that version, and data may be \
                  encrypted under the recorded one. Remove that pin, or make it a copy of the entry in status.versions; for the \
                  data key of another DataKey use a version that is not issued here",
    }
}

/// Tolerates duplicates from before the rule, because otherwise the status of such an object could not be written any more. The
/// second alternative accepts most pins without a look at each recorded version. It searches by version: the API server charges a
/// search in a list for every byte of its strings, which would refuse large records.
pub(super) fn pins_are_not_other_recorded_versions() -> Demand {
    Demand {
        holds: "!has(spec.wrappedKeys) || size(record) == 0 || \
                [self.status.versions.map(entry, entry.version)].all(versions, \
                [self.status.versions.map(entry, [entry.ciphertextBlob])].all(blobs, \
                self.spec.wrappedKeys.all(pin, [[pin.ciphertextBlob]].all(pinned, !(pinned in blobs) || \
                blobs.exists_one(blob, blob == pinned) && pin.version in versions && \
                blobs[versions.indexOf(pin.version)] == pinned || \
                self.status.versions.all(entry, entry.version == pin.version || [entry.ciphertextBlob] != pinned || \
                (size(oldRecord) > 0 && has(oldSelf.spec.wrappedKeys) && \
                oldSelf.status.versions.exists(old, old.version == entry.version) && \
                oldSelf.spec.wrappedKeys.exists(old, old.version == pin.version)))))))"
            .to_owned(),
        message: "spec.wrappedKeys pins a data key that status.versions records as another version, and each version must have \
                  a data key of its own. Remove that pin, or pin the entry that belongs to its version",
    }
}
