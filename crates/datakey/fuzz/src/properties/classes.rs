//! A class fills in exactly what it says, and nothing is asked or recorded that it does not allow, whatever is in it.

use datakey::{
    api::{
        ContextPair, DataKey, DataKeyClassSpec, DataKeyClassStatus, IssuedVersion, KeyKind as _, Mode, RequestFlaw,
        ValueFrom, flaw, with_recorded,
    },
    arn::{self, KmsArn},
    class::{Ask, Class, Lookup, Refusal, RoleOutcome, Tenancy, wanted_status},
    decode::Encoded,
    protocol::{Inputs, Observed, Record, SecretState, Step, newer, pins, plan, size},
    reason::Failure,
    secret::{self, Projection, known::KnownSecret, metadata::SecretMetadata},
};
use k8s_openapi::ByteString;
use serde_json::json;

use super::{Objects, Reached, decode, now, without_record, written};

/// The Region of the operator.
const OWN_REGION: &str = "eu-west-1";

/// The longest message of a failure or a condition, in characters.
const MAX_MESSAGE: usize = 1024;

/// A class and an object that names it.
pub fn class(data: &[u8]) -> Reached {
    let Some(Objects { mut key, secret, class: Some(class) }) = decode(data) else {
        return Reached::Nothing;
    };
    let Ok(encoded) = serde_json::from_value::<Encoded>(class) else {
        return Reached::Nothing;
    };
    let (name, uid) = (encoded.metadata.name.as_deref().unwrap_or_default(), encoded.metadata.uid.as_deref());
    let generation = encoded.metadata.generation.unwrap_or_default();
    let class = Class::new(name, uid.unwrap_or_default(), generation, encoded.decode_spec::<DataKeyClassSpec>());
    key.spec.class_name = Some(name.to_owned());

    let status = wanted_status(&class, 1, &RoleOutcome::Unknown, &DataKeyClassStatus::default(), now(0));
    let accepted = &status.conditions.unwrap()[0];
    assert_eq!(accepted.status == "True", class.flaw().is_none());
    assert!(accepted.message.chars().count() <= MAX_MESSAGE, "{}", accepted.message);

    let tenancy = Tenancy { is_required: false, class: Lookup::Found(&class) };
    nothing_is_allowed_without_it(&key);
    claims_are_judged(&key, &class, &tenancy);
    for region in [None, Some(OWN_REGION)] {
        decisions_keep_to_it(&key, secret.as_ref(), &tenancy, region);
    }
    match tenancy.ask((&key).into(), Some(OWN_REGION)) {
        Err(refusal) => {
            is_discreet(&key, &class, &refusal);
            Reached::Checks
        }
        Ok(ask) => {
            assert!(class.admits(key.metadata.namespace.as_deref().unwrap_or_default()), "asked in another namespace");
            is_filled_in(&key, &class, &ask);
            is_recorded_and_adopted(&key, &tenancy, &ask)
        }
    }
}

/// An object that names a class may have nothing while that is not there.
fn nothing_is_allowed_without_it(key: &DataKey) {
    for class in [Lookup::Unlisted, Lookup::Unavailable("no definition"), Lookup::Absent] {
        let tenancy = Tenancy { is_required: false, class };
        assert!(tenancy.ask(key.into(), Some(OWN_REGION)).is_err(), "{class:?}");
        assert!(tenancy.admit(key.into(), Some(OWN_REGION), key.record().to_vec()).is_err(), "{class:?}");
    }
}

/// Pins and recorded versions are recorded unchanged, except for the class, and only with an ARN and a context of the class.
fn claims_are_judged(key: &DataKey, class: &Class, tenancy: &Tenancy<'_>) {
    for claim in key.record().iter().chain(key.pinned_versions()) {
        let admitted = match tenancy.admit(key.into(), Some(OWN_REGION), vec![claim.clone()]) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                is_discreet(key, class, &refusal);
                continue;
            }
        };
        let [admitted] = &admitted[..] else { panic!("one version became {}", admitted.len()) };
        assert_eq!(&IssuedVersion { class: claim.class.clone(), ..admitted.clone() }, claim);
        names_the_class(admitted, class);
        let arns = class.spec().allow.iter().flat_map(|entry| entry.key_arns.as_ref().unwrap_or(&entry.key_ids));
        assert!(arns.into_iter().any(|arn| *arn == claim.key_id), "the class does not name {}", claim.key_id);
        assert!(has_the_pairs(key, class, claim.request.context()), "{:?}", claim.request);
    }
}

