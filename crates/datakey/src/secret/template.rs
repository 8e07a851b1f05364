//! The template of the Secret: labels and annotations in addition to the operator's own. Pure.
//!
//! The operator applies them with its own permissions, which exceed those of a tenant, so it refuses keys that control the
//! decisions of other controllers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::{
    api::{Object, TemplateMetadata},
    names::{APP_DOMAIN, APPLIED_ANNOTATION, MANAGED_BY_LABEL, NAME_LABEL, OWN_PREFIX, RESERVED_DOMAINS},
    reason::{Failure, Reason},
    text::printable,
};

/// The most bytes of a template's annotations, including [`APPLIED_ANNOTATION`]. The definition counts characters, which have
/// up to four bytes; a template that it accepts fits if it is ASCII. Kubernetes allows 256 KiB of annotations on an object, and
/// the operator's own annotations have up to 150 KiB.
const MAX_ANNOTATIONS: usize = 96 << 10;

/// The number of keys that a message names.
const MAX_NAMED: usize = 5;

/// The longest key in a message, in characters: that of the longest key of a label or an annotation.
const MAX_NAME: usize = 317;

/// Keys that templates must not have: [`RESERVED_DOMAINS`], and those of the operator's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    more: Vec<String>,
}

/// The content of the annotation about applied keys: the keys of the template that a Secret has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    labels: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    annotations: BTreeSet<String>,
}

/// The labels and annotations that the operator applies from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations, with [`APPLIED_ANNOTATION`] if the template has labels or annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The labels and annotations of a Secret that the operator manages: its own, and those of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

// === impl Reserved ===

impl Reserved {
    /// The keys that are always reserved.
    pub const ALWAYS: &Self = &Self { more: Vec::new() };

    /// Reserves these keys, too. A key that ends with `/` is a domain with its subdomains; any other is a whole key.
    pub const fn with(more: Vec<String>) -> Self {
        Self { more }
    }

