//! The one rule of the whole object, where spec and status are seen together: what was issued stays.
//!
//! It is one rule because each selection of `self.spec` and `self.status` costs the API server time on every write. Each demand
//! is a function here; the error has the message of the first demand that is not met.
//!
//! The demands use these names: `spec`, `status`, `record` (`status.versions`) and `secretName` (`status.secretName`, empty
//! where it is absent); `oldStatus`, `oldRecord` and `oldSecretName` are those of the object before the write.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

use super::{
    demand::{Demand, all_hold, message_of_the_first_broken},
    fixed_fields, has_one_length, is_same_request, no_region_beside_an_arn, write_once_message, written,
};
use crate::api::kind::{Kind, KindId};

/// A CEL expression for whether a write leaves the spec as it is: an older definition may have let it in.
const UNCHANGED: &str = "self.spec == oldSelf.spec && oldSelf.spec == self.spec";

/// The rule for a new object. Its demands on a change of the spec are in the rule of the whole object, because a rule of the spec
/// costs the API server time on each write of the status.
///
/// The API server refuses a number with a decimal point with `message`.
pub(in crate::api) fn new_spec_agrees_with_itself(kind: &Kind) -> ValidationRule {
    let demands = demands_on_a_new_spec(kind);
    ValidationRule {
        rule: format!("oldSelf.hasValue() || [self.spec].all(spec, {})", all_hold(&demands)),
        message: Some(
            "spec must agree with itself, and its numbers must be integers without a decimal point".to_owned(),
        ),
        message_expression: Some(format!("[self.spec].map(spec, {})[0]", message_of_the_first_broken(&demands, "''"))),
        field_path: Some(".spec".to_owned()),
        optional_old_self: Some(true),
        ..ValidationRule::default()
    }
}

/// The rule. It is a transition rule, so the API server does not evaluate it for a new object, which has no record.
///
/// A write of the status that records nothing needs no look at the spec. The API server changes spec and status in different
/// writes (Kubernetes API conventions, "Spec and Status"), and the earlier writes were checked. The rule recognizes such a write
/// by the number of fields of the status, which costs nothing to read, or by a change of `status.secret`, and a write that records
/// something by the number of versions; other writes are checked in full.
///
/// Three other rules make "records nothing" true: those of the list and of its entries, and the one that makes versions integers,
/// so that no two entries have the same one. Without them a write could change an entry and keep the number of entries.
///
/// Where the API server cannot evaluate the rule, it refuses the write with `message`.
pub(in crate::api) fn issued_settings_stay(kind: &Kind) -> ValidationRule {
    let records_nothing = "size(record) == size(oldRecord) && (size(dyn(status)) != size(dyn(oldStatus)) || \
                           [status.?secret.?resourceVersion.orValue('')] != [oldStatus.?secret.?resourceVersion.orValue('')]) && \
                           [status.?secretName.orValue('')] == [oldStatus.?secretName.orValue('')]";
    let (of_status, of_issued, of_pins) =
        (demands_on_the_status(kind), demands_on_the_spec(kind), demands_on_pins(kind));
    let agrees_or_is_unchanged = format!("({} || {UNCHANGED})", all_hold(&demands_on_a_new_spec(kind)));
    let agrees = format!(
        "{} && [self.spec].all(spec, {} && (!has(spec.wrappedKeys) || {}) && \
         (size(record) != size(oldRecord) || {agrees_or_is_unchanged}))",
        all_hold(&of_status),
        all_hold(&in_one_pass(kind)),
        all_hold(&of_pins)
    );
    let holds = format!("{records_nothing} || {}", with_names(&SECRET_NAMES, "all", &agrees, ""));
    // Without a status before, nothing was issued: then the names have no values, and an error is true where the alternative is.
    // The definition's default replaces a status that a write removes.
    let nothing_issued = format!(
        "(!has(oldSelf.status) || (!has(self.status) && !has(oldSelf.status.versions))) && \
         [self.spec].all(spec, {agrees_or_is_unchanged})"
    );
    let of_the_spec: Vec<_> = of_issued.into_iter().chain(of_pins).chain(demands_on_a_changed_spec(kind)).collect();
    let message = message_of_the_first_broken(
        &of_status,
        &format!("[self.spec].map(spec, {})[0]", message_of_the_first_broken(&of_the_spec, "''")),
    );
    ValidationRule {
        rule: format!("{} || {nothing_issued}", with_names(&STATES, "all", &holds, "")),
        message: Some(
            "what is issued must stay as status.versions records it, and numbers must be integers without a decimal point"
                .to_owned(),
        ),
        message_expression: Some(with_names(
            &STATES,
            "map",
            &with_names(&SECRET_NAMES, "map", &message, "[0]"),
            "[0]",
        )),
        field_path: Some(".spec".to_owned()),
        ..ValidationRule::default()
    }
}

