//! The table of kinds, and their `CustomResourceDefinition`s.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

use super::{
    data_key::DataKey,
    data_key_class::DataKeyClass,
    data_key_pair::DataKeyPair,
    kind::{KeyKind, Kind, KindId},
    rules, schema,
    status::initial_status,
};

/// All kinds, in the order of their numbers.
pub const KINDS: [&Kind; 2] = [DataKey::KIND, DataKeyPair::KIND];

/// All `CustomResourceDefinition`s: those of [`KINDS`] in their order, then that of the class, as `datakey-operator crd` prints
/// them.
pub fn crds() -> [CustomResourceDefinition; 3] {
    [crd::<DataKey>(), crd::<DataKeyPair>(), class_crd()]
}

/// The `CustomResourceDefinition` of `DataKeyClass`.
pub fn class_crd() -> CustomResourceDefinition {
    let mut crd = DataKeyClass::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        schema::tidy(root);
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            schema::bound_conditions(status);
        }
    }
    crd
}

/// The `CustomResourceDefinition` of a kind.
pub fn crd<K: KeyKind + CustomResourceExt>() -> CustomResourceDefinition {
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        schema::tidy(root);
        schema::keep_fields_of(root, K::KIND);
        schema::refuse_plaintext_in_pins(root, K::KIND);
        schema::add_fields_of_every_object(root);
        root.x_kubernetes_validations.get_or_insert_default().extend([
            rules::issued::new_spec_agrees_with_itself(K::KIND),
            rules::issued::issued_settings_stay(K::KIND),
        ]);
        schema::add_rules_of_entries(root, K::KIND);
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            // A new object must not count as ready: kstatus reads one without status as Current, Argo CD as Healthy.
            status.default = Some(JSON(json!(initial_status())));
            schema::bound_conditions(status);
        }
    }
    crd
}

// === impl KindId ===

impl KindId {
    /// The names of the kind.
    pub fn kind(self) -> &'static Kind {
        KINDS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_names_of_their_definitions() {
        for (kind, crd) in KINDS.into_iter().zip(crds()) {
            assert_eq!(kind.id.kind(), kind);
            let names = &crd.spec.names;
            assert_eq!((kind.name, Some(kind.plural)), (&*names.kind, Some(&*names.plural)));
            assert_eq!(kind.api_version, format!("{}/{}", crd.spec.group, crd.spec.versions[0].name));
            // kubectl takes the name of a category before that of a resource.
            assert_eq!(names.categories, Some(vec!["datakey-operator".to_owned()]));
        }
    }

    /// The fields of an object of the schema.
    fn fields(kind: &Kind, path: &[&str]) -> Vec<String> {
        let mut schema = json!(crds()[kind.id as usize].spec.versions[0].schema)["openAPIV3Schema"].take();
        for part in path {
            schema = if *part == "[]" { schema["items"].take() } else { schema["properties"][part].take() };
        }
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn each_definition_has_the_fields_of_its_kind() {
        let spec = ["keyId", "encryptionContext", "grantTokens", "region", "version", "secretName", "secretTemplate"];
        let spec: Vec<_> = spec.into_iter().chain(["deletionPolicy", "wrappedKeys", "className"]).collect();
        let request = vec!["keyId", "encryptionContext", "region"];
        let entry = ["version", "request", "ciphertextBlob", "keyId", "keyMaterialId", "issuedAt", "requestId"];
        let entry: Vec<_> = entry.into_iter().chain(["asWritten", "class", "rewrapOf"]).collect();
        let status = ["observedGeneration", "conditions", "version", "keyId", "issuedAt", "secretName", "adopted"];
        let status: Vec<_> = status.into_iter().chain(["secret", "versions"]).collect();
        let expected = |all: &[&str], more: &[&str]| {
            let mut all: Vec<_> = all.iter().chain(more).map(|&name| name.to_owned()).collect();
            all.sort();
            all
        };
        let plaintexts = |kind: KindId| match kind {
            KindId::DataKey => vec!["plaintext", "Plaintext"],
            KindId::DataKeyPair => vec!["privateKeyPlaintext", "PrivateKeyPlaintext"],
        };
        for kind in KINDS {
            let (of_the_request, of_the_entry, of_the_status): (&[&str], &[&str], &[&str]) = match kind.id {
                KindId::DataKey => (&["keySpec", "numberOfBytes"], &[], &[]),
                KindId::DataKeyPair => (&["keyPairSpec"], &["publicKey"], &["publicKeySha256"]),
            };
            assert_eq!(fields(kind, &[]), ["apiVersion", "kind", "metadata", "spec", "status"]);
            assert_eq!(fields(kind, &["metadata"]), ["generateName", "name"]);
            assert_eq!(fields(kind, &["spec"]), expected(&spec, of_the_request));
            assert_eq!(fields(kind, &["status"]), expected(&status, of_the_status));
            assert_eq!(fields(kind, &["status", "versions", "[]"]), expected(&entry, of_the_entry));
            for part in ["request", "asWritten"] {
                assert_eq!(fields(kind, &["status", "versions", "[]", part]), expected(&request, of_the_request));
            }
            // Pins name the fields of all kinds, and refuse those of others.
            let of_a_pin = [vec!["publicKey"], plaintexts(kind.id)].concat();
            assert_eq!(fields(kind, &["spec", "wrappedKeys", "[]"]), expected(&entry, &of_a_pin));
            let of_a_request = ["keySpec", "numberOfBytes", "keyPairSpec"];
            for part in ["request", "asWritten"] {
                assert_eq!(fields(kind, &["spec", "wrappedKeys", "[]", part]), expected(&request, &of_a_request));
            }
        }
    }

    #[test]
    fn definition_of_pairs_names_no_data_keys() {
        let text = serde_json::to_string(&crd::<DataKeyPair>()).unwrap();
        let text = text.replace("a DataKey and a DataKeyPair can't have the same Secret", "");
        for word in ["DataKey ", "DataKey.", "data key"] {
            let at = text.find(word).map(|at| &text[at.saturating_sub(80)..at + 40]);
            assert_eq!(at, None, "{word}");
        }
    }
}
