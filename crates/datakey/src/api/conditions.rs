//! The conditions of a status: the operator's own, and those of other controllers, which every write keeps unchanged.

use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeSeq as _};
use serde_json::{Value, json};

/// The type of the condition for whether the Secret holds the data key of the spec.
pub const READY: &str = "Ready";

/// The type of the condition that asks a user to act.
pub const STALLED: &str = "Stalled";

/// The type of the condition that AWS KMS no longer uses a KMS key that wrapped a recorded version.
pub const KEY_USABLE: &str = "KeyUsable";

/// The most conditions of a status (the definition, `status.conditions`).
pub(super) const MAX_CONDITIONS: usize = 8;

/// The reason of `Ready=Unknown`: the operator has not seen the object yet.
pub const PENDING: &str = "Pending";

/// The conditions of one object, as a list-map by `type`. This type dereferences to the operator's own conditions. An own
/// condition that cannot be decoded (a `lastTransitionTime` that no Rust time can hold) counts as absent, so the next write
/// replaces it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    own: Vec<Condition>,
    /// Conditions that a reconcile does not decide on, as JSON: `KeyUsable`, and those of other controllers, which may have fields or
    /// values that this operator cannot decode.
    others: Vec<Value>,
}

// === impl Conditions ===

impl Conditions {
    /// The operator's own conditions `own`, with those of other controllers in `old`.
    pub fn beside(own: Vec<Condition>, old: Self) -> Self {
        Self { own, others: old.others }
    }

    /// The condition `KeyUsable`, if it is there, can be decoded and is False. A newer release can give it other values.
    pub fn key_usable(&self) -> Option<Condition> {
        let found = self.others.iter().find(|condition| is_key_usable(condition))?;
        serde_json::from_value(found.clone()).ok().filter(|condition: &Condition| condition.status == "False")
    }

    /// Whether `KeyUsable` can stand beside the conditions of other controllers, `Ready` and `Stalled`: a status with more conditions
    /// than the definition allows is refused as a whole.
    pub fn have_room_for_key_usable(&self) -> bool {
        let others = self.others.iter().filter(|condition| !is_key_usable(condition)).count();
        others + 3 <= MAX_CONDITIONS
    }

    /// The same conditions with this one as `KeyUsable`, or without it.
    #[must_use]
    pub fn with_key_usable(mut self, condition: Option<&Condition>) -> Self {
        self.others.retain(|condition| !is_key_usable(condition));
        self.others.extend(condition.map(|condition| json!(condition)));
        self
    }

    /// Whether there is no condition at all.
    pub fn is_absent(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }

    /// Whether the operator writes conditions of this type.
    pub fn is_own(type_: &str) -> bool {
        [READY, STALLED].contains(&type_)
    }
}

fn is_key_usable(condition: &Value) -> bool {
    condition["type"].as_str() == Some(KEY_USABLE)
}

impl From<Vec<Condition>> for Conditions {
    fn from(own: Vec<Condition>) -> Self {
        Self { own, others: Vec::new() }
    }
}

impl Deref for Conditions {
    type Target = [Condition];

    fn deref(&self) -> &[Condition] {
        &self.own
    }
}

impl<'a> IntoIterator for &'a Conditions {
    type Item = &'a Condition;
    type IntoIter = std::slice::Iter<'a, Condition>;

    fn into_iter(self) -> Self::IntoIter {
        self.own.iter()
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.own.len() + self.others.len()))?;
        self.own.iter().try_for_each(|condition| list.serialize_element(condition))?;
        self.others.iter().try_for_each(|condition| list.serialize_element(condition))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Option::<Vec<Value>>::deserialize(deserializer)?.unwrap_or_default();
        let (own, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|condition| condition["type"].as_str().is_some_and(Self::is_own));
        let own = own.into_iter().filter_map(|condition| serde_json::from_value(condition).ok()).collect();
        Ok(Self { own, others })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(type_: &str, since: &str) -> Value {
        json!({ "type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": since })
    }

    #[test]
    fn conditions_of_other_controllers_are_kept_unchanged() {
        let mut foreign = condition("Backed-up", "9999-12-31T23:59:59Z");
        foreign["since"] = json!({ "backup": [1, 2] });
        let all = json!([foreign, condition("Ready", "2026-01-01T00:00:00Z")]);
        let conditions: Conditions = serde_json::from_value(all).unwrap();
        assert_eq!(conditions.iter().map(|own| own.type_.as_str()).collect::<Vec<_>>(), ["Ready"]);
        let written = Conditions::beside(Vec::new(), conditions);
        assert_eq!(serde_json::to_value(written).unwrap(), json!([foreign]));
    }

    #[test]
    fn only_a_false_key_usable_is_a_report() {
        let report = |status: &str| {
            let mut condition = condition("KeyUsable", "2026-01-01T00:00:00Z");
            condition["status"] = json!(status);
            serde_json::from_value::<Conditions>(json!([condition])).unwrap().key_usable().is_some()
        };
        assert!(report("False") && !report("True") && !report("Unknown"), "a newer release can write the others");
    }

    #[test]
    fn undecodable_own_condition_counts_as_absent() {
        let far = json!([condition("Ready", "9999-12-31T23:59:59Z"), { "type": "Stalled" }]);
        assert_eq!(serde_json::from_value::<Conditions>(far).unwrap(), Conditions::default());
        assert_eq!(serde_json::from_value::<Conditions>(Value::Null).unwrap(), Conditions::default());
    }
}
