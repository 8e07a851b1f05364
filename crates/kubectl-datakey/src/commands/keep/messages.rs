//! What `keep` says. Pure.

use std::{fmt::Display, path::Path};

use datakey::api::Kind;

use crate::{cluster::FetchedKey, reference::shown, view::secret_check::SecretCheck};

pub fn retained_already(name: &str) -> String {
    format!("{name} has deletionPolicy Retain already: its Secret stays when it is deleted\n")
}

pub fn secret_not_intact(check: &SecretCheck, fetched: &FetchedKey) -> String {
    let (name, namespace) = (fetched.shown(), fetched.namespace());
    format!("Secret {}, and nothing was done: see kubectl datakey status {name} -n {namespace}", check.line())
}

pub fn applied_by(kind: &Kind, tool: &str) -> String {
    let kind = kind.name;
    format!(
        "note: {tool} applies this {kind}: set deletionPolicy to Retain there first and suspend it meanwhile, or it creates \
         the {kind} under Delete again"
    )
}

pub const GRANT_TOKENS: &str = "note: spec.grantTokens is in the manifest: keep the file from others";

/// An owner reference of the old object could have the new one deleted.
pub fn owners(fetched: &FetchedKey) -> String {
    let owners = fetched.key.metadata().owner_references.iter().flatten();
    let owners: Vec<_> = owners.map(|owner| format!("{} {}", owner.kind, owner.name)).collect();
    format!(
        "note: the new {} has no ownerReferences, so it stays when its owner is deleted (now {})",
        fetched.kind().name,
        owners.join(", ")
    )
}

pub fn question(fetched: &FetchedKey, file: &Path) -> String {
    format!(
        "{} in namespace {} will be saved in {}, deleted without its Secret {}, and created again under deletionPolicy Retain.",
        fetched.titled(),
        fetched.namespace(),
        file.display(),
        fetched.key.secret_name()
    )
}

/// The question before an object is created that this cluster does not have.
pub fn question_without_object(kind: &Kind, name: &str, namespace: &str, server: &str, file: &Path) -> String {
    format!(
        "Namespace {namespace} of the cluster {server} has no {} {name}. It will be created there from {}, which an earlier run \
         saved.",
        kind.name,
        file.display()
    )
}

pub const NOT_CONFIRMED: &str = "nothing was done: answer y, or add --yes";

pub fn saved(kind: &Kind, file: &Path) -> String {
    format!("saved the {} in {}", kind.name, file.display())
}

/// A run stopped while the object may be deleted.
pub fn unfinished(why: &impl Display, named: &str, file: &Path) -> String {
    let file = file.display();
    format!("{why}; to finish, run the same command again (with {named} and --to {file}), or kubectl create -f {file}")
}

pub fn still_being_deleted(found: &FetchedKey) -> String {
    let finalizers = found.key.metadata().finalizers.as_ref().map(|all| all.join(", ")).unwrap_or_default();
    format!("{} is still being deleted (finalizers: {finalizers})", found.titled())
}

/// Another client created the object under `Delete` after it was deleted.
pub const CREATED_AGAIN: &str =
    "another client created it again under deletionPolicy Delete: set Retain where it comes from";

pub fn created_again(found: &FetchedKey, file: &Path) -> String {
    format!(
        "{}: {CREATED_AGAIN}; keep {}: it has the {}s of the deleted one, and may be their only copy",
        found.titled(),
        file.display(),
        found.kind().noun
    )
}

pub fn still_owned(kind: &Kind, secret: &str) -> String {
    format!("note: Secret {secret} still has an owner reference to the deleted {}", kind.name)
}

pub fn gone_again(kind: &Kind, name: &str) -> String {
    format!("{} {name} is gone again", kind.name)
}

pub fn done(fetched: &FetchedKey) -> String {
    let (name, secret, count) = (fetched.shown(), fetched.key.secret_name(), fetched.key.record().len());
    let noun = fetched.kind().noun;
    let keys = if count == 1 { noun.to_owned() } else { format!("{count} {noun}s") };
    format!("{name} has deletionPolicy Retain, and Secret {secret} holds its {keys} as before\n")
}

pub fn file_stays(kind: &Kind, file: &Path) -> String {
    let kind = kind.name;
    format!(
        "note: {} has the {kind} with its pins: commit it where the {kind} comes from, or remove the file",
        file.display()
    )
}

pub fn not_as_before(kind: &Kind, name: &str, namespace: &str, why: &str, file: &Path) -> String {
    format!(
        "{} {name} was created under deletionPolicy Retain, but is not as before: {why}; look at kubectl datakey status {} \
         -n {namespace}; {} has all its {}s",
        kind.name,
        shown(kind, name),
        file.display(),
        kind.noun
    )
}

#[cfg(test)]
mod tests {
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _};
    use serde_json::json;

    use super::*;
    use crate::fixtures::{edited, pair, ready};

    #[test]
    fn messages_of_keep_are_as_recorded() {
        let fetched = edited(ready(&[1, 2]), |value| {
            value["metadata"]["finalizers"] = json!(["orphan", "example.com/other"]);
            let owner = json!({ "apiVersion": "example.com/v1", "kind": "Shop", "name": "web", "uid": "1" });
            value["metadata"]["ownerReferences"] = json!([owner]);
        });
        let (file, missing) = (Path::new("datakey-shop-orders.yaml"), SecretCheck::from_secret(&fetched.key, None));
        let unknown = SecretCheck::unknown(&fetched.key, "you may not read it");
        let all = [
            retained_already("orders"),
            secret_not_intact(&missing, &fetched),
            secret_not_intact(&unknown, &fetched),
            applied_by(DataKey::KIND, "Flux"),
            GRANT_TOKENS.to_owned(),
            owners(&fetched),
            question(&fetched, file),
            question_without_object(DataKey::KIND, "orders", "shop", "https://192.0.2.1:6443/", file),
            NOT_CONFIRMED.to_owned(),
            saved(DataKey::KIND, file),
            unfinished(&"no answer from the API server", "datakey/orders", file),
            still_being_deleted(&fetched),
            created_again(&fetched, file),
            still_owned(DataKey::KIND, "orders"),
            gone_again(DataKey::KIND, "orders"),
            done(&fetched),
            done(&pair(&[1, 2])),
            question(&pair(&[1]), file),
            file_stays(DataKey::KIND, file),
            applied_by(DataKeyPair::KIND, "Flux"),
            not_as_before(DataKeyPair::KIND, "tokens", "shop", "it is not Ready", file),
            not_as_before(DataKey::KIND, "orders", "shop", "SecretConflict: the Secret has another owner", file),
        ];
        insta::assert_snapshot!("keep", all.map(|message| message.trim_end().to_owned()).join("\n"));
    }
}
