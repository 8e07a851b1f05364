//! An attempt to bring one object to Ready, without its effects: what to do next, and what each answer changes.
//!
//! The operator carries the steps out against KMS and the API server; the model of the protocol (`tests/model`) answers them in
//! every way in which a cluster can. Both drive this type, so what the model explores is what runs.

use std::ops::Deref;

use k8s_openapi::jiff::Timestamp;

use super::{
    observed::{Inputs, Observed, SecretState},
    plan::plan,
    step::{Record, Source, Step},
};
use crate::{
    api::{IssuedVersion, KeyKind, Object},
    class::{Ask, Identity, Refusal},
    reason::Failure,
};

/// How often the write of a record is repeated, with the same answer of KMS, after it met another write of the object.
pub const RECORD_AGAIN: u8 = 5;

/// The most steps of an attempt. Every path through the protocol has fewer, unless another client keeps writing.
pub const MAX_STEPS: usize = 15 + RECORD_AGAIN as usize;

/// What KMS answered, and who asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// The version, as it would be recorded.
    pub version: IssuedVersion,
    /// With which AWS identity KMS was asked.
    pub identity: Identity,
}

/// An attempt to bring one object to Ready. The parameters are how the object, what is known of its Secret, an answer of KMS and
/// a failure are kept: the operator keeps the objects themselves, the model of the protocol their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt<K, S = SecretState, I = Unrecorded, F = Failure> {
    object: K,
    secret: S,
    failure: Option<F>,
    has_permit: bool,
    /// What KMS answered and the record does not have yet.
    unrecorded: Option<I>,
    /// The number of writes of the record that met another write of the object.
    conflicts: u8,
    /// A dry run of the record was accepted.
    rehearsed: bool,
    /// The Secret that was read has the revision that this process or the status verified.
    is_verified: bool,
}

/// The answer to a step.
#[derive(Clone, Copy, Debug)]
pub enum Answer<K, N, M, L, I, F> {
    /// The metadata of the Secret; `None` where the API server has none of that name.
    Metadata(Option<M>),
    /// The Secret; `None` where the API server has none of that name. `is_verified`: it has the revision that this process or the
    /// status verified before.
    Secret {
        /// The Secret.
        secret: Option<L>,
        /// Whether no other client has changed it since it was verified.
        is_verified: bool,
    },
    /// A revision of the Secret whose content this process knows, because it wrote or read it.
    Revision(N),
    /// A permit to call KMS.
    Permit,
    /// The API server accepted the dry run of a record.
    DryRunAccepted,
    /// KMS issued a data key. That uses the permit up.
    Issued(I),
    /// The API server stored the status, and with it the record: the object as it is stored.
    Stored(K),
    /// The API server did not write the record, because another client changed the object meanwhile.
    Conflict,
    /// After a conflict: the object as the API server has it now, what the watch knows of its Secret, and what changed.
    Overtaken {
        /// The object.
        object: K,
        /// What the watch knows of its Secret.
        secret: Option<N>,
        /// What changed.
        change: Change,
    },
    /// The step failed.
    Failed(F),
}

/// What another client changed in an object since an attempt began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is another object of the same name.
    Object,
    /// The spec. `still_wanted`: it still asks for what KMS answered.
    Spec {
        /// Whether the spec still asks for what KMS answered.
        still_wanted: bool,
    },
    /// Nothing that a decision depends on.
    Other,
}

/// Why an attempt cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The object is gone, or is another one of the same name: what KMS answered is not for it.
    Gone,
    /// This many writes of the record met another write. The answer of KMS is dropped.
    TooManyConflicts(u8),
}

// === impl Unrecorded ===

impl Unrecorded {
    /// Whether it is the answer to what would be asked now.
    fn is_to(&self, ask: &Ask) -> bool {
        self.version.request == ask.request && self.identity.is_same_caller(&ask.identity)
    }
}

// === impl Change ===

impl Change {
    /// What changed between two states of the objects of one name; `issued` is what KMS answered to the first one.
    pub fn between<'a, 'b>(
        before: impl Into<Object<'a>>,
        now: impl Into<Object<'b>>,
        issued: Option<&Unrecorded>,
    ) -> Self {
        let (before, now) = (before.into(), now.into());
        if before.metadata.uid != now.metadata.uid {
            return Self::Object;
        }
        let is_wanted = |Unrecorded { version, .. }: &Unrecorded| {
            version.version == now.wanted_version() && version.written().is_same_request(now.spec.request)
        };
        if before.metadata.generation == now.metadata.generation {
            Self::Other
        } else {
            Self::Spec { still_wanted: issued.is_some_and(is_wanted) }
        }
    }
}