/// A value, and the name that demands use for it.
type Name = (&'static str, &'static str);

const STATES: [Name; 4] = [
    ("self.status", "status"),
    ("oldSelf.status", "oldStatus"),
    ("status.?versions.orValue([])", "record"),
    ("oldStatus.?versions.orValue([])", "oldRecord"),
];

/// These need those of [`STATES`].
const SECRET_NAMES: [Name; 2] =
    [("status.?secretName.orValue('')", "secretName"), ("oldStatus.?secretName.orValue('')", "oldSecretName")];

/// Gives values their names in an expression, by a macro of CEL over lists of one element.
fn with_names(names: &[Name], each: &str, expression: &str, result: &str) -> String {
    names
        .iter()
        .rev()
        .fold(expression.to_owned(), |inner, (value, name)| format!("[{value}].{each}({name}, {inner}){result}"))
}

pub(super) fn demands_on_the_status(kind: &Kind) -> Vec<Demand> {
    vec![record_is_not_removed(kind), secret_name_stays()]
}

/// Demands on each spec.
pub(super) fn demands_on_a_new_spec(kind: &Kind) -> Vec<Demand> {
    // The schema demands the kind of a key pair.
    let length = (kind.id == KindId::DataKey).then(one_length);
    let others = [
        a_key_or_a_class(),
        no_region_beside_an_arn("spec"),
        pin_of_the_version_answers_the_spec(kind),
        pins_rewrap_earlier_versions(),
    ];
    length.into_iter().chain(others).collect()
}

/// The same, except on a spec that stays as it is.
fn demands_on_a_changed_spec(kind: &Kind) -> Vec<Demand> {
    let or_unchanged = |demand: Demand| Demand { holds: format!("({}) || {UNCHANGED}", demand.holds), ..demand };
    demands_on_a_new_spec(kind).into_iter().map(or_unchanged).collect()
}

/// Demands on the spec that compare it with the record.
pub(super) fn demands_on_the_spec(kind: &Kind) -> Vec<Demand> {
    let [different, secret_name, deletion_policy] = demands_on_the_whole_record(kind);
    vec![
        different,
        spec_answers_the_record(kind),
        secret_name,
        deletion_policy,
        recorded_versions_rewrap_earlier_ones(),
    ]
}

/// The same as [`demands_on_the_spec`], with one pass over the record for all demands on its versions. In a message they are apart.
fn in_one_pass(kind: &Kind) -> Vec<Demand> {
    let of_each_version = [entry_rewraps_an_earlier_version(), entry_is_answered_by_the_spec(kind)];
    let together = Demand { holds: all_hold(&of_each_version), message: String::new() };
    demands_on_the_whole_record(kind).into_iter().chain([of_each_recorded_version(together)]).collect()
}

fn demands_on_the_whole_record(kind: &Kind) -> [Demand; 3] {
    [
        recorded_versions_are_different_data_keys(kind),
        secret_name_is_fixed_once_issued(kind),
        deletion_policy_is_fixed_once_issued(kind),
    ]
}

/// Demands on a spec with pins that compare it with the record.
pub(super) fn demands_on_pins(kind: &Kind) -> Vec<Demand> {
    vec![pins_agree_with_the_record(kind), pins_are_not_other_recorded_versions(kind)]
}

