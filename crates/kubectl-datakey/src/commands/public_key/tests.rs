use datakey::{
    api::{IssuedVersion, KeyPairSpec},
    fixtures::public_key,
};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};

use super::*;
use crate::{
    cluster::FetchedKey,
    fixtures::{edited, pair, pair_of, recorded, secret},
};

/// A pair with versions of these kinds, `Ready` with the last of them.
fn of_kinds(kinds: &[KeyPairSpec]) -> FetchedKey {
    let numbers: Vec<_> = (1..).zip(kinds).map(|(number, _)| number).collect();
    with_versions(pair(&numbers), |versions| {
        for (IssuedVersion { request, public_key: der, .. }, kind) in versions.iter_mut().zip(kinds) {
            request.key_pair_spec = Some(*kind);
            *der = Some(ByteString(public_key(*kind)));
        }
    })
}

/// The pair with a change of its record.
fn with_versions(pair: FetchedKey, edit: impl FnOnce(&mut [IssuedVersion])) -> FetchedKey {
    let mut versions = pair.key.record().to_vec();
    edit(&mut versions);
    edited(pair, |value| value["status"]["versions"] = json!(versions))
}

fn these(numbers: &[i32]) -> Versions {
    Versions::Only(numbers.iter().copied().collect())
}

fn text(pair: &FetchedKey, versions: Option<&Versions>, format: PublicKeyFormat) -> Result<String, CommandError> {
    print(pair.key.object(), versions, format).map(|printed| String::from_utf8(printed.out).unwrap())
}

#[test]
fn current_version_is_printed_unless_others_are_asked_for() {
    let pair = pair(&[1, 2, 3]);
    let pem = |version: i32| {
        let issued = pair.key.object().recorded_version(version).unwrap();
        PublicKey::parse(&issued.public_key.as_ref().unwrap().0, KeyPairSpec::EccNistP256).unwrap().to_pem()
    };
    let print = |versions: Option<Versions>| text(&pair, versions.as_ref(), PublicKeyFormat::Pem).unwrap();
    assert_ne!(pem(2), pem(3));
    assert_eq!(print(None), pem(3));
    assert_eq!(print(Some(these(&[2]))), pem(2));
    assert_eq!(print(Some(these(&[3, 2]))), pem(2) + &pem(3));
    assert_eq!(print(Some(Versions::All)), pem(1) + &pem(2) + &pem(3));
}

#[test]
fn der_is_as_it_was_recorded() {
    for spec in KeyPairSpec::ALL {
        let pair = of_kinds(&[*spec]);
        assert_eq!(print(pair.key.object(), None, PublicKeyFormat::Der).unwrap().out, public_key(*spec));
    }
}

#[test]
fn missing_version_is_named() {
    let pair = pair(&[1, 2]);
    let missing = text(&pair, Some(&these(&[2, 7])), PublicKeyFormat::Jwks).unwrap_err();
    assert_eq!(missing, CommandError::Usage("DataKeyPair orders has no version 7: it has 1, 2".to_owned()));
    let none = pair_of(&recorded(&[]));
    for versions in [None, Some(Versions::All), Some(these(&[1]))] {
        let missing = text(&none, versions.as_ref(), PublicKeyFormat::Pem).unwrap_err();
        assert!(matches!(missing, CommandError::NotReady(_)), "{missing:?}");
    }
}

#[test]
fn format_for_one_key_refuses_several() {
    let pair = pair(&[1, 2]);
    for (format, other) in [(PublicKeyFormat::Der, "-o pem"), (PublicKeyFormat::Jwk, "-o jwks")] {
        let refused = text(&pair, Some(&Versions::All), format).unwrap_err();
        let expected = format!(
            "DataKeyPair orders: this format holds one key, and 2 versions are asked for: name one by --versions, or use {other}"
        );
        assert_eq!(refused, CommandError::Usage(expected));
    }
    assert!(text(&pair, Some(&these(&[1])), PublicKeyFormat::Jwk).is_ok());
}

#[test]
fn kinds_without_a_form_are_refused_with_those_they_have() {
    use PublicKeyFormat::{Jwk, Jwks, Ssh};
    for (spec, format, formats) in [
        (KeyPairSpec::MlKem768, Ssh, "pem, der, configmap"),
        (KeyPairSpec::MlKem768, Jwks, "pem, der, configmap"),
        (KeyPairSpec::Sm2, Jwk, "pem, der, configmap"),
        (KeyPairSpec::EccSecgP256K1, Ssh, "pem, der, jwk, jwks, configmap"),
    ] {
        // The other version has the form.
        let pair = of_kinds(&[KeyPairSpec::EccNistP256, spec]);
        let versions = if format == Jwk { these(&[2]) } else { Versions::All };
        let refused = text(&pair, Some(&versions), format).unwrap_err();
        assert!(matches!(refused, CommandError::Usage(_)));
        let (start, end) =
            (format!("DataKeyPair orders, version 2: a public key of kind {}", spec.as_str()), refused.to_string());
        assert!(end.starts_with(&start) && end.ends_with(&format!("form: use one of -o {formats}")), "{refused}");
    }
}

