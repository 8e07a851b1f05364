//! Which wrapped data keys belong to which object. Pure.
//!
//! A user of a namespace can pin the wrapped data key of another team: a wrapped data key is no secret. An object whose versions KMS
//! issued for it is the owner of each; one whose versions came from pins or a Secret is not, if there is an owner.

use std::collections::HashMap;

use super::plan::{Plan, is_adopted};
use crate::cluster::FetchedKey;

/// The owners among the objects that were listed, by wrapped data key.
#[derive(Default)]
pub struct Owners<'a>(HashMap<&'a [u8], &'a FetchedKey>);

// === impl Owners ===

impl<'a> Owners<'a> {
    /// The owners among these.
    pub fn among(listed: &'a [FetchedKey]) -> Self {
        let owners = listed.iter().filter(|fetched| !is_adopted(fetched.key.object()));
        let blobs = owners.flat_map(|fetched| {
            fetched.key.record().iter().map(move |issued| (issued.ciphertext_blob.0.as_slice(), fetched))
        });
        Self(blobs.collect())
    }

    /// Checks that an object rewraps nothing that belongs to another one.
    ///
    /// # Errors
    /// What belongs to which object.
    pub fn check(&self, fetched: &FetchedKey, plan: &Plan) -> Result<(), String> {
        let uid = |fetched: &FetchedKey| fetched.key.metadata().uid.clone();
        let all = plan.rewraps.iter().flat_map(|rewrap| std::iter::once(rewrap).chain(&rewrap.alternatives));
        for rewrap in all {
            let owner = self.0.get(rewrap.source.ciphertext_blob.0.as_slice());
            if let Some(owner) = owner.filter(|owner| uid(owner) != uid(fetched)) {
                return Err(format!(
                    "its version {} has the wrapped {} that AWS KMS issued for {} in namespace {}: find out who pinned it here. It is \
                     moved with {} only",
                    rewrap.source.version,
                    owner.kind().noun,
                    owner.shown(),
                    owner.namespace(),
                    owner.shown()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datakey::selection::Versions;
    use serde_json::json;

    use super::*;
    use crate::{
        commands::rewrap::plan::{Destination, Move},
        fixtures::{edited, ready},
    };

    #[test]
    fn wrapped_data_key_of_another_object_is_not_moved() {
        let thief = edited(ready(&[1]), |value| {
            value["metadata"]["namespace"] = json!("bank");
            value["metadata"]["uid"] = json!("7c3c8f7e-0002");
            value["status"]["adopted"] = json!(true);
        });
        let owner = ready(&[1]);
        let key = "arn:aws:kms:eu-west-1:999999999999:key/99999999-12ab-34cd-56ef-1234567890ab";
        let to = Destination { key_arn: key.to_owned(), key_id: key.to_owned(), context: None };
        let wanted = Move { to, versions: Versions::All, from: None, rotates: true, includes_adopted: true };
        let listed = [thief, owner];
        let owners = Owners::among(&listed);
        let check = |fetched: &FetchedKey| {
            let plan = Plan::of(fetched.key.object(), &wanted).unwrap();
            owners.check(fetched, &plan)
        };
        let why = check(&listed[0]).unwrap_err();
        assert!(
            why.starts_with("its version 1 has the wrapped data key that AWS KMS issued for orders in namespace shop"),
            "{why}"
        );
        assert_eq!(check(&listed[1]), Ok(()), "a copy does not stop its owner");
        assert_eq!(
            Owners::among(&listed[..1]).check(&listed[0], &Plan::of(listed[0].key.object(), &wanted).unwrap()),
            Ok(())
        );
    }
}