    /// Whether templates must not have this key.
    pub fn contains(&self, key: &str) -> bool {
        let domain = key.split_once('/').map(|(domain, _)| domain);
        let is_of = |reserved: &str| {
            domain
                .and_then(|domain| domain.strip_suffix(reserved))
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let always = domain != Some(APP_DOMAIN) && RESERVED_DOMAINS.into_iter().any(is_of);
        let more = |reserved: &String| reserved.strip_suffix('/').map_or(reserved == key, is_of);
        key == MANAGED_BY_LABEL || always || self.more.iter().any(more)
    }
}

/// The failure if the operator does not apply all of the template.
pub fn refused(object: Object<'_>, reserved: &Reserved) -> Option<Failure> {
    reserved_keys(object, reserved).or_else(|| {
        let bytes = size(&all(object, reserved).annotations);
        (bytes > MAX_ANNOTATIONS).then(|| {
            let detail = format!(
                "the annotations of spec.secretTemplate.metadata take {bytes} bytes, and the operator applies none of them: \
                 shorten them to {MAX_ANNOTATIONS} bytes"
            );
            Failure::new(Reason::SpecInvalid, detail)
        })
    })
}

fn reserved_keys(object: Object<'_>, reserved: &Reserved) -> Option<Failure> {
    let template = template(object)?;
    let of = |field: &'static str, pairs: &Option<BTreeMap<String, String>>| -> Vec<String> {
        let keys = pairs.iter().flatten().map(|(key, _)| key).filter(|key| reserved.contains(key));
        keys.map(|key| format!("spec.secretTemplate.metadata.{field}: {}", printable(key, MAX_NAME))).collect()
    };
    let mut keys = of("labels", &template.labels);
    keys.extend(of("annotations", &template.annotations));
    if keys.is_empty() {
        return None;
    }
    let more = keys.len().saturating_sub(MAX_NAMED);
    keys.truncate(MAX_NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let detail = format!("the operator reserves these keys and does not apply them: {}{more}", keys.join(", "));
    Some(Failure::new(Reason::SpecInvalid, detail))
}

/// The labels and annotations to apply: without reserved keys, and without annotations if they are too large.
pub fn wanted(object: Object<'_>, reserved: &Reserved) -> Wanted {
    let all = all(object, reserved);
    if size(&all.annotations) <= MAX_ANNOTATIONS {
        return all;
    }
    Wanted::new(all.labels, BTreeMap::new())
}

fn size(pairs: &BTreeMap<String, String>) -> usize {
    pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn all(object: Object<'_>, reserved: &Reserved) -> Wanted {
    let allowed = |pairs: &Option<BTreeMap<String, String>>| -> BTreeMap<String, String> {
        let pairs = pairs.iter().flatten().filter(|(key, _)| !reserved.contains(key));
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let Some(template) = template(object) else { return Wanted::default() };
    Wanted::new(allowed(&template.labels), allowed(&template.annotations))
}

fn template(object: Object<'_>) -> Option<&TemplateMetadata> {
    object.spec.secret_template?.metadata.as_ref()
}

// === impl Wanted ===

impl Wanted {
    fn new(labels: BTreeMap<String, String>, mut annotations: BTreeMap<String, String>) -> Self {
        let applied =
            Applied { labels: labels.keys().cloned().collect(), annotations: annotations.keys().cloned().collect() };
        if applied != Applied::default() {
            // Two sets of strings: encoding them cannot fail.
            annotations.insert(APPLIED_ANNOTATION.to_owned(), serde_json::to_string(&applied).unwrap_or_default());
        }
        Self { labels, annotations }
    }
}

// === impl Applied ===

impl Applied {
    /// The applied keys in the annotation of a Secret; none if it is absent or cannot be decoded.
    fn to(metadata: &ObjectMeta) -> Self {
        let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED_ANNOTATION));
        annotation.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }

    /// Removes the applied keys from the metadata, except those that no template can have: another client set them, and the
    /// annotation is forged.
    pub fn remove(metadata: &mut ObjectMeta) {
        let Self { labels, annotations } = Self::to(metadata);
        let is_removed = |keys: &BTreeSet<String>, key: &str| keys.contains(key) && !Reserved::ALWAYS.contains(key);
        metadata.labels.iter_mut().for_each(|all| all.retain(|key, _| !is_removed(&labels, key)));
        metadata.annotations.iter_mut().for_each(|all| all.retain(|key, _| !is_removed(&annotations, key)));
    }
}

// === impl Own ===

impl Own {
    /// The managed labels and annotations of a Secret that was read or written.
    pub fn of(secret: &Secret) -> Self {
        let applied = Applied::to(&secret.metadata);
        let chosen = |all: &Option<BTreeMap<String, String>>, is_chosen: &dyn Fn(&str) -> bool| {
            let pairs = all.iter().flatten().filter(|(key, _)| is_chosen(key));
            pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let metadata = &secret.metadata;
        Self {
            labels: chosen(&metadata.labels, &|key| {
                [MANAGED_BY_LABEL, NAME_LABEL].contains(&key) || applied.labels.contains(key)
            }),
            annotations: chosen(&metadata.annotations, &|key| {
                key.starts_with(OWN_PREFIX) || applied.annotations.contains(key)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{DataKey, SecretTemplate},
        fixtures::{Edit, data_key, recorded},
        secret::{Projection, compare, digest::Digest},
    };

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn templated(mut key: DataKey, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> DataKey {
        let metadata =
            TemplateMetadata { labels: Some(pairs(labels)), annotations: Some(pairs(annotations)), ..<_>::default() };
        key.spec.secret_template = Some(SecretTemplate { metadata: Some(metadata), ..<_>::default() });
        key
    }

    #[test]
    fn oversized_annotations_are_not_applied() {
        let with = |character: &str| {
            let values: Vec<_> = (0..32).map(|number| (format!("a{number:062}"), character.repeat(2048))).collect();
            let values: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            templated(recorded(&[1]), &[("team", "shop")], &values)
        };
        let ascii = with("x");
        assert_eq!(refused((&ascii).into(), Reserved::ALWAYS), None);
        assert_eq!(wanted((&ascii).into(), Reserved::ALWAYS).annotations.len(), 33);
        let wide = with("🗝");
        let failure = refused((&wide).into(), Reserved::ALWAYS).unwrap();
        assert!(failure.detail.unwrap().contains("shorten them to 98304 bytes"));
        let wanted = wanted((&wide).into(), Reserved::ALWAYS);
        assert_eq!(
            (wanted.labels["team"].as_str(), wanted.annotations.len()),
            ("shop", 1),
            "{APPLIED_ANNOTATION} alone"
        );
    }

    #[test]
    fn keys_of_other_controllers_are_reserved() {
        for key in [
            "datakey.dev/name",
            "sub.datakey.dev/name",
            "app.kubernetes.io/managed-by",
            "kubernetes.io/service-account.name",
            "kubectl.kubernetes.io/last-applied-configuration",
            "x.app.kubernetes.io/name",
            "k8s.io/x",
            "sigs.k8s.io/x",
            "argocd.argoproj.io/tracking-id",
            "kustomize.toolkit.fluxcd.io/name",
            "helm.toolkit.fluxcd.io/name",
            "helm.sh/hook",
            "meta.helm.sh/release-name",
        ] {
            assert!(Reserved::ALWAYS.contains(key), "{key}");
        }
        for key in [
            "team",
            "helm.sh",
            "datakey.dev",
            "app.kubernetes.io/part-of",
            "mykubernetes.io/x",
            "example.com/helm.sh",
            "reloader.stakater.com/match",
            "argoproj.io/x",
        ] {
            assert!(!Reserved::ALWAYS.contains(key), "{key}");
        }
        let more = Reserved::with(vec!["example.com/".into(), "team".into(), "shop.example/owner".into()]);
        for key in ["example.com/x", "a.example.com/x", "team", "shop.example/owner", "helm.sh/hook"] {
            assert!(more.contains(key), "{key}");
        }
        for key in ["anexample.com/x", "x/team", "shop.example/other", "a.shop.example/owner", "example.com"] {
            assert!(!more.contains(key), "{key}");
        }
    }

    #[test]
    fn reserved_keys_are_named_and_not_applied() {
        let key =
            templated(recorded(&[1]), &[("team", "shop"), ("helm.sh/chart", "x")], &[("datakey.dev/version", "9")]);
        let failure = refused((&key).into(), Reserved::ALWAYS).unwrap();
        assert_eq!(failure.reason, Reason::SpecInvalid);
        let detail = failure.detail.unwrap();
        assert!(
            detail.contains("labels: helm.sh/chart, spec.secretTemplate.metadata.annotations: datakey.dev/version"),
            "{detail}"
        );
        let projection = Projection::of(&key, 1).unwrap();
        assert_eq!((projection.labels["team"].as_str(), projection.labels.get("helm.sh/chart")), ("shop", None));
        assert_eq!(projection.annotations["datakey.dev/version"], "1");
        assert_eq!(refused((&data_key()).into(), Reserved::ALWAYS), None);
        let team = Reserved::with(vec!["team".into()]);
        assert!(!Projection::with_reserved((&key).into(), 1, &team).unwrap().labels.contains_key("team"));
    }

    #[test]
    fn secret_without_a_template_is_as_in_earlier_releases() {
        let plain = Projection::of(&recorded(&[1]), 1).unwrap();
        for empty in [templated(recorded(&[1]), &[], &[]), {
            let mut key = recorded(&[1]);
            key.spec.secret_template = Some(SecretTemplate::default());
            key
        }] {
            assert_eq!(Projection::of(&empty, 1).unwrap(), plain);
        }
        assert!(!plain.annotations.contains_key(APPLIED_ANNOTATION));
    }

    #[test]
    fn template_keys_are_restored_and_removed_with_the_template() {
        let before = templated(recorded(&[1]), &[("team", "shop"), ("stage", "test")], &[("example.com/a", "1")]);
        let wanted = Projection::of(&before, 1).unwrap();
        let secret = wanted.clone().into_secret(&before);
        assert_eq!(Digest::of(&secret), wanted.digest());

        let edits: [(&str, Edit<ObjectMeta>); 5] = [
            ("label removed", |metadata| _ = metadata.labels.as_mut().unwrap().remove("team")),
            ("label changed", |metadata| _ = metadata.labels.as_mut().unwrap().insert("team".into(), "bank".into())),
            ("annotation removed", |metadata| _ = metadata.annotations.as_mut().unwrap().remove("example.com/a")),
            ("applied annotation removed", |metadata| {
                _ = metadata.annotations.as_mut().unwrap().remove(APPLIED_ANNOTATION);
            }),
            ("applied annotation changed", |metadata| {
                _ = metadata.annotations.as_mut().unwrap().insert(APPLIED_ANNOTATION.into(), "odd".into());
            }),
        ];
        for (name, edit) in edits {
            let mut edited = secret.clone();
            edit(&mut edited.metadata);
            assert_ne!(Digest::of(&edited), wanted.digest(), "{name}");
            assert_eq!(compare::changes(&wanted, &edited).len(), 1, "{name}");
            assert_eq!(Digest::of(&wanted.clone().restore_into(edited)), wanted.digest(), "{name}");
        }

        // Labels of other clients stay.
        let mut secret = secret;
        secret.metadata.labels.as_mut().unwrap().insert("other".into(), "kept".into());
        secret.metadata.annotations.as_mut().unwrap().insert("other".into(), "kept".into());
        let after = Projection::of(&templated(recorded(&[1]), &[("team", "shop")], &[]), 1).unwrap();
        let changed = after.clone().restore_into(secret.clone());
        let labels = changed.metadata.labels.as_ref().unwrap();
        assert_eq!((labels["team"].as_str(), labels["other"].as_str(), labels.get("stage")), ("shop", "kept", None));
        assert!(!changed.metadata.annotations.as_ref().unwrap().contains_key("example.com/a"));
        assert_eq!(Digest::of(&changed), after.digest());
        let none = Projection::of(&recorded(&[1]), 1).unwrap().restore_into(changed);
        assert_eq!(none.metadata.labels.unwrap().len(), 3, "the operator's own and the other client's");
        assert!(!none.metadata.annotations.as_ref().unwrap().contains_key(APPLIED_ANNOTATION));
        assert_eq!(none.metadata.annotations.unwrap()["other"], "kept");
    }

    #[test]
    fn forged_annotation_cannot_remove_reserved_keys() {
        let key = recorded(&[1]);
        let wanted = Projection::of(&key, 1).unwrap();
        let mut secret = wanted.clone().into_secret(&key);
        let annotations = secret.metadata.annotations.as_mut().unwrap();
        annotations.insert("argocd.argoproj.io/tracking-id".into(), "x".into());
        annotations.insert(
            APPLIED_ANNOTATION.into(),
            r#"{"annotations":["argocd.argoproj.io/tracking-id"],"labels":["datakey.dev/name"]}"#.into(),
        );
        let restored = wanted.restore_into(secret).metadata;
        assert_eq!(restored.annotations.unwrap()["argocd.argoproj.io/tracking-id"], "x");
        assert_eq!(restored.labels.unwrap()[NAME_LABEL], "orders");
    }
}
