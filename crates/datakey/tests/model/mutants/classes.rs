//! The mutants that omit a precaution about the class.

use std::rc::Rc;

use datakey::{
    api::{IssuedVersion, KeyKind as _},
    class::{Ask, Identity, Refusal, Tenancy},
    names::VERSION_ANNOTATION_PREFIX,
    protocol::{Attempt, Record, Source, Step, Unrecorded},
    reason::Reason,
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::Mutant;
use crate::{
    Model,
    classes::{ClassView, Terms},
    kind::Key,
    requests::{DataKeyAt, KmsKey},
    world::View,
};

/// The Secret without what the specs said of its data keys.
pub fn as_asked(mut secret: Secret) -> Secret {
    for (name, annotation) in secret.metadata.annotations.iter_mut().flatten() {
        if name.starts_with(VERSION_ANNOTATION_PREFIX) {
            let mut fields: Value = serde_json::from_str(annotation).unwrap();
            fields.as_object_mut().unwrap().remove("asWritten");
            *annotation = fields.to_string();
        }
    }
    secret
}

impl Model {
    /// The `DataKey` without the class, or without what its pins say of their specs, if the mutant ignores that.
    pub(super) fn without_class(&self, mut key: Key, class: ClassView) -> Key {
        match (self.mutant, class) {
            (Mutant::UnlistedIsNoClass, ClassView::Unlisted)
            | (Mutant::UnavailableIsNoClass, ClassView::Unavailable)
            | (Mutant::AbsentIsNoClass, ClassView::Absent) => key.spec.class_name = None,
            (Mutant::PinsComparedAsAsked, _) => {
                key.spec.wrapped_keys.iter_mut().flatten().for_each(|pin| pin.as_written = None);
            }
            _ => {}
        }
        key
    }

    /// The class that the mutant judges by; `answer` is that of KMS.
    pub fn mistaken_class(&self, class: ClassView, answer: Option<&DataKeyAt>) -> ClassView {
        match (self.mutant, answer.and_then(|answer| answer.ask.class)) {
            (Mutant::AnswerOutlivesClass, Some(before)) => ClassView::Found(before),
            _ => class,
        }
    }

    /// The answer of KMS as the mutant takes it.
    pub fn mistaken_identity(&self, mut answer: Unrecorded, class: ClassView) -> Unrecorded {
        if self.mutant == Mutant::AnswerToAnotherIdentity {
            answer.identity = class.caller().identity();
        }
        answer
    }

    /// The spec of the class as the mutant takes it.
    pub fn mistaken_spec(&self, terms: Terms, view: &View) -> Value {
        let mut spec = terms.spec();
        let open = Terms::Open.spec();
        match (self.mutant, view) {
            (Mutant::FlawIgnored, _) => _ = spec.as_object_mut().unwrap().remove("newer"),
            (Mutant::KeyIdsNotChecked, _) => spec["allow"][0]["keyIds"] = open["allow"][0]["keyIds"].clone(),
            (Mutant::KeyArnsNotChecked, _) => {
                let arns = spec["allow"][0]["keyArns"].as_array_mut().unwrap();
                arns.push(json!(KmsKey::Moved.arn()));
            }
            (Mutant::PairsNotChecked, View::Loaded(_)) => _ = spec.as_object_mut().unwrap().remove("encryptionContext"),
            _ => {}
        }
        spec
    }

    /// The step that the mutant takes where the class decides; `next` is the step under another class.
    pub fn mistaken_judgment(
        &self,
        judged: Step,
        attempt: &Attempt<Rc<Key>>,
        (class, tenancy): (ClassView, Tenancy<'_>),
        next: impl Fn(Tenancy<'_>) -> Step,
    ) -> Step {
        let object = attempt.object().as_object();
        match (self.mutant, judged) {
            (Mutant::AnswerToAnotherClass, judged @ (Step::AcquirePermit(_) | Step::CallKms(_))) => {
                let (Some(answer), Step::AcquirePermit(ask) | Step::CallKms(ask)) =
                    (attempt.unrecorded_answer(), &judged)
                else {
                    return judged;
                };
                let (as_written, class) = (ask.as_written.clone(), ask.class.clone());
                let versions = vec![IssuedVersion { as_written, class, ..answer.version.clone() }];
                Step::Record(Record { versions, source: Source::Kms })
            }
            (Mutant::RoleNotAssumed, Step::CallKms(ask)) => {
                Step::CallKms(Box::new(Ask { identity: Identity::Operator, ..*ask }))
            }
            (Mutant::JudgedAgain, judged)
                if attempt.failure().is_none() && object.recorded_version(object.wanted_version()).is_some() =>
            {
                match tenancy.ask(object, None) {
                    Err(Refusal::Failed(failure)) => Step::ReportFailure(failure),
                    _ => judged,
                }
            }
            (_, Step::ReportFailure(failure)) if failure.reason == Reason::ClassRefused => {
                let judged = Step::ReportFailure(failure);
                let Some(at) = class.found() else { return judged };
                let all = [KmsKey::Usual, KmsKey::Moved, KmsKey::Other].map(KmsKey::arn);
                let mut spec = Terms::Open.spec();
                spec["allow"][0]["keyArns"] = json!(all);
                let class = at.with_spec(spec);
                let unjudged = next(ClassView::Found(at).tenancy(Some(&class)));
                if self.takes_unjudged(&unjudged, attempt) { unjudged } else { judged }
            }
            (_, judged) => judged,
        }
    }

    /// Whether the mutant takes this step without asking the class.
    fn takes_unjudged(&self, step: &Step, attempt: &Attempt<Rc<Key>>) -> bool {
        let object = attempt.object().as_object();
        match self.mutant {
            Mutant::CallNotJudged => {
                matches!(step, Step::GetSecretMetadata | Step::AcquirePermit(_) | Step::CallKms(_))
            }
            Mutant::PinsNotJudged => object.spec.pins.iter().any(|pin| object.recorded_version(pin.version).is_none()),
            Mutant::AdoptionNotJudged => matches!(step, Step::Record(Record { source: Source::Secret, .. })),
            _ => false,
        }
    }

    /// Changes the version that the mutant records.
    pub(super) fn misrecord(&self, issued: &mut IssuedVersion) {
        match self.mutant {
            Mutant::WrittenForgotten => issued.as_written = None,
            Mutant::RequestAsWritten => issued.request = issued.written().to_request().unwrap(),
            _ => {}
        }
    }
}
