//! What a class allows in a namespace, or for one object. Judged by the code of the operator.

use std::collections::BTreeSet;

use datakey::{
    api::{
        ClassAws, ClassContext, ClassLimits, KeyPairSpec, KeySpec, Mode, NumberRange, Object, Others, SpecView,
        TagSource, ValueFrom,
    },
    class::{Class, DEFAULT_CLASS, Lookup, Refusal, Tenancy, demanded_value},
    protocol::pins,
};
use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cluster::FetchedClass;

/// Where a class is to be used.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The object that is judged, if it is one.
    pub object: Option<Object<'a>>,
    /// The AWS Region of the operator, if it is known.
    pub region: Option<&'a str>,
}

/// A class, and whether it can be used in a namespace or by one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassSummary {
    /// The name of the class.
    pub name: String,
    /// Whether objects of the namespace may use it; with `--for`, whether it allows that object.
    pub usable: Usable,
    /// Why not, or why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether an object without `spec.className` is of it, where the operator requires classes.
    pub default: bool,
    /// The KMS key of objects that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_key_id: Option<String>,
    /// The AWS Region of objects that name none, unless the KMS key is named by its ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_region: Option<String>,
    /// What objects may ask for: all of one entry.
    pub allow: Vec<LimitsSummary>,
    /// What the class adds to the encryption context, and demands of it.
    pub encryption_context: ContextSummary,
    /// The AWS role that the operator assumes for objects of the class. Absent: the operator calls KMS as itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSummary>,
    /// How many objects of the cluster use it, if the operator counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<i64>,
}

/// Whether a class can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Usable {
    /// It can.
    Yes,
    /// It cannot.
    No,
    /// That is not known: the operator sees it otherwise, or its Region decides.
    Unknown,
}

/// One entry of what objects may ask for. An absent field does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSummary {
    /// What `keyId` may be. An alias may end in `*`.
    pub key_ids: Vec<String>,
    /// The ARNs of the KMS keys that KMS may answer with, and that pins and Secrets may name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_arns: Option<Vec<String>>,
    /// The AWS Regions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<String>>,
    /// The kinds of data keys. With this and without `numberOfBytes`, no DataKey may name a number of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_specs: Option<Vec<KeySpec>>,
    /// The lengths in bytes. With this and without `keySpecs`, no DataKey may name a key spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<NumberRange>,
    /// The kinds of key pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_pair_specs: Option<Vec<KeyPairSpec>>,
}

/// What a class adds to the encryption context, and demands of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ContextSummary {
    /// The pairs.
    pub pairs: Vec<PairSummary>,
    /// Whether other pairs are allowed.
    pub others: Others,
}

/// A pair of the encryption context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairSummary {
    /// The key.
    pub key: String,
    /// The value, as it is here; absent for any value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value comes from, if it is not the same everywhere. Without `--for` the `Name` has no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
    /// `Inject` adds the pair where it is absent, and refuses another value. `Require` demands it.
    pub mode: Mode,
}

/// The AWS role of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsSummary {
    /// The ARN.
    pub role_arn: String,
    /// Whether the class has an external ID. It is not printed here.
    pub has_external_id: bool,
    /// The tags of sessions.
    pub session_tags: Vec<TagSummary>,
    /// The condition `RoleAssumed`, if it is about the class as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_assumed: Option<AssumedSummary>,
}

/// A tag of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TagSummary {
    /// The key.
    pub key: String,
    /// The value, as it is here.
    pub value: String,
    /// Where the value comes from, if it is not the same everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<TagSource>,
}

/// Whether the operator can assume a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssumedSummary {
    /// False if AWS STS refuses the role for a namespace.
    pub status: bool,
    /// What the operator says about it.
    pub message: String,
}

// === impl ClassSummary ===

impl ClassSummary {
    /// Judges a class.
    pub fn of(fetched: &FetchedClass, place: Place<'_>) -> Self {
        let class = &fetched.class;
        let spec = class.spec();
        let (usable, why) = judge(fetched, place);
        let defaults = spec.defaults.clone().unwrap_or_default();
        Self {
            name: class.name().to_owned(),
            usable,
            why,
            default: class.name() == DEFAULT_CLASS,
            default_key_id: defaults.key_id,
            default_region: defaults.region,
            allow: spec.allow.iter().map(LimitsSummary::of).collect(),
            encryption_context: spec
                .encryption_context
                .as_ref()
                .map_or_else(ContextSummary::default, |context| ContextSummary::of(context, place)),
            aws: spec.aws.as_ref().map(|aws| AwsSummary::of(aws, fetched, place)),
            in_use: fetched.in_use(),
        }
    }
}