// === impl Attempt ===

impl<K, N, M, L, I, F> Attempt<K, SecretState<N, M, L>, I, F> {
    /// Begins with the object and what the watch knows of its Secret.
    pub fn new(object: K, secret: Option<N>) -> Self {
        Self {
            object,
            secret: secret.map_or(SecretState::Unwatched, SecretState::Watched),
            failure: None,
            has_permit: false,
            unrecorded: None,
            conflicts: 0,
            rehearsed: false,
            is_verified: false,
        }
    }

    /// Learns the answer to a step.
    ///
    /// # Errors
    /// The attempt cannot go on: the object is gone, or too many writes of the record met another write.
    pub fn learn(&mut self, answer: Answer<K, N, M, L, I, F>) -> Result<(), Restart> {
        match answer {
            Answer::Metadata(found) => self.secret = found.map_or(SecretState::Absent, SecretState::Present),
            Answer::Secret { secret, is_verified } => {
                self.is_verified = is_verified;
                self.secret = secret.map_or(SecretState::Absent, SecretState::Loaded);
            }
            Answer::Revision(known) => self.secret = SecretState::Watched(known),
            Answer::Permit => self.has_permit = true,
            Answer::DryRunAccepted => self.rehearsed = true,
            Answer::Issued(issued) => {
                self.has_permit = false;
                self.unrecorded = Some(issued);
            }
            Answer::Stored(object) => {
                self.object = object;
                self.unrecorded = None;
            }
            Answer::Conflict => {
                self.conflicts += 1;
                if self.conflicts > RECORD_AGAIN {
                    self.unrecorded = None;
                    return Err(Restart::TooManyConflicts(self.conflicts));
                }
            }
            Answer::Overtaken { object, secret, change } => {
                match change {
                    Change::Object => return Err(Restart::Gone),
                    Change::Spec { still_wanted } => {
                        // The spec may name another Secret now, of which nothing is known but what the watch has.
                        self.secret = secret.map_or(SecretState::Unwatched, SecretState::Watched);
                        self.is_verified = false;
                        if !still_wanted {
                            self.unrecorded = None;
                        }
                    }
                    Change::Other => {}
                }
                self.object = object;
            }
            Answer::Failed(failure) => {
                self.failure = Some(failure);
                self.unrecorded = None;
            }
        }
        Ok(())
    }
}

impl<K, S, I, F> Attempt<K, S, I, F> {
    /// The object as it was last read or stored.
    pub fn object(&self) -> &K {
        &self.object
    }

    /// What is known of its Secret.
    pub fn secret(&self) -> &S {
        &self.secret
    }

    /// What failed.
    pub fn failure(&self) -> Option<&F> {
        self.failure.as_ref()
    }

    /// What KMS answered and the record does not have yet.
    pub fn unrecorded_answer(&self) -> Option<&I> {
        self.unrecorded.as_ref()
    }

    /// The same attempt with its parts kept in another way.
    pub fn map<K2, S2, I2, F2>(
        self,
        object: impl FnOnce(K) -> K2,
        secret: impl FnOnce(S) -> S2,
        issued: impl FnOnce(I) -> I2,
        failure: impl FnOnce(F) -> F2,
    ) -> Attempt<K2, S2, I2, F2> {
        Attempt {
            object: object(self.object),
            secret: secret(self.secret),
            failure: self.failure.map(failure),
            has_permit: self.has_permit,
            unrecorded: self.unrecorded.map(issued),
            conflicts: self.conflicts,
            rehearsed: self.rehearsed,
            is_verified: self.is_verified,
        }
    }
}

