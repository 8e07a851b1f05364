//! The checks of a class, in their order.

use super::{
    Class, demanded_value,
    forms::{folded, matches},
};
use crate::{
    api::{ClassLimits, KeySpec, Object, Others, RequestFlaw, RequestView},
    arn::{self, KmsArn},
    text::printable,
};

/// The number of values that a message names.
const MAX_NAMED: usize = 5;

/// The longest value in a message, in characters.
const MAX_VALUE: usize = 100;

/// A named check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The class itself has no contradictions.
    Accepted,
    /// The class admits the namespace.
    Namespaces,
    /// The encryption context has the pairs that the class demands.
    Pairs,
    /// The encryption context has no other pairs than the class allows.
    OtherPairs,
    /// A KMS key is named, and KMS can be asked this.
    Request,
    /// An entry of `allow` has the KMS key.
    KeyIds,
    /// The entry has the Region.
    Regions,
    /// The entry has the length of the data key.
    Lengths,
    /// The entry has the kind of key pair.
    KeyPairSpecs,
    /// The entry has the ARN of the KMS key that wrapped it.
    KeyArns,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// What KMS is about to be asked.
    Question,
    /// What KMS answered: the ARN of the key.
    Answer(&'a str),
    /// What a pin or a Secret says: the ARN of the key. Its request is not asked again, so its key ID says nothing.
    Claim(&'a str),
}

/// What is judged, and by what.
pub(super) struct Case<'a> {
    pub class: &'a Class,
    pub object: Object<'a>,
    /// The request, with what the class fills in.
    pub request: RequestView<'a>,
    pub own_region: Option<&'a str>,
    pub subject: Subject<'a>,
}

