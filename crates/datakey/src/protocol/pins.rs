//! Pins: data keys that the spec carries in their wrapped form, so that they are never issued again. Pure.
//!
//! A pin is a copy of an entry of a record, mostly that of another cluster. Two entries are the same data key if the wrapped
//! data key, the public key, the KMS key and the request are the same; the time and the request ID of the call are not compared.
//! Of a multi-Region key the record names the replica in the Region of the object: a workload decrypts there, and one manifest
//! serves every Region.

use k8s_openapi::api::core::v1::Secret;

use crate::{
    api::{
        IssuedVersion, MAX_VERSIONS, Object,
        flaws::{flaw, twins},
        with_recorded,
    },
    arn::{self, KmsArn},
    reason::{Failure, Reason},
    secret::{
        self,
        compare::{self, Contradiction},
        conflict::{Conflict, Obstacle},
    },
};

/// The pins that are not recorded yet, in the form and in the order of versions in which they are recorded; `own` is the
/// operator's Region. Empty if all pins are recorded.
///
/// # Errors
/// A pin contradicts the record, or can't be recorded. Then none of them is, and no pinned version may be issued.
pub fn unrecorded<'a>(object: impl Into<Object<'a>>, own: Option<&str>) -> Result<Vec<IssuedVersion>, Failure> {
    let object = object.into();
    let mut unrecorded = Vec::new();
    for pin in object.spec.pins {
        let Some(issued) = object.recorded_version(pin.version) else {
            unrecorded.push(validate(object, pin, own)?);
            continue;
        };
        let differs = differences(issued, "status.versions", pin);
        if !differs.is_empty() {
            let detail = format!("version {} differs: {}", pin.version, differs.join(", "));
            return Err(Failure::new(Reason::PinConflict, detail));
        }
    }
    unrecorded.sort_by_key(|pin| pin.version);
    if let Some(beyond) = unrecorded.get(MAX_VERSIONS.saturating_sub(object.record().len())) {
        return Err(invalid(beyond, "with it there would be more than 64 versions"));
    }
    // The API server keeps the list as a map by version, so it cannot have one version twice.
    if let Some([twice, _]) = unrecorded.array_windows().find(|[one, next]| one.version == next.version) {
        return Err(invalid(twice, "it is there twice"));
    }
    if !unrecorded.is_empty()
        && let Some((one, other)) = twins(object.record().iter().chain(&unrecorded))
    {
        let noun = object.kind.noun;
        let why = format!("ciphertextBlob is that of version {one}, too; each version must have a {noun} of its own");
        return Err(Failure::new(Reason::PinInvalid, format!("version {other}: {why}")));
    }
    Ok(unrecorded)
}