pub(in crate::api) fn one_length() -> Demand {
    Demand {
        holds: has_one_length("spec"),
        message: "set exactly one of keySpec (AES_256 or AES_128) and numberOfBytes (1 to 1024)".to_owned(),
    }
}

/// A class can name the key.
pub(crate) fn a_key_or_a_class() -> Demand {
    Demand {
        holds: "has(spec.keyId) || has(spec.className)".to_owned(),
        message: "set keyId, or set className to a class that names the KMS key".to_owned(),
    }
}

pub(super) fn pin_of_the_version_answers_the_spec(kind: &Kind) -> Demand {
    Demand {
        holds: format!(
            "!has(spec.wrappedKeys) || [spec.?version.orValue(1)].all(wanted, self.spec.wrappedKeys.all(pin, \
             pin.version != wanted || [{}].all(request, {})))",
            written("pin"),
            is_same_request(kind, "request", "spec")
        ),
        message: format!(
            "wrappedKeys pins this version's {}: {} must be those of the pin's request. Set them so, or set version to a number \
             that is not pinned",
            kind.noun,
            fixed_fields(kind)
        ),
    }
}

/// So no chain of rewraps has a circle.
pub(super) fn pins_rewrap_earlier_versions() -> Demand {
    let of_a_pin = entry_rewraps_an_earlier_version();
    Demand {
        holds: format!("!has(spec.wrappedKeys) || self.spec.wrappedKeys.all(entry, {})", of_a_pin.holds),
        ..of_a_pin
    }
}

pub(super) fn recorded_versions_rewrap_earlier_ones() -> Demand {
    of_each_recorded_version(entry_rewraps_an_earlier_version())
}

/// A demand on `entry` as a demand on each recorded version.
///
/// The estimate knows how many versions `record` has, but not how long their strings are, so no other demand iterates over it.
fn of_each_recorded_version(demand: Demand) -> Demand {
    let Demand { holds, message } = demand;
    Demand { holds: format!("record.all(entry, {holds})"), message }
}

fn entry_rewraps_an_earlier_version() -> Demand {
    Demand {
        holds: "!has(entry.rewrapOf) || entry.rewrapOf.version < entry.version".to_owned(),
        message: "rewrapOf.version must be smaller than the version that has it: a version can only be a rewrap of an earlier one. \
                  Copy the entry from status.versions, or from what kubectl datakey rewrap wrote, as it is"
            .to_owned(),
    }
}

/// The rules of the list and of its entries are not evaluated when the list is gone, nor for the first record.
pub(super) fn record_is_not_removed(kind: &Kind) -> Demand {
    Demand { holds: "size(record) > 0 || size(oldRecord) == 0".to_owned(), message: write_once_message(kind) }
}

pub(super) fn secret_name_stays() -> Demand {
    Demand {
        holds: "[oldSecretName] == [''] || [secretName] == [oldSecretName]".to_owned(),
        message: "status.secretName is fixed once a version is issued: leave it as it is".to_owned(),
    }
}

/// Tolerates duplicates from before the rule, because otherwise the status of such an object could not be written any more.
pub(super) fn recorded_versions_are_different_data_keys(kind: &Kind) -> Demand {
    Demand {
        holds: "size(record) < 2 || \
                [size(oldRecord) > 0 ? oldSelf.status.versions.map(entry, entry.version) : []].all(before, \
                [self.status.versions.map(entry, [entry.ciphertextBlob])].all(blobs, self.status.versions.all(entry, \
                entry.version in before || blobs.exists_one(blob, blob == [entry.ciphertextBlob]))))"
            .to_owned(),
        message: format!(
            "status.versions records one ciphertextBlob twice: each version must have a {} of its own",
            kind.noun
        ),
    }
}

pub(super) fn spec_answers_the_record(kind: &Kind) -> Demand {
    of_each_recorded_version(entry_is_answered_by_the_spec(kind))
}