fn names_the_class(version: &IssuedVersion, class: &Class) {
    let reference = version.class.as_ref().expect("the class that allows it");
    assert_eq!(
        (reference.name.as_str(), (reference.uid.as_str(), reference.generation)),
        (class.name(), class.state())
    );
}

fn pairs(class: &Class) -> impl Iterator<Item = &ContextPair> {
    class.spec().encryption_context.iter().flat_map(|context| &context.pairs)
}

fn value_of(pair: &ContextPair, key: &DataKey) -> Option<String> {
    match (&pair.value, pair.value_from) {
        (Some(value), _) => Some(value.clone()),
        (None, Some(ValueFrom::Namespace)) => key.metadata.namespace.clone(),
        (None, Some(ValueFrom::Name)) => key.metadata.name.clone(),
        (None, None) => None,
    }
}

fn has_the_pairs(key: &DataKey, class: &Class, context: &datakey::api::EncryptionContext) -> bool {
    pairs(class).all(|pair| {
        let found = context.get(&pair.key);
        found.is_some() && value_of(pair, key).is_none_or(|value| found == Some(&value))
    })
}

/// What is asked is what the spec says with what the class says, and the spec follows from the record.
fn is_filled_in(key: &DataKey, class: &Class, ask: &Ask) {
    let Ask { request, as_written, .. } = ask;
    let spec = key.as_object().spec.request;
    assert_eq!(RequestFlaw::of(DataKey::KIND, request), None);
    match as_written {
        None => assert!(request.view().is_same_request(spec)),
        Some(written) => assert!(written.view().is_same_request(spec) && !request.view().is_same_request(spec)),
    }
    let defaults = class.spec().defaults.as_ref();
    let default_key = defaults.and_then(|defaults| defaults.key_id.as_deref());
    assert_eq!(Some(request.key_id.as_str()), spec.key_id.or(default_key));
    let default_region = defaults.and_then(|defaults| defaults.region.as_deref());
    let default_region = default_region.filter(|_| !request.key_id.starts_with("arn:"));
    assert_eq!(request.region.as_deref(), spec.region.or(default_region));
    assert_eq!((request.key_spec, request.number_of_bytes), (spec.key_spec, spec.number_of_bytes));

    assert!(has_the_pairs(key, class, request.context()), "{request:?}");
    let mut context = spec.context().clone();
    for pair in pairs(class).filter(|pair| pair.mode == Mode::Inject) {
        context.entry(pair.key.clone()).or_insert(value_of(pair, key).expect("a pair that is added has a value"));
    }
    assert_eq!(request.context(), &context);
}

/// There is an answer of KMS that may be recorded, and its Secret is adopted as exactly this version.
fn is_recorded_and_adopted(key: &DataKey, tenancy: &Tenancy<'_>, ask: &Ask) -> Reached {
    let Some(issued) = answer(key, tenancy, ask) else {
        return Reached::Checks;
    };
    let mut key = without_record(key.clone());
    key.spec.wrapped_keys = None;
    assert!(issued.version < 1 || flaw(DataKey::KIND, &issued).is_none(), "{:?}", flaw(DataKey::KIND, &issued));
    let mut recorded = key.clone();
    recorded.status = Some(with_recorded(&key, vec![issued.clone()]));
    let Some(recorded) = written(&recorded).filter(|_| issued.version >= 1) else {
        return Reached::Checks;
    };
    assert_eq!(recorded.record(), std::slice::from_ref(&issued));
    let secret = Projection::of(&recorded, issued.version).expect("it is recorded").into_secret(&recorded);
    assert_eq!(secret::adopt(&key, &secret), Ok(vec![issued.clone()]));
    let mut pinned = key.clone();
    pinned.spec.wrapped_keys = Some(vec![issued.clone()]);
    assert_eq!(pins::unrecorded(&recorded, Some(OWN_REGION)), Ok(Vec::new()));
    assert_eq!(pins::unrecorded(&pinned, Some(OWN_REGION)), Ok(vec![issued.clone()]));
    // Without `keyArns`, what KMS may answer is no reason to adopt it.
    if let Ok(admitted) = tenancy.admit((&key).into(), Some(OWN_REGION), vec![issued.clone()]) {
        assert_eq!(admitted, [issued]);
    }
    Reached::All
}