/// The versions to record for these pins and the Secret that was read: the pins and, if there is no record yet, the
/// versions that only the Secret holds.
///
/// # Errors
/// How the Secret contradicts the pins. It must not be overwritten.
pub(super) fn merge_with_secret(
    object: Object<'_>,
    pins: Vec<IssuedVersion>,
    secret: &Secret,
) -> Result<Vec<IssuedVersion>, Conflict> {
    // Before the pins count as recorded: a pin proves nothing, because any user can copy it from another object.
    if let Some(conflict) = secret::foreign_reason(object, secret) {
        return Err(conflict);
    }
    let noun = object.kind.noun;
    let contradicts = |why: String| Obstacle::OtherPin.because(why);
    for pin in &pins {
        let differs =
            secret::parse_version(object.kind, secret, pin.version).map(|found| differences(&found, "the Secret", pin));
        if let Ok(differs) = differs.as_deref()
            && !differs.is_empty()
        {
            return Err(contradicts(format!(
                "its {noun} version {} is another one than spec.wrappedKeys pins: {}",
                pin.version,
                differs.join(", ")
            )));
        }
    }
    let adopted = if object.record().is_empty() { secret::adopt(object, secret) } else { Ok(Vec::new()) };
    let is_pinned = |found: &IssuedVersion| pins.iter().any(|pin| pin.version == found.version);
    let more: Vec<_> = adopted.iter().flatten().filter(|found| !is_pinned(found)).cloned().collect();
    let mut versions = [pins, more].concat();
    if versions.len() > MAX_VERSIONS {
        let why = format!("what it holds and what spec.wrappedKeys pins are more than {MAX_VERSIONS} versions");
        return Err(contradicts(why));
    }
    if let Some((one, other)) = twins(object.record().iter().chain(&versions)) {
        return Err(contradicts(format!(
            "with what spec.wrappedKeys pins or status.versions records, versions {one} and {other} would be the same \
             {noun}"
        )));
    }
    versions.sort_by_key(|issued| issued.version);

    // As soon as these versions are recorded, the Secret is compared with them. A contradiction must be found before that.
    let status = with_recorded(object, versions.clone());
    let recorded = Object { status: Some(&status), ..object };
    let because = adopted.err().map(|Conflict { why, .. }| format!(" ({why})")).unwrap_or_default();
    match compare::contradiction(recorded, secret) {
        None => Ok(versions),
        Some(Contradiction::Foreign(conflict)) => Err(conflict),
        Some(Contradiction::UnrecordedVersion(version)) => Err(contradicts(format!(
            "it holds {noun} version {version}, which is neither recorded nor pinned in spec.wrappedKeys{because}"
        ))),
        Some(Contradiction::DifferentKey(version)) => Err(contradicts(format!(
            "its {noun} version {version} may be another one than is pinned or recorded{because}"
        ))),
    }
}

/// Checks a pin, and converts it to the entry that is recorded: with the replica of the object's Region.
fn validate(object: Object<'_>, pin: &IssuedVersion, own: Option<&str>) -> Result<IssuedVersion, Failure> {
    let request = &pin.request;
    if let Some(flaw) = flaw(object.kind, pin) {
        return Err(invalid(pin, flaw));
    }
    // Only a multi-Region key has replicas. Data keys that a key of one Region wrapped are unwrapped in that Region only.
    let named = arn::resolve_region(&request.key_id, request.region.as_deref(), None);
    let here = named.or(own).and_then(|region| arn::replica_in(&pin.key_id, region));
    let recorded = IssuedVersion { key_id: here.unwrap_or_else(|| pin.key_id.clone()), ..pin.clone() };
    let region = named.or(KmsArn::parse(&recorded.key_id).map(|arn| arn.region)).unwrap_or_default();
    if !arn::may_answer(&request.key_id, region, &recorded.key_id) {
        return Err(invalid(pin, "keyId is not the ARN of the key that its request asks for"));
    }
    if pin.version == object.wanted_version() && !pin.written().is_same_request(object.spec.request) {
        let differs = pin.written().differing_values("the pin", object.spec.request, "the spec").join(", ");
        return Err(invalid(pin, &format!("its request differs from the spec: {differs}")));
    }
    Ok(recorded)
}

fn invalid(pin: &IssuedVersion, why: &str) -> Failure {
    Failure::new(Reason::PinInvalid, format!("version {}: {why}", pin.version))
}

/// What makes a pin another data key than this version, with both values where they are short.
fn differences(version: &IssuedVersion, place: &str, pin: &IssuedVersion) -> Vec<String> {
    let of_the_request = version.request.view().differing_values(place, pin.request.view(), "the pin");
    let mut all: Vec<_> = of_the_request.into_iter().map(|field| format!("request.{field}")).collect();
    if version.as_written.is_some() || pin.as_written.is_some() {
        let of_the_spec = version.written().differing_values(place, pin.written(), "the pin");
        all.extend(of_the_spec.into_iter().map(|field| format!("asWritten.{field}")));
    }
    if !arn::decrypts_for(&pin.key_id, &version.key_id) {
        all.push(format!("keyId {} in {place}, {} in the pin", version.key_id, pin.key_id));
    }
    if pin.ciphertext_blob != version.ciphertext_blob {
        all.push("ciphertextBlob".to_owned());
    }
    if pin.public_key != version.public_key {
        all.push("publicKey".to_owned());
    }
    all
}

#[cfg(test)]
mod tests;