/// Most versions have the request of the spec, so that is compared first, and the version that the spec asks for is not selected.
fn entry_is_answered_by_the_spec(kind: &Kind) -> Demand {
    Demand {
        holds: format!(
            "[{}].all(request, {}) || entry.version != spec.?version.orValue(1)",
            written("entry"),
            is_same_request(kind, "request", "spec")
        ),
        message: format!(
            "this version's {noun} is issued, so its {} are fixed: set them to what status.versions records for it. For another \
             {noun} with other settings, set spec.version to a new number",
            fixed_fields(kind),
            noun = kind.noun
        ),
    }
}

pub(super) fn secret_name_is_fixed_once_issued(kind: &Kind) -> Demand {
    Demand {
        holds: "[secretName] == [''] || [spec.?secretName.orValue(self.metadata.name)] == [secretName]".to_owned(),
        message: format!(
            "secretName is fixed once a version is issued: set it back to status.secretName. For another Secret create another {}",
            kind.name
        ),
    }
}

/// Compares with the spec before, because the record has no policy.
pub(super) fn deletion_policy_is_fixed_once_issued(kind: &Kind) -> Demand {
    Demand {
        holds: "size(oldRecord) == 0 || [oldSelf.spec].all(oldSpec, \
                [spec.?deletionPolicy.orValue('Retain')] == [oldSpec.?deletionPolicy.orValue('Retain')])"
            .to_owned(),
        message: match kind.id {
            KindId::DataKey => "deletionPolicy is fixed once a version is issued: set it back. To keep the Secret of a DataKey \
                                under Delete, run kubectl datakey keep NAME; or run kubectl delete datakey NAME --cascade=orphan, \
                                and then apply the DataKey under Retain: it takes over what the Secret holds"
                .to_owned(),
            KindId::DataKeyPair => "deletionPolicy is fixed once a version is issued: set it back. To keep the Secret of a \
                                    DataKeyPair under Delete, run kubectl delete datakeypair NAME --cascade=orphan, and then \
                                    apply the DataKeyPair under Retain: it takes over what the Secret holds"
                .to_owned(),
        },
    }
}

/// The record names the replica of a multi-Region key in its own Region. The operator, not this rule, checks that the rest of
/// the ARN is the same.
pub(super) fn pins_agree_with_the_record(kind: &Kind) -> Demand {
    let same_public_key = match kind.id {
        KindId::DataKey => "",
        KindId::DataKeyPair => "[entry.publicKey] == [pin.publicKey] && ",
    };
    Demand {
        holds: format!(
            "!has(spec.wrappedKeys) || size(record) == 0 || [self.status.versions.map(entry, entry.version)].all(versions, \
             self.spec.wrappedKeys.all(pin, [versions.indexOf(pin.version)].all(index, index < 0 || \
             [self.status.versions[index]].all(entry, [entry.ciphertextBlob] == [pin.ciphertextBlob] && {same_public_key}\
             ([entry.keyId] == [pin.keyId] || \
             self.status.versions[index].keyId.contains(':key/mrk-') && pin.keyId.contains(':key/mrk-')) && \
             [{}].all(recorded, [{}].all(pinned, {}))))))",
            written("entry"),
            written("pin"),
            is_same_request(kind, "recorded", "pinned")
        ),
        message: format!(
            "spec.wrappedKeys pins another {noun} than status.versions records for that version, and data may be {use_of_it} the \
             recorded one. Remove that pin, or make it a copy of the entry in status.versions; for the {noun} of another {name} use \
             a version that is not issued here",
            noun = kind.noun,
            name = kind.name,
            use_of_it = match kind.id {
                KindId::DataKey => "encrypted under",
                KindId::DataKeyPair => "encrypted or signed with",
            }
        ),
    }
}

/// Tolerates duplicates from before the rule, because otherwise the status of such an object could not be written any more. The
/// second alternative accepts most pins without a look at each recorded version. It searches by version: the API server charges a
/// search in a list for every byte of its strings, which would refuse large records.
pub(super) fn pins_are_not_other_recorded_versions(kind: &Kind) -> Demand {
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
        message: format!(
            "spec.wrappedKeys pins a {noun} that status.versions records as another version, and each version must have a {noun} of \
             its own. Remove that pin, or pin the entry that belongs to its version",
            noun = kind.noun
        ),
    }
}
