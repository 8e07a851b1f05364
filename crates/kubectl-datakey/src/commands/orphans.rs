//! `kubectl datakey orphans`: Secrets that were kept when their `DataKey` or `DataKeyPair` was deleted.

use std::collections::BTreeSet;

use datakey::names::{NAME_LABEL, VERSION_ANNOTATION_PREFIX};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::Items;
use crate::{
    cli::Orphans,
    cluster::{Cluster, FetchedKey, ListedSecret},
    output::{CommandError, ListFormat, Output, render_list},
    reference::{is_owner, shown},
    view::table::{age, table},
};

/// A Secret with wrapped data keys or key pairs that no object has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    /// `DataKey` or `DataKeyPair`: the kind whose Secrets have its type.
    pub kind: String,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The name of the Secret.
    pub name: String,
    /// The name of the DataKey or DataKeyPair that it belonged to, by its label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// How the table names that.
    #[serde(skip)]
    pub shown: String,
    /// The versions that it holds, by its annotations.
    pub versions: Vec<i32>,
    /// When the Secret was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// Lists the Secrets without an object.
pub async fn run(cluster: &Cluster, args: &Orphans) -> Result<Output, CommandError> {
    // In this order: an object that is created meanwhile is in the second list.
    let mut secrets = cluster.wrapped_keys(args.all_namespaces).await?;
    let listing = cluster.all(args.all_namespaces).await?;
    // The objects of a kind that the user may not list can have them.
    secrets.retain(|secret| listing.unlisted.iter().all(|of| of.has_no_definition || of.kind != secret.kind));
    let items = orphans(&secrets, &listing.keys);
    let now = Timestamp::now();
    let count = items.len();
    let out = render_list(
        args.output,
        &Items { items },
        |list, _| render_table(&list.items, args.all_namespaces, now),
        |list| names(&list.items),
    )?;
    let mut output = Output::text(out).with(listing.health());
    if matches!(args.output, ListFormat::Table | ListFormat::Wide) {
        output.notes.push(if count == 0 {
            let left_out = listing.unlisted.iter().any(|of| !of.has_no_definition);
            let (what, of) =
                if left_out { ("data keys", "DataKey") } else { ("data keys or key pairs", "DataKey or DataKeyPair") };
            format!("Each of {} Secrets with {what} has its {of}.", secrets.len())
        } else {
            "Data may be encrypted under what they hold. An object of the same kind, name and settings takes a Secret over."
                .to_owned()
        });
    }
    let unreadable = listing.unreadable.values().map(|why| format!("{why}; its Secret may be listed"));
    output.notes.extend(unreadable.chain(listing.unlisted.iter().map(|unlisted| unlisted.note.clone())));
    Ok(output)
}

/// The Secrets that no object of their kind names. One that an object owns is deleted with it, and so is not kept.
fn orphans(secrets: &[ListedSecret], keys: &[FetchedKey]) -> Vec<Orphan> {
    let named: BTreeSet<_> =
        keys.iter().map(|fetched| (fetched.kind().name, fetched.namespace(), fetched.key.secret_name())).collect();
    let kept = secrets.iter().filter(|secret| !is_leaving(secret)).map(Orphan::of);
    kept.filter(|orphan| !named.contains(&(orphan.kind.as_str(), orphan.namespace.clone(), orphan.name.as_str())))
        .collect()
}

fn is_leaving(ListedSecret { kind, metadata }: &ListedSecret) -> bool {
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    !metadata["deletionTimestamp"].is_null()
        || owners.any(|owner| {
            let text = |field: &str| owner[field].as_str().unwrap_or_default();
            is_owner(kind, text("apiVersion"), text("kind"))
        })
}

fn names(items: &[Orphan]) -> Vec<String> {
    items.iter().map(|orphan| format!("secret/{}", orphan.name)).collect()
}

fn render_table(items: &[Orphan], with_namespace: bool, now: Timestamp) -> String {
    if items.is_empty() {
        return String::new();
    }
    let headers = ["NAMESPACE", "SECRET", "OBJECT", "VERSIONS", "AGE"];
    let first = usize::from(!with_namespace);
    let row = |orphan: &Orphan| {
        let versions: Vec<_> = orphan.versions.iter().map(ToString::to_string).collect();
        let row = [
            orphan.namespace.clone(),
            orphan.name.clone(),
            orphan.shown.clone(),
            versions.join(","),
            orphan.created.as_ref().map(|created| age(created.0, now)).unwrap_or_default(),
        ];
        row[first..].to_vec()
    };
    table(&headers[first..], &items.iter().map(row).collect::<Vec<_>>())
}

// === impl Orphan ===

