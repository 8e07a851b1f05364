//! A second kind, which only tests have: from an object of it the protocol makes a Secret of that kind.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::super::{Answer, Attempt, Inputs, Step};
use crate::{
    api::{DeletionPolicy, KeyKind, KeyRequest, KeyStatus, Kind, READY, Rest, SpecView, initial_status},
    condition::find,
    fixtures::{at, data_key, issued, request},
    secret::{
        Projection, adopt,
        digest::Digest,
        known::{KnownSecret, Verified},
        metadata::SecretMetadata,
    },
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    metadata: ObjectMeta,
    /// Its spec has the request in a field of its own.
    spec: TokenSpec,
    status: Option<KeyStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct TokenSpec {
    asks: KeyRequest,
    #[serde(flatten)]
    rest: Rest,
}

type Whole = Attempt<Arc<Token>>;

fn token() -> Token {
    let spec = TokenSpec { asks: request(), rest: Rest::new() };
    let created = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    let metadata = ObjectMeta { creation_timestamp: created, ..data_key().metadata };
    Token { metadata, spec, status: Some(initial_status()) }
}

fn next(attempt: &Whole) -> Step {
    attempt.next(Inputs::default(), Timestamp::UNIX_EPOCH)
}

/// Takes the step as a cluster would that has no other client, and returns the Secret if it created one.
fn carry_out(attempt: &mut Whole, step: Step) -> Option<k8s_openapi::api::core::v1::Secret> {
    let store = |status| Answer::Stored(Arc::new(attempt.object().with_status(status)));
    let (answer, secret) = match step {
        Step::AcquirePermit => (Answer::Permit, None),
        Step::GetSecretMetadata => (Answer::Metadata(None), None),
        Step::CallKms => (Answer::Issued(issued(1)), None),
        Step::Record(record) => (store(record.status(attempt.object())), None),
        Step::PutStatus(status) => (store(*status), None),
        Step::CreateSecret(secret) => {
            let verified = Some(Verified::written(Digest::of(&secret)));
            let metadata = SecretMetadata::of(&secret.metadata);
            (Answer::Revision(KnownSecret { metadata, verified }), Some(*secret))
        }
        step => panic!("{step:?}"),
    };
    attempt.learn(answer).unwrap();
    secret
}

#[test]
fn another_kind_is_issued_with_a_secret_of_its_own_type() {
    let mut attempt = Whole::new(Arc::new(token()), None);
    let mut created = None;
    loop {
        match next(&attempt) {
            Step::Settled => break,
            step => created = carry_out(&mut attempt, step).or(created),
        }
    }
    let (token, secret) = (attempt.object(), created.unwrap());
    assert_eq!(token.as_object().record(), [issued(1)]);
    assert_eq!(find(token, READY).unwrap().message, "Secret orders holds token version 1");
    assert_eq!(secret.type_.as_deref(), Some("example.com/token"));
    let owner = &secret.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.api_version.as_str(), owner.kind.as_str()), ("example.com/v1", "Token"));
}

#[test]
fn kinds_do_not_adopt_the_secrets_of_each_other() {
    let mut recorded = token();
    recorded.status = Some(crate::api::with_recorded(&recorded, vec![issued(1)]));
    let secret = Projection::of(&recorded, 1).unwrap().into_secret(&recorded);
    assert_eq!(adopt(&token(), &secret), Ok(vec![issued(1)]));
    assert_eq!(
        adopt(&data_key(), &secret).unwrap_err().why,
        "it is of type \"example.com/token\" and not datakey.dev/wrapped-key"
    );
}

// === impl Token ===

impl KeyKind for Token {
    const KIND: &'static Kind =
        &Kind { api_version: "example.com/v1", name: "Token", noun: "token", secret_type: "example.com/token" };

    type Spec = TokenSpec;

    fn new(metadata: ObjectMeta, spec: TokenSpec, status: Option<KeyStatus>) -> Self {
        Self { metadata, spec, status }
    }

    fn view(spec: &TokenSpec) -> SpecView<'_> {
        SpecView {
            request: spec.asks.view(),
            version: None,
            secret_name: None,
            secret_template: None,
            deletion_policy: DeletionPolicy::Delete,
            pins: &[],
            rest: &spec.rest,
            whole: spec,
        }
    }

    fn spec(&self) -> &TokenSpec {
        &self.spec
    }

    fn status(&self) -> Option<&KeyStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: KeyStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Resource for Token {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Self::KIND.name.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "example.com".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "tokens".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