#[test]
fn set_has_each_key_once_with_its_thumbprint() {
    let pair = pair(&[1, 2, 3]);
    let set: Value = serde_json::from_str(&text(&pair, Some(&Versions::All), PublicKeyFormat::Jwks).unwrap()).unwrap();
    // Versions 1 and 3 hold the same key.
    let kids: Vec<_> = set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids.len(), 2);
    for (version, kid) in [(1, kids[0]), (2, kids[1]), (3, kids[0])] {
        let one: Value =
            serde_json::from_str(&text(&pair, Some(&these(&[version])), PublicKeyFormat::Jwk).unwrap()).unwrap();
        assert_eq!(one["kid"], kid);
        assert_eq!(one.as_object().unwrap().keys().collect::<Vec<_>>(), ["crv", "kid", "kty", "x", "y"]);
    }
}

#[test]
fn config_map_has_the_entries_of_the_secret() {
    let pair = pair(&[1, 2]);
    let expected = secret(&pair.key, 2);
    let entries = expected.data.unwrap();
    let map = |versions: &Versions| {
        let printed = text(&pair, Some(versions), PublicKeyFormat::ConfigMap).unwrap();
        let map: ConfigMap = serde_saphyr::from_str(&printed).unwrap();
        assert_eq!(
            (map.metadata.name.as_deref(), map.metadata.namespace.as_deref()),
            (Some("orders-public-keys"), Some("shop"))
        );
        map.data.unwrap()
    };
    let all = map(&Versions::All);
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "jwks.json",
            "keyPairSpec",
            "keyPairSpec.v1",
            "keyPairSpec.v2",
            "publicKey",
            "publicKey.v1",
            "publicKey.v2",
            "version"
        ]
    );
    for (name, value) in all.iter().filter(|(name, _)| *name != JWKS_ENTRY) {
        assert_eq!(value.as_bytes(), entries[name].0, "{name}");
    }
    assert_eq!(all[JWKS_ENTRY], text(&pair, Some(&Versions::All), PublicKeyFormat::Jwks).unwrap());
    assert_eq!(map(&these(&[1])).keys().collect::<Vec<_>>(), ["jwks.json", "keyPairSpec.v1", "publicKey.v1"]);

    let without = of_kinds(&[KeyPairSpec::MlKem512]);
    let printed = text(&without, None, PublicKeyFormat::ConfigMap).unwrap();
    assert!(printed.contains("ML_KEM_512") && !printed.contains(JWKS_ENTRY), "{printed}");
}

#[test]
fn sets_have_all_versions_unless_others_are_asked_for() {
    let pair = pair(&[1, 2]);
    for format in [PublicKeyFormat::Jwks, PublicKeyFormat::ConfigMap] {
        let all = text(&pair, Some(&Versions::All), format).unwrap();
        assert_eq!(text(&pair, None, format).unwrap(), all);
        assert_ne!(text(&pair, Some(&these(&[2])), format).unwrap(), all);
    }
}

#[test]
fn config_map_has_a_key_set_of_the_keys_that_have_that_form() {
    let mixed = of_kinds(&[KeyPairSpec::EccNistP256, KeyPairSpec::MlKem768]);
    let printed = print(mixed.key.object(), None, PublicKeyFormat::ConfigMap).unwrap();
    let map: ConfigMap = serde_saphyr::from_str(&String::from_utf8(printed.out).unwrap()).unwrap();
    let first = text(&mixed, Some(&these(&[1])), PublicKeyFormat::Jwks).unwrap();
    assert_eq!(map.data.unwrap()[JWKS_ENTRY], first);
    assert_eq!(printed.notes, ["jwks.json leaves out version 2: ML_KEM_768 keys have no such form"]);
}

#[test]
fn pinned_versions_are_noted() {
    let pinned = edited(pair(&[1, 2]), |value| {
        value["spec"]["wrappedKeys"] = json!([value["status"]["versions"][1]]);
    });
    let notes = |versions: &Versions| print(pinned.key.object(), Some(versions), PublicKeyFormat::Pem).unwrap().notes;
    assert!(notes(&these(&[1])).is_empty());
    assert_eq!(notes(&Versions::All).len(), 1);
    assert!(notes(&these(&[2]))[0].starts_with("spec.wrappedKeys pins version 2, so a user"));
}

#[test]
fn record_with_another_public_key_is_refused() {
    let other = with_versions(pair(&[1]), |versions| versions[0].request.key_pair_spec = Some(KeyPairSpec::Rsa2048));
    let refused = text(&other, None, PublicKeyFormat::Pem).unwrap_err().to_string();
    assert!(refused.contains("the recorded public key of version 1 can't be used: its algorithm is"), "{refused}");
    let none = with_versions(pair(&[1]), |versions| versions[0].public_key = None);
    let refused = text(&none, None, PublicKeyFormat::Pem).unwrap_err().to_string();
    assert!(refused.contains("status.versions has none for version 1"), "{refused}");
}

#[test]
fn public_keys_are_printed_in_each_form() {
    let pair = of_kinds(&[KeyPairSpec::EccNistP256, KeyPairSpec::EccNistEdwards25519]);
    for (name, format) in [
        ("public-key-pem", PublicKeyFormat::Pem),
        ("public-key-jwks", PublicKeyFormat::Jwks),
        ("public-key-ssh", PublicKeyFormat::Ssh),
        ("public-key-configmap", PublicKeyFormat::ConfigMap),
    ] {
        insta::assert_snapshot!(name, text(&pair, Some(&Versions::All), format).unwrap());
    }
    insta::assert_snapshot!("public-key-jwk", text(&pair, None, PublicKeyFormat::Jwk).unwrap());
}