/// Whether the class can be used, and else why not. The plugin decides by the spec. It is not sure only where the operator, which can
/// be of another release, says otherwise.
fn judge(fetched: &FetchedClass, place: Place<'_>) -> (Usable, Option<String>) {
    let class = &fetched.class;
    match (class.flaw(), fetched.accepted()) {
        (Some(flaw), Some((true, _))) => {
            let why = format!("the operator accepts the class, and this plugin, of another release, does not: {flaw}");
            (Usable::Unknown, Some(why))
        }
        (Some(flaw), _) => (Usable::No, Some(format!("the class allows nothing: {flaw}"))),
        (None, _) if !class.admits(place.namespace) => {
            (Usable::No, Some(format!("the class does not admit namespace {}", place.namespace)))
        }
        (None, Some((false, why))) => {
            let why = format!("the operator, of another release than this plugin, does not accept the class: {why}");
            (Usable::Unknown, Some(why))
        }
        (None, _) => place.object.map_or((Usable::Yes, None), |object| judge_object(class, object, place.region)),
    }
}

/// Whether the class allows what an object asks for, and else why not.
fn judge_object(class: &Class, object: Object<'_>, region: Option<&str>) -> (Usable, Option<String>) {
    let Err(refusal) = ask(class, object, region) else { return (Usable::Yes, None) };
    if region.is_none() {
        let regions = class.spec().allow.iter().flat_map(|entry| entry.regions.iter().flatten());
        let fitting = regions.filter(|region| ask(class, object, Some(region)).is_ok()).map(String::as_str);
        let fitting: Vec<_> = fitting.collect::<BTreeSet<_>>().into_iter().collect();
        if !fitting.is_empty() {
            let why = format!(
                "the Region of the operator decides, which is not known here: it must be {}, or set spec.region",
                fitting.join(" or ")
            );
            return (Usable::Unknown, Some(why));
        }
    }
    let why = match refusal {
        Refusal::Failed(failure) => failure.detail.unwrap_or_else(|| failure.reason.what().to_owned()),
        Refusal::NotYet => "the class is not known yet".to_owned(),
    };
    (Usable::No, Some(why))
}

/// Asks as the operator does, as if the object named this class: about pins that are not recorded, and about the version of the spec
/// unless it is pinned.
fn ask(class: &Class, object: Object<'_>, region: Option<&str>) -> Result<(), Refusal> {
    let object = Object { spec: SpecView { class_name: Some(class.name()), ..object.spec }, ..object };
    let tenancy = Tenancy { is_required: true, class: Lookup::Found(class) };
    let pins = pins::unrecorded(object, region).map_err(Refusal::Failed)?;
    let is_pinned = pins.iter().any(|pin| pin.version == object.wanted_version());
    if !pins.is_empty() {
        tenancy.admit(object, region, pins)?;
    }
    if is_pinned { Ok(()) } else { tenancy.ask(object, region).map(drop) }
}

// === impl LimitsSummary ===

impl LimitsSummary {
    fn of(limits: &ClassLimits) -> Self {
        let ClassLimits { key_ids, key_arns, regions, key_specs, number_of_bytes, key_pair_specs, rest: _ } =
            limits.clone();
        Self { key_ids, key_arns, regions, key_specs, number_of_bytes, key_pair_specs }
    }
}

// === impl ContextSummary ===

impl ContextSummary {
    fn of(context: &ClassContext, place: Place<'_>) -> Self {
        let metadata = ObjectMeta {
            namespace: Some(place.namespace.to_owned()),
            name: place.object.and_then(|object| object.name()).map(str::to_owned),
            ..ObjectMeta::default()
        };
        let pairs = context.pairs.iter().map(|pair| PairSummary {
            key: pair.key.clone(),
            value: demanded_value(pair, &metadata).map(str::to_owned),
            value_from: pair.value_from,
            mode: pair.mode,
        });
        Self { pairs: pairs.collect(), others: context.others.unwrap_or_default() }
    }
}

// === impl AwsSummary ===

impl AwsSummary {
    fn of(aws: &ClassAws, fetched: &FetchedClass, place: Place<'_>) -> Self {
        let tags = aws.session_tags.iter().map(|tag| TagSummary {
            key: tag.key.clone(),
            value: tag.value.clone().unwrap_or_else(|| place.namespace.to_owned()),
            value_from: tag.value_from,
        });
        let assumed = |(status, message): (bool, &str)| AssumedSummary { status, message: message.to_owned() };
        Self {
            role_arn: aws.role_arn.clone(),
            has_external_id: aws.external_id.is_some(),
            session_tags: tags.collect(),
            role_assumed: fetched.role_assumed().map(assumed),
        }
    }
}

// === impl Usable ===

impl Usable {
    /// As tables show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{ARN, class, edited, issued, pair_of, ready, recorded};

    const HERE: Place<'_> = Place { namespace: "shop", object: None, region: None };

    fn verdict(fetched: &FetchedClass, place: Place<'_>) -> (Usable, String) {
        let ClassSummary { usable, why, .. } = ClassSummary::of(fetched, place);
        (usable, why.unwrap_or_default())
    }

    fn of_class(edit: impl FnOnce(&mut Value)) -> FetchedClass {
        class("shop", edit)
    }

    #[test]
    fn namespace_decides_without_an_object() {
        let shop = of_class(|_| {});
        assert_eq!(verdict(&shop, HERE), (Usable::Yes, String::new()));
        let bank = Place { namespace: "bank", ..HERE };
        assert_eq!(verdict(&shop, bank), (Usable::No, "the class does not admit namespace bank".to_owned()));
    }

