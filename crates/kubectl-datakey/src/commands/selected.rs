//! Which recorded version of an object a command is about.

use datakey::api::{IssuedVersion, Object};

use crate::{
    output::CommandError,
    reference::{shown, titled},
};

/// Returns the version that was asked for, else the current one: that of the Secret's plain entries, or of the spec as long as
/// there is none.
pub fn select_version(object: Object<'_>, asked: Option<i32>) -> Result<&IssuedVersion, CommandError> {
    let published = object.status.and_then(|status| status.version);
    let version = asked.or(published).unwrap_or_else(|| object.wanted_version());
    object.recorded_version(version).ok_or_else(|| {
        let name = object.name().unwrap_or_default();
        let titled = titled(object.kind, name);
        let issued: Vec<_> = object.record().iter().map(|issued| issued.version.to_string()).collect();
        if !issued.is_empty() && asked.is_some() {
            return CommandError::Usage(format!("{titled} has no version {version}: it has {}", issued.join(", ")));
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        CommandError::NotReady(format!(
            "{titled} has no version {version} yet: see why by kubectl datakey status {} -n {namespace}",
            shown(object.kind, name)
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, pair_of, ready, recorded};

    #[test]
    fn published_version_is_the_default() {
        let lowered = edited(ready(&[1, 2]), |value| value["spec"]["version"] = json!(1));
        for fetched in [pair_of(&lowered), lowered] {
            let object = fetched.key.object();
            assert_eq!(select_version(object, None).unwrap().version, 2, "the Secret still holds it");
            assert_eq!(select_version(object, Some(1)).unwrap().version, 1);
            let missing = select_version(object, Some(3));
            assert!(matches!(missing, Err(CommandError::Usage(text)) if text.contains("it has 1, 2")));
        }
    }

    #[test]
    fn nothing_is_selected_before_a_version_is_issued() {
        for (fetched, show) in [
            (recorded(&[]), "kubectl datakey status orders -n shop"),
            (pair_of(&recorded(&[])), "kubectl datakey status datakeypair/orders -n shop"),
        ] {
            let missing = select_version(fetched.key.object(), None);
            assert!(matches!(missing, Err(CommandError::NotReady(why)) if why.ends_with(show)));
        }
    }
}
