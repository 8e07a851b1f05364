//! The condition `KeyUsable`: AWS KMS no longer uses a KMS key that wrapped a recorded version. Pure.
//!
//! It exists only while it is `False`. `Ready` does not depend on it: the Secret is what it must be, but cannot be unwrapped. Every other write of a status keeps it as it is (`Conditions::beside`).

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::{
    api::{IssuedVersion, KEY_USABLE, KeyStatus, Kind, Object, truncate_to_seconds},
    arn::KmsArn,
    reason::Reason,
    rewraps::Rewraps,
};

/// Why AWS KMS does not use a KMS key: its error code (AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`). The worst is the last.
#[derive(Clone, Copy, Debug, EnumString, Eq, IntoStaticStr, Ord, PartialEq, PartialOrd, VariantArray)]
pub enum Cause {
    /// The KMS key is disabled.
    DisabledException,
    /// The state of the KMS key forbids its use, for example because it is pending deletion.
    KMSInvalidStateException,
    /// There is no such KMS key.
    NotFoundException,
}

/// A KMS key that AWS KMS does not use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its ARN.
    pub key_arn: String,
    /// Why.
    pub cause: Cause,
    /// When AWS KMS refused it first, in whole seconds.
    pub since: Timestamp,
}

/// What the condition of an object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// AWS KMS does not use a KMS key on which the object depends. The worst cause.
    Unusable(Cause),
    /// It names only KMS keys on which the object does not depend any more, as after a rewrap.
    Outdated,
}

/// What is known of a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// AWS KMS uses it.
    Usable,
    /// AWS KMS has refused it for this cause, since this time.
    Unusable(Cause, Timestamp),
}

// === impl Cause ===

impl Cause {
    /// Every cause.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The cause with this error code.
    pub fn of_code(code: &str) -> Option<Self> {
        code.parse().ok()
    }

    /// The error code.
    pub fn code(self) -> &'static str {
        self.into()
    }

    /// The reason of the condition.
    pub const fn reason(self) -> Reason {
        match self {
            Self::DisabledException => Reason::KeyDisabled,
            Self::KMSInvalidStateException => Reason::KeyStateInvalid,
            Self::NotFoundException => Reason::KeyNotFound,
        }
    }
}

/// The KMS keys that the condition of an object reports, of those on which it depends.
pub fn reported<'a>(object: impl Into<Object<'a>>) -> Vec<Unusable> {
    let object = object.into();
    let dependencies = dependencies(object);
    let is_one = |unusable: &Unusable| dependencies.contains_key(unusable.key_arn.as_str());
    written(object).into_iter().filter(is_one).collect()
}

/// The KMS keys in the condition, also those on which the object does not depend any more.
fn written(object: Object<'_>) -> Vec<Unusable> {
    let condition = object.status.and_then(|status| status.conditions.key_usable());
    condition.map(|condition| parse(&condition.message)).unwrap_or_default()
}

/// What the condition of an object says, if it has that.
pub fn said<'a>(object: impl Into<Object<'a>>) -> Option<Said> {
    let object = object.into();
    object.status?.conditions.key_usable()?;
    let worst = reported(object).into_iter().map(|unusable| unusable.cause).max();
    Some(match worst {
        Some(cause) => Said::Unusable(cause),
        // It cannot be read. A newer release can write it otherwise.
        None if written(object).is_empty() => Said::Unusable(Cause::DisabledException),
        None => Said::Outdated,
    })
}

