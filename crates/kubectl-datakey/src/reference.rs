//! How a user names a `DataKey` or a `DataKeyPair`: `NAME`, `datakey/NAME` or `datakeypair/NAME`, as kubectl does; and a class.

use datakey::{
    api::{KINDS, Kind, KindId},
    names::{GROUP, is_subdomain},
};

/// A name on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The kind; `None` for a bare name.
    pub kind: Option<&'static Kind>,
    /// The name of the object.
    pub name: String,
}

// === impl Reference ===

impl Reference {
    /// Reads a name. The kind is named as for kubectl: in the singular, in the plural, by its short name, or with the group.
    ///
    /// # Errors
    /// Returns a message if no object can have the name, or the kind is another one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            None => (None, text),
            Some((kind, name)) => (Some(kind_of(kind)?), name),
        };
        if !is_subdomain(name) {
            return Err(
                "no object can have such a name: write NAME, datakey/NAME or datakeypair/NAME, with a name of lower-case letters, \
                 digits, '-' and '.'"
                    .to_owned(),
            );
        }
        Ok(Self { kind, name: name.to_owned() })
    }

    /// Whether it names an object of this kind, as messages name objects: a bare name is that of a `DataKey`.
    pub fn is_of(&self, kind: &Kind) -> bool {
        self.kind.unwrap_or(KindId::DataKey.kind()) == kind
    }
}

/// The name of a class in the singular.
const CLASS: &str = "datakeyclass";

/// Reads the name of a class: bare, or with the kind before it, as kubectl prints and takes it.
///
/// # Errors
/// Returns a message if no class can have the name, or another kind is named.
pub fn class_name(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        None => Some(text),
        Some((kind, name)) => {
            ["datakeyclasses", CLASS, "dkc"].contains(&without_group(&kind.to_lowercase())).then_some(name)
        }
    };
    name.filter(|name| is_subdomain(name)).map(str::to_owned).ok_or_else(|| {
        "no DataKeyClass can have such a name: write it in lower-case letters, digits, '-' and '.'".to_owned()
    })
}

/// How kubectl names a class with `-o name`.
pub fn qualified_class(name: &str) -> String {
    format!("{CLASS}.{GROUP}/{name}")
}

/// How messages and tables name an object: a `DataKey` by its name alone.
pub fn shown(kind: &Kind, name: &str) -> String {
    match kind.id {
        KindId::DataKey => name.to_owned(),
        KindId::DataKeyPair => explicit(kind, name),
    }
}

/// How a sentence names an object.
pub fn titled(kind: &Kind, name: &str) -> String {
    format!("{} {name}", kind.name)
}

/// Whether an owner reference is to this kind, in any version of the API.
pub fn is_owner(kind: &Kind, api_version: &str, owner: &str) -> bool {
    owner == kind.name && api_version.split('/').next() == Some(GROUP)
}

/// How an object is named together with its kind.
pub fn explicit(kind: &Kind, name: &str) -> String {
    format!("{}/{name}", singular(kind))
}

/// How kubectl names an object with `-o name`.
pub fn qualified(kind: &Kind, name: &str) -> String {
    format!("{}.{GROUP}/{name}", singular(kind))
}

/// The names of these kinds in the plural, in a sentence.
pub fn plural(kinds: impl IntoIterator<Item = KindId>) -> String {
    let kinds: std::collections::BTreeSet<_> = kinds.into_iter().collect();
    let names: Vec<_> = kinds.into_iter().map(|id| format!("{}s", id.kind().name)).collect();
    if names.is_empty() { plural([KindId::DataKey]) } else { names.join(" and ") }
}

fn singular(kind: &Kind) -> String {
    kind.name.to_lowercase()
}

/// The short name in the definition.
const fn short_name(id: KindId) -> &'static str {
    match id {
        KindId::DataKey => "dk",
        KindId::DataKeyPair => "dkp",
    }
}

/// A kind without the group, if that is named.
fn without_group(kind: &str) -> &str {
    kind.strip_suffix(GROUP).and_then(|rest| rest.strip_suffix('.')).unwrap_or(kind)
}

fn kind_of(text: &str) -> Result<&'static Kind, String> {
    let text = text.to_lowercase();
    let resource = without_group(&text);
    let is_meant =
        |kind: &&&Kind| resource == singular(kind) || resource == kind.plural || resource == short_name(kind.id);
    KINDS.iter().find(is_meant).copied().ok_or_else(|| "write datakey/NAME or datakeypair/NAME".to_owned())
}

#[cfg(test)]
mod tests {
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _, class_crd, crds};

    use super::*;

    #[test]
    fn kinds_are_named_as_for_kubectl() {
        let (key, pair) = (Some(DataKey::KIND), Some(DataKeyPair::KIND));
        for (text, kind) in [
            ("orders", None),
            ("datakey/orders", key),
            ("datakeys/orders", key),
            ("dk/orders", key),
            ("datakey.datakey.dev/orders", key),
            ("DataKeyPair/orders", pair),
            ("datakeypairs.datakey.dev/orders", pair),
            ("dkp/orders", pair),
        ] {
            assert_eq!(Reference::parse(text), Ok(Reference { kind, name: "orders".to_owned() }), "{text}");
        }
        for wrong in ["", "a/b/c", "secret/orders", "dk/", "datakey.example.com/a", "Orders", "../x", "dk/a b"] {
            assert!(Reference::parse(wrong).unwrap_err().contains("datakeypair/NAME"), "{wrong}");
        }
    }

    #[test]
    fn short_names_are_those_of_the_definitions() {
        for (kind, crd) in KINDS.into_iter().zip(crds()) {
            assert_eq!(crd.spec.names.short_names, Some(vec![short_name(kind.id).to_owned()]));
            assert_eq!(crd.spec.names.singular.as_deref(), Some(singular(kind).as_str()));
        }
    }

    #[test]
    fn class_is_named_with_or_without_its_kind() {
        let names = class_crd().spec.names;
        let kinds =
            [names.plural, names.singular.unwrap(), names.short_names.unwrap().remove(0), "DataKeyClass".to_owned()];
        for kind in kinds {
            assert_eq!(class_name(&format!("{kind}/shop")).as_deref(), Ok("shop"), "{kind}");
        }
        for text in ["shop", &qualified_class("shop")] {
            assert_eq!(class_name(text).as_deref(), Ok("shop"), "{text}");
        }
        for wrong in ["", "Shop", "datakey/shop", "dkc/a/b", "../x", "datakeyclass.example.com/shop"] {
            assert!(class_name(wrong).unwrap_err().contains("no DataKeyClass can have"), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for kind in KINDS {
            for text in [shown(kind, "orders"), explicit(kind, "orders"), qualified(kind, "orders")] {
                let read = Reference::parse(&text).unwrap();
                assert_eq!((read.kind.unwrap_or(DataKey::KIND), read.name.as_str()), (kind, "orders"), "{text}");
            }
        }
        assert_eq!(shown(DataKeyPair::KIND, "tokens"), "datakeypair/tokens");
        assert_eq!(qualified(DataKey::KIND, "orders"), "datakey.datakey.dev/orders");
        assert_eq!(plural([]), "DataKeys");
        assert_eq!(plural([KindId::DataKeyPair, KindId::DataKey, KindId::DataKeyPair]), "DataKeys and DataKeyPairs");
    }
}