impl Orphan {
    /// Reads the metadata of a Secret.
    pub fn of(ListedSecret { kind, metadata }: &ListedSecret) -> Self {
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let annotations = metadata["annotations"].as_object().into_iter().flatten();
        let mut versions: Vec<_> =
            annotations.filter_map(|(name, _)| name.strip_prefix(VERSION_ANNOTATION_PREFIX)?.parse().ok()).collect();
        versions.sort_unstable();
        let data_key = metadata["labels"][NAME_LABEL].as_str();
        Self {
            kind: kind.name.to_owned(),
            namespace: text("namespace"),
            name: text("name"),
            data_key: data_key.map(str::to_owned),
            shown: data_key.map(|name| shown(kind, name)).unwrap_or_default(),
            versions,
            created: text("creationTimestamp").parse().ok().map(Time),
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::api::{DataKey, DataKeyPair, KeyKind as _};
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{edited, pair, ready, secret};

    fn listed(edit: impl FnOnce(&mut Value)) -> ListedSecret {
        let key = ready(&[1, 2]).key;
        let mut metadata = json!(secret(&key, 2).metadata);
        metadata["creationTimestamp"] = json!("9999-12-31T23:59:59Z");
        edit(&mut metadata);
        ListedSecret { kind: DataKey::KIND, metadata }
    }

    #[test]
    fn secret_that_no_data_key_names_is_listed() {
        let found = orphans(&[listed(|_| {})], &[]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].data_key.as_deref(), found[0].versions.as_slice()), (Some("orders"), &[1, 2][..]));
        let elsewhere = edited(ready(&[1]), |value| value["metadata"]["namespace"] = json!("bank"));
        let renamed = edited(ready(&[1]), |value| value["status"]["secretName"] = json!("other"));
        assert_eq!(orphans(&[listed(|_| {})], &[elsewhere, renamed]).len(), 1);
    }

    #[test]
    fn secret_of_a_pair_is_that_of_no_data_key() {
        let of_pair = || ListedSecret { kind: DataKeyPair::KIND, ..listed(|_| {}) };
        assert_eq!(orphans(&[of_pair()], &[pair(&[1])]), []);
        let found = orphans(&[of_pair()], &[ready(&[1])]);
        assert_eq!((found[0].kind.as_str(), found[0].shown.as_str()), ("DataKeyPair", "datakeypair/orders"));
        let owned = listed(|metadata| {
            metadata["ownerReferences"] =
                json!([{ "apiVersion": "datakey.dev/v1", "kind": "DataKeyPair", "name": "orders" }]);
        });
        assert_eq!(orphans(&[ListedSecret { kind: DataKeyPair::KIND, ..owned }], &[]), []);
    }

    #[test]
    fn secret_of_a_data_key_or_on_its_way_out_is_not_listed() {
        assert_eq!(orphans(&[listed(|_| {})], &[ready(&[1])]), []);
        let another = edited(ready(&[1]), |value| {
            value["metadata"]["name"] = json!("payments");
            value["status"]["secretName"] = json!("orders");
        });
        assert_eq!(orphans(&[listed(|_| {})], &[another]), []);
        let owned_by = |api_version: &str| {
            let owner = json!({ "apiVersion": api_version, "kind": "DataKey", "name": "orders" });
            listed(|metadata| metadata["ownerReferences"] = json!([owner]))
        };
        assert_eq!(orphans(&[owned_by("example.com/v1alpha1")], &[]).len(), 1, "of another group");
        let owned = owned_by("datakey.dev/v1alpha1");
        let deleted = listed(|metadata| metadata["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        assert_eq!(orphans(&[owned, deleted], &[]), []);
    }

    #[test]
    fn table_has_the_versions_that_a_secret_holds() {
        let found = orphans(&[listed(|_| {})], &[]);
        let table = render_table(&found, true, crate::fixtures::at(0));
        let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..4], ["shop", "orders", "orders", "1,2"]);
    }

    #[test]
    fn orphans_are_printed_as_recorded() {
        let of_pair = ListedSecret { kind: DataKeyPair::KIND, ..listed(|_| {}) };
        let mut found = orphans(&[listed(|_| {}), of_pair], &[]);
        found[0].created = Some(Time(crate::fixtures::at(0)));
        insta::assert_snapshot!("orphans", render_table(&found, true, crate::fixtures::at(90)));
        insta::assert_snapshot!("orphans-name", names(&found).join("\n"));
        let list = Items { items: found };
        insta::assert_snapshot!("orphans-json", crate::output::json(&list).unwrap());
        insta::assert_snapshot!("orphans-yaml", crate::output::yaml(&list).unwrap());
    }
}