impl<K: Deref<Target: KeyKind + Sized>> Attempt<K> {
    /// Decides on the next step.
    pub fn next(&self, inputs: Inputs<'_>, now: Timestamp) -> Step {
        let observed = Observed {
            object: self.object.as_object(),
            secret: &self.secret,
            failure: self.failure.as_ref(),
            // What KMS answered needs no second call, and so no permit.
            has_permit: self.has_permit || self.unrecorded.is_some(),
            is_verified: self.is_verified,
            inputs: Inputs { record_failed: inputs.record_failed && !self.rehearsed, ..inputs },
        };
        match (plan(&observed, now), &self.unrecorded) {
            (Step::CallKms(ask), Some(answer)) if !answer.is_to(&ask) => {
                // The class has changed, and fills in something else now or names another role: this answer is not to what would
                // be asked.
                if self.has_permit { Step::CallKms(ask) } else { Step::AcquirePermit(ask) }
            }
            (Step::CallKms(ask), Some(Unrecorded { version, .. })) => {
                match inputs.tenancy.judge_answer(observed.object, inputs.default_region, version) {
                    Ok(()) => {
                        let Ask { as_written, class, .. } = *ask;
                        let version = IssuedVersion { as_written, class, ..version.clone() };
                        Step::Record(Record { versions: vec![version], source: Source::Kms })
                    }
                    Err(Refusal::Failed(failure)) => Step::ReportFailure(failure),
                    Err(refusal @ Refusal::NotYet) => Step::refused(&observed, refusal),
                }
            }
            (step, _) => step,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::DataKey,
        class::{Class, Lookup, Tenancy},
        fixtures::{data_key, issued},
        reason::Reason,
    };

    type Whole = Attempt<Arc<DataKey>>;

    fn answer() -> Unrecorded {
        Unrecorded { version: issued(1), identity: Identity::Operator }
    }

    fn answer_to(ask: Ask) -> Unrecorded {
        let Ask { request, as_written, class, identity } = ask;
        Unrecorded { version: IssuedVersion { request, as_written, class, ..issued(1) }, identity }
    }

    fn permitted() -> Whole {
        let mut attempt = Whole::new(Arc::new(data_key()), None);
        attempt.learn(Answer::Permit).unwrap();
        attempt.learn(Answer::Metadata(None)).unwrap();
        attempt
    }

    fn next(attempt: &Whole) -> Step {
        attempt.next(Inputs::default(), Timestamp::UNIX_EPOCH)
    }

    fn with_spec(edit: impl FnOnce(&mut DataKey)) -> Arc<DataKey> {
        let mut key = data_key();
        key.metadata.generation = Some(2);
        edit(&mut key);
        Arc::new(key)
    }

    fn overtaken_by(attempt: &mut Whole, object: Arc<DataKey>) -> Result<(), Restart> {
        attempt.learn(Answer::Conflict)?;
        let change = Change::between(attempt.object(), &object, attempt.unrecorded_answer());
        attempt.learn(Answer::Overtaken { object, secret: None, change })
    }

    #[test]
    fn answer_of_kms_is_recorded_without_a_second_call() {
        let mut attempt = permitted();
        assert!(matches!(next(&attempt), Step::CallKms(_)));
        attempt.learn(Answer::Issued(answer())).unwrap();
        let Step::Record(record) = next(&attempt) else { panic!() };
        assert_eq!((record.versions, record.source), (vec![issued(1)], Source::Kms));
    }

    #[test]
    fn answer_of_kms_is_kept_while_the_spec_wants_it() {
        let mut attempt = permitted();
        attempt.learn(Answer::Issued(answer())).unwrap();
        let mut labeled = data_key();
        labeled.metadata.resource_version = Some("101".to_owned());
        overtaken_by(&mut attempt, Arc::new(labeled)).unwrap();
        assert!(matches!(next(&attempt), Step::Record(_)));

        // Another spec can name another Secret, so the metadata are asked for again.
        overtaken_by(&mut attempt, with_spec(|key| key.spec.grant_tokens = Some(vec!["token".to_owned()]))).unwrap();
        assert!(matches!(next(&attempt), Step::GetSecretMetadata));
        attempt.learn(Answer::Metadata(None)).unwrap();
        assert!(matches!(next(&attempt), Step::Record(_)));

        let other = |key: &mut DataKey| (key.metadata.generation, key.spec.version) = (Some(3), Some(2));
        overtaken_by(&mut attempt, with_spec(other)).unwrap();
        assert!(matches!(next(&attempt), Step::AcquirePermit(_)), "the permit is used up");
        assert_eq!(attempt.unrecorded_answer(), None);
    }

    #[test]
    fn answer_of_kms_is_not_recorded_in_a_recreated_object() {
        let mut attempt = permitted();
        attempt.learn(Answer::Issued(answer())).unwrap();
        let namesake = with_spec(|key| key.metadata.uid = Some("another".to_owned()));
        assert_eq!(overtaken_by(&mut attempt, namesake), Err(Restart::Gone));
    }

    #[test]
    fn too_many_conflicts_end_the_attempt() {
        let mut attempt = permitted();
        attempt.learn(Answer::Issued(answer())).unwrap();
        for _ in 0..RECORD_AGAIN {
            assert_eq!(attempt.learn(Answer::Conflict), Ok(()));
        }
        assert_eq!(attempt.learn(Answer::Conflict), Err(Restart::TooManyConflicts(RECORD_AGAIN + 1)));
        assert_eq!(attempt.unrecorded_answer(), None);
    }

    #[test]
    fn dry_run_comes_before_kms_once_after_a_failed_record() {
        let mut attempt = permitted();
        let next =
            |attempt: &Whole| attempt.next(Inputs { record_failed: true, ..Inputs::default() }, Timestamp::UNIX_EPOCH);
        assert!(matches!(next(&attempt), Step::DryRunRecord(_)));
        attempt.learn(Answer::DryRunAccepted).unwrap();
        assert!(matches!(next(&attempt), Step::CallKms(_)));
    }

    #[test]
    fn failure_is_the_next_status() {
        let mut attempt = permitted();
        attempt.learn(Answer::Failed(Reason::KeyDisabled.into())).unwrap();
        let Step::PutStatus(status) = next(&attempt) else { panic!() };
        assert!(status.conditions.iter().any(|condition| condition.reason == Reason::KeyDisabled.as_str()));
    }

    // === a class that changes between the answer and the record ===

    fn class(spec: serde_json::Value) -> Class {
        Class::new("shop", "u", 1, serde_json::from_value(spec).map_err(|error| error.to_string()))
    }

    /// A class that adds this value of a pair.
    fn adding(stage: &str) -> Class {
        class(serde_json::json!({
            "namespaces": ["shop"],
            "allow": [{ "keyIds": ["alias/orders"] }],
            "encryptionContext": { "pairs": [{ "key": "stage", "value": stage, "mode": "Inject" }] },
        }))
    }

    fn next_under(attempt: &Whole, class: Lookup<'_>) -> Step {
        let tenancy = Tenancy { is_required: false, class };
        attempt.next(Inputs { tenancy, ..Inputs::default() }, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn answer_is_recorded_only_if_the_class_asks_the_same_now() {
        let mut attempt = Whole::new(with_spec(|key| key.spec.class_name = Some("shop".to_owned())), None);
        attempt.learn(Answer::Permit).unwrap();
        attempt.learn(Answer::Metadata(None)).unwrap();
        let before = adding("test");
        let Step::CallKms(ask) = next_under(&attempt, Lookup::Found(&before)) else { panic!() };
        attempt.learn(Answer::Issued(answer_to(*ask))).unwrap();
        assert!(matches!(next_under(&attempt, Lookup::Found(&before)), Step::Record(_)));

        let other = adding("prod");
        let Step::AcquirePermit(ask) = next_under(&attempt, Lookup::Found(&other)) else { panic!() };
        assert_eq!(ask.request.context()["stage"], "prod", "KMS is asked again");
        assert!(matches!(next_under(&attempt, Lookup::Unlisted), Step::RequeueAfter(_)));
        let narrow = class(serde_json::json!({ "namespaces": [], "allow": [{ "keyIds": ["alias/orders"] }] }));
        for (class, reason) in [
            (Lookup::Found(&narrow), Reason::ClassRefused),
            (Lookup::Absent, Reason::ClassNotFound),
            (Lookup::Unavailable("forbidden"), Reason::ClassesUnavailable),
        ] {
            let Step::ReportFailure(failure) = next_under(&attempt, class) else { panic!("{class:?}") };
            assert_eq!(failure.reason, reason);
        }
    }

    #[test]
    fn answer_is_recorded_only_if_the_same_identity_would_ask_now() {
        let with = |aws: serde_json::Value| {
            let mut spec = serde_json::json!({ "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/orders"] }] });
            if !aws.is_null() {
                spec["aws"] = aws;
            }
            class(spec)
        };
        let role = |name: &str| serde_json::json!({ "roleArn": format!("arn:aws:iam::111122223333:role/{name}") });
        let mut tagged = role("shop");
        tagged["sessionTags"] = serde_json::json!([{ "key": "team", "value": "shop" }]);
        let mut foreign = role("shop");
        foreign["externalId"] = serde_json::json!("prod");
        let all = [serde_json::Value::Null, role("shop"), role("bank"), tagged, foreign].map(with);
        for (before, asked_by) in all.iter().enumerate() {
            let mut attempt = Whole::new(with_spec(|key| key.spec.class_name = Some("shop".to_owned())), None);
            attempt.learn(Answer::Permit).unwrap();
            attempt.learn(Answer::Metadata(None)).unwrap();
            let Step::CallKms(ask) = next_under(&attempt, Lookup::Found(asked_by)) else { panic!() };
            attempt.learn(Answer::Issued(answer_to(*ask))).unwrap();
            for (now, class) in all.iter().enumerate() {
                match next_under(&attempt, Lookup::Found(class)) {
                    Step::Record(_) => assert_eq!(before, now),
                    Step::AcquirePermit(_) => assert_ne!(before, now),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