/// The status that an object must have by what is known of the KMS keys on which it depends; `None` if it has that. Of a KMS key of which
/// nothing is known, what the status says stays.
pub fn wanted<'a>(
    object: impl Into<Object<'a>>,
    known: impl Fn(&str) -> Option<Verdict>,
    now: Timestamp,
) -> Option<KeyStatus> {
    let object = object.into();
    let status = object.status?;
    let before = reported(object);
    let mut after = Vec::new();
    for (arn, _) in dependencies(object) {
        let said = before.iter().find(|unusable| unusable.key_arn == arn);
        after.extend(match known(arn) {
            None => said.cloned(),
            Some(Verdict::Usable) => None,
            Some(Verdict::Unusable(cause, since)) => {
                let since = truncate_to_seconds(since).0;
                // Another process can have found it out before, with another cause: one that is pending deletion can be disabled, too.
                let earlier = said.map(|said| said.since.min(since));
                Some(Unusable { key_arn: arn.to_owned(), cause, since: earlier.unwrap_or(since) })
            }
        });
    }
    let present = status.conditions.key_usable();
    if present.is_none() && after.is_empty() {
        return None;
    }
    if !after.is_empty() && !status.conditions.have_room_for_key_usable() {
        return None;
    }
    let worst = after.iter().map(|unusable| unusable.cause).max();
    let condition = worst.map(|worst| Condition {
        type_: KEY_USABLE.to_owned(),
        status: "False".to_owned(),
        reason: worst.reason().as_str().to_owned(),
        message: message(object, &after),
        // Kubernetes API conventions: the time of the last change of `status`, which is always False here.
        last_transition_time: present
            .as_ref()
            .map_or_else(|| truncate_to_seconds(now), |present| present.last_transition_time.clone()),
        observed_generation: object.metadata.generation,
    });
    let says = |condition: &Option<Condition>| {
        condition.as_ref().map(|Condition { reason, message, .. }| (reason.clone(), message.clone()))
    };
    if says(&present) == says(&condition) {
        return None;
    }
    let conditions = status.conditions.clone().with_key_usable(condition.as_ref());
    Some(KeyStatus { conditions, ..status.clone() })
}

/// The KMS keys on which an object depends, by their ARNs, each with its versions: those of the record without the versions that have a
/// later rewrap. After a move, nothing is lost with the KMS key that was moved from.
pub fn dependencies<'a>(object: impl Into<Object<'a>>) -> BTreeMap<&'a str, Vec<i32>> {
    let record = object.into().record();
    let rewraps = Rewraps::of(record);
    let is_last = |issued: &&IssuedVersion| rewraps.same_as(issued.version).all(|other| other < issued.version);
    let mut versions = BTreeMap::<&str, Vec<i32>>::new();
    for issued in record.iter().filter(is_last) {
        versions.entry(&issued.key_id).or_default().push(issued.version);
    }
    versions
}

/// What stands before the entries of a message.
const BEGIN: &str = "AWS KMS does not use ";

/// What stands between two entries.
const NEXT: &str = "; nor ";

/// The message of the condition. [`parse`] reads it.
fn message(object: Object<'_>, unusable: &[Unusable]) -> String {
    let versions = dependencies(object);
    let entry = |Unusable { key_arn, cause, since }: &Unusable| {
        let numbers: Vec<_> = versions.get(key_arn.as_str()).into_iter().flatten().map(ToString::to_string).collect();
        let noun = if numbers.len() == 1 { "version" } else { "versions" };
        format!("{key_arn} ({} since {since}), the KMS key of {noun} {}", cause.code(), numbers.join(", "))
    };
    let entries: Vec<_> = unusable.iter().map(entry).collect();
    let mut text = format!("{BEGIN}{}", entries.join(NEXT));
    let _ = write!(text, ". {}", advice(object.kind, unusable));
    text
}

/// What the user does.
fn advice(kind: &Kind, unusable: &[Unusable]) -> String {
    let noun = kind.noun;
    if unusable.iter().all(|unusable| unusable.cause == Cause::DisabledException) {
        return format!(
            "Workloads cannot unwrap such a {noun}. Cancel the deletion of the KMS key if it is pending, and enable it; if it must go, move to \
             another one after that (kubectl datakey rewrap)"
        );
    }
    format!(
        "Workloads cannot unwrap such a {noun}, and when AWS has deleted the KMS key, it is lost. If the deletion is pending, cancel it \
         (aws kms cancel-key-deletion) and enable the KMS key; if it must go, move to another one after that (kubectl datakey rewrap)"
    )
}