    #[test]
    fn flaw_is_named_and_the_status_alone_decides_nothing() {
        let says = |accepted: &str| {
            json!({ "conditions": [{
                "type": "Accepted", "status": accepted, "reason": "x", "message": "says the operator", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] })
        };
        let flawed = |status: Value| {
            of_class(|value| {
                value["spec"]["defaults"]["keyId"] = json!("alias/other");
                value["status"] = status;
            })
        };
        for status in [json!(null), says("False")] {
            let (usable, why) = verdict(&flawed(status), HERE);
            assert!(usable == Usable::No && why.contains("the class allows nothing: spec.defaults.keyId"), "{why}");
        }
        let (usable, why) = verdict(&flawed(says("True")), HERE);
        assert!(usable == Usable::Unknown && why.contains("of another release"), "{why}");
        let sound = |status| of_class(|value| value["status"] = status);
        let (usable, why) = verdict(&sound(says("False")), HERE);
        assert!(usable == Usable::Unknown && why.ends_with("says the operator"), "{why}");
        assert_eq!(verdict(&sound(says("False")), Place { namespace: "bank", ..HERE }).0, Usable::No);
        assert_eq!(verdict(&sound(says("True")), HERE).0, Usable::Yes);
    }

    #[test]
    fn object_is_judged_as_the_operator_judges_it() {
        let fetched = edited(recorded(&[]), |value| value["spec"]["keyId"] = json!("alias/orders"));
        let place = Place { object: Some(fetched.key.object()), ..HERE };
        let limits =
            |limits: Value| of_class(|value| value["spec"] = json!({ "namespaces": ["*"], "allow": [limits] }));
        assert_eq!(verdict(&limits(json!({ "keyIds": ["alias/*"] })), place).0, Usable::Yes);
        let (usable, why) = verdict(&limits(json!({ "keyIds": ["alias/shop"] })), place);
        let said = "class shop, check keyIds: the class does not allow the KMS key alias/orders; it allows alias/shop";
        assert_eq!((usable, why.as_str()), (Usable::No, said));
        // A pair is judged by its own field.
        let pairs = limits(json!({ "keyIds": ["alias/*"], "keyPairSpecs": [] }));
        let pair = pair_of(&fetched);
        assert_eq!(verdict(&pairs, place).0, Usable::Yes);
        let (usable, why) = verdict(&pairs, Place { object: Some(pair.key.object()), ..HERE });
        assert!(usable == Usable::No && why.contains("check keyPairSpecs"), "{why}");
    }

    #[test]
    fn region_of_the_operator_can_decide() {
        let fetched = recorded(&[]);
        let place = |region| Place { object: Some(fetched.key.object()), region, ..HERE };
        let limits = json!({ "keyIds": ["alias/orders"], "regions": ["eu-west-1", "eu-north-1"] });
        let limited = of_class(|value| value["spec"] = json!({ "namespaces": ["shop"], "allow": [limits] }));
        let (usable, why) = verdict(&limited, place(None));
        assert!(usable == Usable::Unknown && why.contains("it must be eu-north-1 or eu-west-1, or set"), "{why}");
        assert_eq!(verdict(&limited, place(Some("eu-west-1"))).0, Usable::Yes);
        let (usable, why) = verdict(&limited, place(Some("us-east-1")));
        assert!(usable == Usable::No && why.contains("check regions"), "{why}");
    }

    #[test]
    fn pins_are_judged_until_they_are_recorded() {
        let pinned = |fetched| edited(fetched, |value| value["spec"]["wrappedKeys"] = json!([issued(1)]));
        let by_alias = of_class(|value| {
            value["spec"] = json!({ "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/orders"] }] });
        });
        let judged = |fetched: &crate::cluster::FetchedKey| {
            verdict(&by_alias, Place { object: Some(fetched.key.object()), ..HERE })
        };
        let (usable, why) = judged(&pinned(recorded(&[])));
        assert!(usable == Usable::No && why.contains("check keyArns: version 1 of the pins"), "{why}");
        assert!(!why.contains(ARN), "{why}");
        assert_eq!(judged(&pinned(ready(&[1]))).0, Usable::Yes, "the next version");
    }

    #[test]
    fn values_of_pairs_are_those_of_the_place() {
        let pairs = json!([
            { "key": "namespace", "valueFrom": "Namespace", "mode": "Inject" },
            { "key": "name", "valueFrom": "Name", "mode": "Inject" },
            { "key": "purpose", "mode": "Require" },
        ]);
        let shop = of_class(|value| value["spec"]["encryptionContext"] = json!({ "pairs": pairs, "others": "Deny" }));
        let values = |place| -> Vec<_> {
            let context = ClassSummary::of(&shop, place).encryption_context;
            assert_eq!(context.others, Others::Deny);
            context.pairs.into_iter().map(|pair| pair.value).collect()
        };
        assert_eq!(values(HERE), [Some("shop".to_owned()), None, None]);
        let fetched = recorded(&[]);
        let place = Place { object: Some(fetched.key.object()), ..HERE };
        assert_eq!(values(place), [Some("shop".to_owned()), Some("orders".to_owned()), None]);
    }
}