/// An answer of KMS that may be recorded.
fn answer(key: &DataKey, tenancy: &Tenancy<'_>, ask: &Ask) -> Option<IssuedVersion> {
    let Lookup::Found(class) = tenancy.class else { return None };
    let key_id = ask.request.key_id.as_str();
    let region = arn::resolve_region(key_id, ask.request.region.as_deref(), Some(OWN_REGION))?;
    let made = match KmsArn::parse(key_id) {
        Some(KmsArn { partition, account, .. }) => format!("arn:{partition}:kms:{region}:{account}:"),
        None => format!("arn:aws:kms:{region}:111122223333:"),
    };
    let any = format!("{made}key/1234abcd-12ab-34cd-56ef-1234567890ab");
    let made = [any, format!("{made}key/{key_id}"), key_id.to_owned()];
    let arns = class.spec().allow.iter().flat_map(|entry| entry.key_arns.iter().flatten());
    let mut possible = arns.chain(&made).filter(|arn| arn::may_answer(key_id, region, arn));
    let mut ask = ask.clone();
    // In a Secret, an empty context and an absent one are the same.
    ask.request.encryption_context = ask.request.encryption_context.filter(|context| !context.is_empty());
    let version = |arn: &String| IssuedVersion {
        key_id: arn.clone(),
        ciphertext_blob: ByteString(b"wrapped".to_vec()),
        ..size::largest(key, &ask, Some(OWN_REGION))
    };
    let is_allowed = |issued: &IssuedVersion| tenancy.judge_answer(key.into(), Some(OWN_REGION), issued).is_ok();
    let issued =
        possible.by_ref().map(version).find(is_allowed).expect("KMS is asked, and no answer could be recorded");
    names_the_class(&issued, class);
    Some(issued)
}

/// Each step asks KMS what the class allows, and records what it allows. What is recorded already depends on no class.
fn decisions_keep_to_it(
    key: &DataKey,
    secret: Option<&k8s_openapi::api::core::v1::Secret>,
    tenancy: &Tenancy<'_>,
    region: Option<&str>,
) {
    let mut views = vec![SecretState::Unwatched, SecretState::Absent];
    let created = Projection::of(key, key.wanted_version()).map(|wanted| wanted.into_secret(key));
    for secret in created.as_ref().into_iter().chain(secret) {
        let metadata = SecretMetadata::of(&secret.metadata);
        views.push(SecretState::Watched(KnownSecret { metadata, verified: None }));
        views.push(SecretState::Loaded(Box::new(secret.clone())));
    }
    let is_recorded = key.recorded_version(key.wanted_version()).is_some()
        && pins::unrecorded(key, region).is_ok_and(|pins| pins.is_empty())
        && newer::in_the_record(key).is_none();
    for view in &views {
        let next = |class| {
            let tenancy = Tenancy { class, ..*tenancy };
            let inputs = Inputs { tenancy, default_region: region, ..Inputs::default() };
            plan(&Observed { has_permit: true, inputs, ..Observed::new(key, view) }, now(0))
        };
        match next(tenancy.class) {
            Step::CallKms(ask) => assert_eq!(tenancy.ask(key.into(), region), Ok(*ask)),
            Step::GetSecretMetadata if key.pinned_versions().is_empty() => {
                assert!(tenancy.ask(key.into(), region).is_ok(), "a request for an object that may have nothing");
            }
            Step::Record(Record { versions, .. }) => {
                assert_eq!(tenancy.admit(key.into(), region, versions.clone()), Ok(versions));
            }
            _ => {}
        }
        for class in [Lookup::Unlisted, Lookup::Unavailable("no definition"), Lookup::Absent] {
            let step = next(class);
            assert!(!matches!(step, Step::CallKms(_) | Step::DryRunRecord(_) | Step::Record(_)), "{class:?}: {step:?}");
            if is_recorded {
                assert_eq!(
                    format!("{step:?}"),
                    format!("{:?}", next(tenancy.class)),
                    "what is recorded is judged again"
                );
            }
        }
    }
}

/// A refusal is short, and names no ARN that the object does not name itself.
fn is_discreet(key: &DataKey, class: &Class, refusal: &Refusal) {
    let Refusal::Failed(failure) = refusal else { panic!("{refusal:?}") };
    let message = Failure::message(failure, DataKey::KIND);
    assert!(message.chars().count() <= MAX_MESSAGE, "{message}");
    // What a pair must have is for the object to know.
    let known =
        json!([key.spec, key.metadata.name, key.metadata.namespace, key.record(), class.spec().encryption_context]);
    let known = known.to_string();
    let entries = class.spec().allow.iter();
    for arn in entries.flat_map(|entry| entry.key_ids.iter().chain(entry.key_arns.iter().flatten())) {
        if arn.starts_with("arn:") && arn.len() > "arn:aws:kms:".len() && !known.contains(arn.as_str()) {
            assert!(!message.contains(arn.trim_end_matches('*')), "{message}");
        }
    }
}