/// The entries of a message. What is not written as [`message`] writes it has none.
fn parse(message: &str) -> Vec<Unusable> {
    let entry = |text: &str| {
        let (key_arn, rest) = text.split_once(" (")?;
        let (inner, _) = rest.split_once(')')?;
        let (code, since) = inner.split_once(" since ")?;
        KmsArn::parse(key_arn).filter(KmsArn::is_key)?;
        Some(Unusable { key_arn: key_arn.to_owned(), cause: Cause::of_code(code)?, since: since.parse().ok()? })
    };
    message.strip_prefix(BEGIN).map(|entries| entries.split(NEXT).filter_map(entry).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::{
        api::{DataKey, Rest, RewrapOf},
        condition::{failed, ready},
        fixtures::{at, data_key, issued},
    };

    const OTHER: &str = "arn:aws:kms:eu-west-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab";

    /// A Ready object with versions 1 and 2 of one KMS key, and 3 of another one.
    fn key() -> DataKey {
        let mut key = data_key();
        let mut last = issued(3);
        last.key_id = OTHER.to_owned();
        let versions = vec![issued(1), issued(2), last];
        key.status = Some(ready(&key, &issued(1), None, at(1)));
        key.status.as_mut().unwrap().versions = versions;
        key
    }

    fn own() -> String {
        issued(1).key_id
    }

    fn only(arn: &str, verdict: Verdict) -> impl Fn(&str) -> Option<Verdict> {
        let arn = arn.to_owned();
        move |asked| (asked == arn).then_some(verdict)
    }

    fn apply(key: &mut DataKey, known: impl Fn(&str) -> Option<Verdict>, now: i64) -> bool {
        let wanted = wanted(&*key, known, at(now));
        let is_changed = wanted.is_some();
        key.status = wanted.or(key.status.take());
        is_changed
    }

    fn condition(key: &DataKey) -> Option<Condition> {
        key.status.as_ref().unwrap().conditions.key_usable()
    }

    const BAD: Cause = Cause::KMSInvalidStateException;

    #[test]
    fn condition_is_there_only_while_a_key_is_unusable() {
        let mut key = key();
        let before = key.status.clone();
        assert!(!apply(&mut key, |_| None, 5) && !apply(&mut key, |_| Some(Verdict::Usable), 5));
        assert!(apply(&mut key, only(&own(), Verdict::Unusable(BAD, at(4))), 5));
        let found = condition(&key).unwrap();
        assert_eq!((&*found.status, &*found.reason, found.last_transition_time.0), ("False", "KeyStateInvalid", at(5)));
        let says = format!("{} (KMSInvalidStateException since {}), the KMS key of versions 1, 2. ", own(), at(4));
        assert!(found.message.starts_with(&format!("AWS KMS does not use {says}")), "{}", found.message);
        assert_eq!(said(&key), Some(Said::Unusable(BAD)));
        assert!(apply(&mut key, only(&own(), Verdict::Usable), 9));
        assert_eq!(key.status, before, "and Ready never changed");
    }

    #[test]
    fn message_is_read_as_it_was_written() {
        let mut key = key();
        for (own_cause, other_cause) in [(Cause::DisabledException, BAD), (Cause::NotFoundException, BAD), (BAD, BAD)] {
            let known = |arn: &str| Some(Verdict::Unusable(if arn == OTHER { other_cause } else { own_cause }, at(3)));
            apply(&mut key, known, 5);
            let entry = |arn: &str, cause| Unusable { key_arn: arn.to_owned(), cause, since: at(3) };
            assert_eq!(reported(&key), [entry(&own(), own_cause), entry(OTHER, other_cause)]);
            assert_eq!(said(&key), Some(Said::Unusable(own_cause.max(other_cause))));
        }
        for odd in ["", "AWS KMS does not use ", "AWS KMS does not use x (y since z)", "refused"] {
            assert_eq!(parse(odd), [], "{odd}");
        }
    }

    #[test]
    fn unknown_key_keeps_what_the_status_says() {
        let mut key = key();
        apply(&mut key, |_| Some(Verdict::Unusable(BAD, at(3))), 5);
        assert!(!apply(&mut key, |_| None, 9), "as after a restart");
        // The same is found out once more, later.
        assert!(!apply(&mut key, only(OTHER, Verdict::Unusable(BAD, at(8))), 9));
        assert!(apply(&mut key, only(OTHER, Verdict::Usable), 9));
        assert_eq!(reported(&key).iter().map(|of| of.key_arn.clone()).collect::<Vec<_>>(), [own()]);
        assert_eq!(condition(&key).unwrap().last_transition_time.0, at(5), "it was False all the time");
        // Another cause is no new beginning.
        assert!(apply(&mut key, only(&own(), Verdict::Unusable(Cause::NotFoundException, at(8))), 9));
        assert_eq!((reported(&key)[0].since, said(&key)), (at(3), Some(Said::Unusable(Cause::NotFoundException))));
    }

    #[test]
    fn version_with_a_later_rewrap_depends_on_the_new_kms_key() {
        let mut key = key();
        let record = |key: &mut DataKey, versions: Vec<IssuedVersion>| key.status.as_mut().unwrap().versions = versions;
        let rewrap = |version, of| {
            let mut rewrap = issued(version);
            rewrap.key_id = OTHER.to_owned();
            rewrap.rewrap_of = Some(RewrapOf { version: of, request_id: None, rest: Rest::new() });
            rewrap
        };
        record(&mut key, vec![issued(1), issued(2), rewrap(3, 1)]);
        assert_eq!(dependencies(&key), [(&*own(), vec![2]), (OTHER, vec![3])].into());
        record(&mut key, vec![issued(1), issued(2), rewrap(3, 1), rewrap(4, 2)]);
        assert_eq!(dependencies(&key), [(OTHER, vec![3, 4])].into());
        // The old KMS key is reported, then everything is moved.
        record(&mut key, vec![issued(1), issued(2)]);
        apply(&mut key, only(&own(), Verdict::Unusable(BAD, at(4))), 5);
        record(&mut key, vec![issued(1), issued(2), rewrap(3, 1), rewrap(4, 2)]);
        assert_eq!(said(&key), Some(Said::Outdated));
        assert!(apply(&mut key, |_| None, 6));
        assert_eq!(condition(&key), None);
        // One of two reported KMS keys is moved from: the message does not name it any more.
        let other = |key: &mut DataKey| {
            key.status.as_mut().unwrap().versions.iter_mut().for_each(|issued| {
                if issued.version == 2 {
                    issued.key_id = OTHER.to_owned();
                }
            });
        };
        record(&mut key, vec![issued(1), issued(2)]);
        other(&mut key);
        apply(&mut key, |_| Some(Verdict::Unusable(BAD, at(4))), 5);
        assert!(condition(&key).unwrap().message.contains(&own()));
        record(&mut key, vec![issued(1), issued(2), rewrap(3, 1)]);
        other(&mut key);
        assert!(apply(&mut key, |_| None, 6));
        let message = condition(&key).unwrap().message;
        assert!(!message.contains(&own()) && message.contains(OTHER), "{message}");
    }

    #[test]
    fn full_list_of_conditions_gets_no_further_one() {
        let mut key = key();
        let others: Vec<_> = (0..6).map(|number| json!({ "type": format!("Other-{number}") })).collect();
        let mut status = serde_json::to_value(key.status.take().unwrap()).unwrap();
        status["conditions"].as_array_mut().unwrap().extend(others);
        key.status = serde_json::from_value(status).unwrap();
        assert!(!apply(&mut key, |_| Some(Verdict::Unusable(BAD, at(3))), 5));
    }

    #[test]
    fn other_writes_of_the_status_keep_the_condition() {
        let mut key = key();
        apply(&mut key, |_| Some(Verdict::Unusable(BAD, at(3))), 5);
        let said = condition(&key);
        key.status = Some(failed(&key, &Reason::SecretConflict.into(), at(6)));
        assert_eq!(condition(&key), said);
        key.status = Some(ready(&key, &issued(1), None, at(7)));
        assert_eq!(condition(&key), said);
    }

    #[test]
    fn unreadable_condition_is_replaced_or_removed() {
        let mut key = key();
        let odd = Condition {
            type_: KEY_USABLE.to_owned(),
            status: "False".to_owned(),
            reason: "Other".to_owned(),
            message: "odd".to_owned(),
            last_transition_time: Time(at(2)),
            observed_generation: None,
        };
        let conditions = key.status.as_ref().unwrap().conditions.clone().with_key_usable(Some(&odd));
        key.status.as_mut().unwrap().conditions = conditions;
        assert!(apply(&mut key, |_| Some(Verdict::Usable), 5));
        assert_eq!(condition(&key), None);
    }
}