/// A check of a whole request.
type OfRequest = (Check, fn(&Case<'_>) -> Result<(), String>);

/// The checks of a request, in their order.
const OF_REQUESTS: [OfRequest; 5] = [
    (Check::Accepted, is_accepted),
    (Check::Namespaces, admits_the_namespace),
    (Check::Pairs, has_the_pairs),
    (Check::OtherPairs, has_no_other_pairs),
    (Check::Request, is_possible),
];

/// A check by one entry of `allow`.
type OfEntry = (Check, fn(&Case<'_>, &ClassLimits) -> bool);

/// The checks by an entry of `allow`, in their order. One entry must pass all.
const OF_ENTRIES: [OfEntry; 5] = [
    (Check::KeyIds, allows_the_key),
    (Check::Regions, allows_the_region),
    (Check::Lengths, allows_the_length),
    (Check::KeyPairSpecs, allows_the_pair),
    (Check::KeyArns, allows_the_arn),
];

/// Judges by all checks, in their order.
///
/// # Errors
/// The first check that fails, and what the object may do.
pub(super) fn judge(case: &Case<'_>) -> Result<(), (Check, String)> {
    judge_by(case, |_| true)
}

/// Judges by the checks that apply, in their order. A test leaves each of them out in turn.
pub(super) fn judge_by(case: &Case<'_>, applies: impl Fn(Check) -> bool) -> Result<(), (Check, String)> {
    for (check, holds) in OF_REQUESTS.into_iter().filter(|(check, _)| applies(*check)) {
        holds(case).map_err(|why| (check, why))?;
    }
    // The entry that passes the most checks says best what the object may do.
    let mut best: Option<(usize, &ClassLimits)> = None;
    for entry in &case.class.spec().allow {
        let fails = |(check, holds): &OfEntry| applies(*check) && !holds(case, entry);
        let Some(number) = OF_ENTRIES.iter().position(fails) else { return Ok(()) };
        if best.is_none_or(|(most, _)| number > most) {
            best = Some((number, entry));
        }
    }
    let Some((number, entry)) = best else {
        return Err((Check::KeyIds, "the class allows nothing".to_owned()));
    };
    let check = OF_ENTRIES[number].0;
    Err((check, case.what_is_allowed(check, entry)))
}

// === the checks of a request ===

fn is_accepted(case: &Case<'_>) -> Result<(), String> {
    match case.class.flaw() {
        None => Ok(()),
        // The field, but not its value: it can be that of another tenant.
        Some(_) => Err("the class is not accepted and allows nothing; its condition Accepted says why".to_owned()),
    }
}

fn admits_the_namespace(case: &Case<'_>) -> Result<(), String> {
    let namespace = case.object.metadata.namespace.as_deref().unwrap_or_default();
    if case.class.lists(namespace) {
        return Ok(());
    }
    Err(format!("the class does not admit namespace {namespace}"))
}

fn is_possible(case: &Case<'_>) -> Result<(), String> {
    let Some(request) = case.request.to_request() else {
        return Err("neither spec.keyId nor the class names a KMS key: set spec.keyId".to_owned());
    };
    match RequestFlaw::of(case.object.kind, &request) {
        None => Ok(()),
        Some(RequestFlaw::RegionBesideArn) => {
            Err("the KMS key is named by its ARN, which has the Region: remove spec.region".to_owned())
        }
        Some(RequestFlaw::ContextPairs | RequestFlaw::ContextBytes) => Err(
            "with what the class adds, the encryption context would have more than 32 pairs or 8192 bytes: shorten it"
                .to_owned(),
        ),
        Some(flaw) => Err(flaw.advice()),
    }
}

fn has_the_pairs(case: &Case<'_>) -> Result<(), String> {
    let Some(rule) = case.class.spec().encryption_context.as_ref().filter(|rule| !rule.pairs.is_empty()) else {
        return Ok(());
    };
    let context = case.request.context();
    let forms: Vec<_> = context.keys().map(|key| (key, folded(key))).collect();
    for pair in &rule.pairs {
        let shown = |text: &str| printable(text, MAX_VALUE);
        let key = shown(&pair.key);
        let form = folded(&pair.key);
        if let Some((alike, _)) = forms.iter().find(|(other, other_form)| **other != pair.key && *other_form == form) {
            return Err(format!(
                "the key {} of the encryption context differs from {key} only in case or in the form of its characters: remove it",
                shown(alike)
            ));
        }
        let wanted = demanded_value(pair, case.object.metadata);
        match (context.get(&pair.key), wanted) {
            (None, None) => return Err(format!("the encryption context needs a pair with the key {key}: add it")),
            (None, Some(value)) => {
                return Err(format!("the encryption context needs the pair {key}={}: add it", shown(value)));
            }
            (Some(found), Some(value)) if *found != value => {
                return Err(format!("the encryption context must have {key}={}, or leave it out", shown(value)));
            }
            (Some(_), _) => {}
        }
    }
    Ok(())
}

fn has_no_other_pairs(case: &Case<'_>) -> Result<(), String> {
    let Some(rule) = &case.class.spec().encryption_context else { return Ok(()) };
    if rule.others.unwrap_or_default() == Others::Allow {
        return Ok(());
    }
    let is_listed = |key: &String| rule.pairs.iter().any(|pair| pair.key == *key);
    match case.request.context().keys().find(|key| !is_listed(key)) {
        None => Ok(()),
        Some(other) => {
            let keys = rule.pairs.iter().map(|pair| pair.key.as_str());
            Err(format!(
                "the encryption context may not have the key {}, only {}",
                printable(other, MAX_VALUE),
                named(keys, "key")
            ))
        }
    }
}

// === the checks by an entry of `allow` ===

fn allows_the_key(case: &Case<'_>, entry: &ClassLimits) -> bool {
    match case.subject {
        Subject::Claim(_) => true,
        Subject::Question | Subject::Answer(_) => case.request.key_id.is_some_and(|key_id| {
            entry.key_ids.iter().any(|pattern| is_same_form(pattern, key_id) && matches(pattern, key_id))
        }),
    }
}

/// Whether both are ARNs, or both are not. A pattern of names, however short, matches no ARN.
fn is_same_form(pattern: &str, key_id: &str) -> bool {
    pattern.starts_with("arn:") == key_id.starts_with("arn:")
}

fn allows_the_region(case: &Case<'_>, entry: &ClassLimits) -> bool {
    let Some(regions) = &entry.regions else { return true };
    let region = match case.subject {
        Subject::Claim(arn) => KmsArn::parse(arn).map(|arn| arn.region),
        Subject::Question | Subject::Answer(_) => case.region(),
    };
    region.is_some_and(|region| regions.iter().any(|allowed| allowed == region))
}

/// `keySpecs` and `numberOfBytes` are about the same: the length. So one of them restricts the other.
fn allows_the_length(case: &Case<'_>, entry: &ClassLimits) -> bool {
    if entry.key_specs.is_none() && entry.number_of_bytes.is_none() {
        return true;
    }
    let allows_spec = |spec| entry.key_specs.as_ref().is_some_and(|allowed| allowed.contains(&spec));
    let allows_bytes =
        |bytes| entry.number_of_bytes.is_some_and(|allowed| (allowed.min..=allowed.max).contains(&bytes));
    case.request.key_spec.is_none_or(allows_spec) && case.request.number_of_bytes.is_none_or(allows_bytes)
}

fn allows_the_pair(case: &Case<'_>, entry: &ClassLimits) -> bool {
    match (&entry.key_pair_specs, case.request.key_pair_spec) {
        (Some(allowed), Some(spec)) => allowed.contains(&spec),
        _ => true,
    }
}

fn allows_the_arn(case: &Case<'_>, entry: &ClassLimits) -> bool {
    let names = |list: &[String], arn: &str| list.iter().any(|allowed| allowed == arn);
    match (case.subject, &entry.key_arns) {
        (Subject::Question | Subject::Answer(_), None) => true,
        // Where none of them can answer, a call would only be refused afterwards.
        (Subject::Question, Some(arns)) => case.region().is_none_or(|region| {
            let key_id = case.request.key_id.unwrap_or_default();
            arns.iter().any(|arn| arn::may_answer(key_id, region, arn))
        }),
        (Subject::Answer(arn) | Subject::Claim(arn), Some(arns)) => names(arns, arn),
        (Subject::Claim(arn), None) => names(&entry.key_ids, arn),
    }
}

// === impl Case ===

impl Case<'_> {
    /// The Region that is or was called.
    fn region(&self) -> Option<&str> {
        arn::resolve_region(self.request.key_id.unwrap_or_default(), self.request.region, self.own_region)
    }

    /// What the object may ask for instead, as far as it may know that.
    fn what_is_allowed(&self, check: Check, entry: &ClassLimits) -> String {
        match check {
            Check::KeyIds => {
                let names = self.class.spec().allow.iter().flat_map(|entry| &entry.key_ids);
                // A key ID names a KMS key of another tenant as its ARN does.
                let (names, keys): (Vec<_>, Vec<_>) = names.partition(|key_id| key_id.starts_with("alias/"));
                let asked = printable(self.request.key_id.unwrap_or_default(), MAX_VALUE);
                let allowed = match (names.is_empty(), keys.len()) {
                    (true, _) => "it allows keys by their IDs or ARNs only".to_owned(),
                    (false, 0) => format!("it allows {}", named(names.into_iter().map(String::as_str), "name")),
                    (false, _) => {
                        format!(
                            "it allows {}, and some IDs or ARNs",
                            named(names.into_iter().map(String::as_str), "name")
                        )
                    }
                };
                format!("the class does not allow the KMS key {asked}; {allowed}")
            }
            Check::Regions => {
                let regions = entry.regions.iter().flatten().map(String::as_str);
                format!("the KMS key must be in {}", named(regions, "Region"))
            }
            Check::Lengths => {
                let specs = entry.key_specs.iter().flatten().map(|spec: &KeySpec| format!("keySpec {}", spec.as_str()));
                let bytes =
                    entry.number_of_bytes.iter().map(|range| format!("numberOfBytes {} to {}", range.min, range.max));
                let all: Vec<_> = specs.chain(bytes).collect();
                format!("the length must be {}", named(all.iter().map(String::as_str), "length"))
            }
            Check::KeyPairSpecs => {
                let specs = entry.key_pair_specs.iter().flatten().map(|spec| spec.as_str());
                format!("keyPairSpec must be {}", named(specs, "kind"))
            }
            Check::KeyArns => match (self.subject, &entry.key_arns) {
                (Subject::Claim(_), None) => {
                    "the class names KMS keys by their aliases only, so nothing can be pinned or \
                                              adopted: the platform team must add the ARN of the KMS key to keyArns"
                        .to_owned()
                }
                (Subject::Question, _) => {
                    let asked = printable(self.request.key_id.unwrap_or_default(), MAX_VALUE);
                    format!(
                        "none of keyArns of the class can be the KMS key {asked} in its Region: the platform team must add \
                         it, or name another Region"
                    )
                }
                _ => {
                    "the KMS key that wrapped it is not among keyArns of the class: the platform team must add it, or \
                      correct the alias"
                        .to_owned()
                }
            },
            Check::Accepted | Check::Namespaces | Check::Request | Check::Pairs | Check::OtherPairs => String::new(),
        }
    }
}

/// Some values, as a message names them.
fn named<'a>(values: impl Iterator<Item = &'a str>, what: &str) -> String {
    let all: Vec<_> = values.collect();
    let shown: Vec<_> = all.iter().take(MAX_NAMED).map(|value| printable(value, MAX_VALUE)).collect();
    match (shown.is_empty(), all.len().saturating_sub(MAX_NAMED)) {
        (true, _) => format!("no {what}"),
        (false, 0) => shown.join(" or "),
        (false, more) => format!("{} or one of {more} more", shown.join(" or ")),
    }
}

// === impl Check ===

impl Check {
    /// All checks, in their order.
    pub fn all() -> impl Iterator<Item = Self> {
        OF_REQUESTS.iter().map(|(check, _)| *check).chain(OF_ENTRIES.iter().map(|(check, _)| *check))
    }

    /// The name, as messages have it: the field of the class.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Namespaces => "namespaces",
            Self::Request => "request",
            Self::Pairs => "encryptionContext.pairs",
            Self::OtherPairs => "encryptionContext.others",
            Self::KeyIds => "keyIds",
            Self::Regions => "regions",
            Self::Lengths => "keySpecs and numberOfBytes",
            Self::KeyPairSpecs => "keyPairSpecs",
            Self::KeyArns => "keyArns",
        }
    }
}
