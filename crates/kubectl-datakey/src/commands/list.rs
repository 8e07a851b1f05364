//! `kubectl datakey list`: `DataKey`s and `DataKeyPair`s.

use k8s_openapi::jiff::Timestamp;

use super::{Items, none_found};
use crate::{
    cli::List,
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Output, render_list},
    reference::qualified,
    view::{
        summary::{KeySummary, VersionSummary},
        table::{age, table},
    },
};

/// What the columns show.
#[derive(Clone, Copy)]
struct Columns {
    namespace: bool,
    wide: bool,
}

/// Lists the objects of both kinds.
pub async fn run(cluster: &Cluster, args: &List) -> Result<Output, CommandError> {
    let listing = cluster.selected_by(args.selector.as_deref(), args.all_namespaces).await?;
    let items = listing.keys.iter().map(|fetched| KeySummary::of(&fetched.key)).collect();
    let now = Timestamp::now();
    let out = render_list(
        args.output,
        &Items { items },
        |list, wide| render_table(&list.items, Columns { namespace: args.all_namespaces, wide }, now),
        |_| names(&listing.keys),
    )?;
    let mut output = Output::text(out).with(listing.health());
    if listing.keys.is_empty() && listing.unreadable.is_empty() {
        output.notes.push(none_found(cluster, &listing, args.all_namespaces));
    }
    output.notes.extend(listing.notes());
    Ok(output)
}

fn names(keys: &[FetchedKey]) -> Vec<String> {
    keys.iter().map(|fetched| qualified(fetched.kind(), &fetched.name())).collect()
}

fn render_table(items: &[KeySummary], columns: Columns, now: Timestamp) -> String {
    if items.is_empty() {
        return String::new();
    }
    let headers =
        ["NAMESPACE", "NAME", "READY", "REASON", "VERSION", "ISSUED", "KEY", "SECRET", "AGE", "SPEC", "VERSIONS"];
    let shown = usize::from(!columns.namespace)..if columns.wide { headers.len() } else { headers.len() - 2 };
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let current = item.versions.iter().find(|version| version.current);
            let row = [
                item.namespace.clone(),
                item.shown.clone(),
                item.ready.clone(),
                if item.deleting { "Deleting".to_owned() } else { item.reason.clone() },
                item.version.map(|version| version.to_string()).unwrap_or_default(),
                current.map(|version| age(version.issued_at.0, now)).unwrap_or_default(),
                if columns.wide { item.key() } else { last_part(&item.key()).to_owned() },
                item.secret_name.clone(),
                item.age(now),
                current.map(VersionSummary::material).unwrap_or_default(),
                item.versions.len().to_string(),
            ];
            row[shown.clone()].to_vec()
        })
        .collect();
    table(&headers[shown], &rows)
}

/// The ID of a key ARN, or the name of an alias ARN; any other key ID as it is.
fn last_part(key_id: &str) -> &str {
    let Some(arn) = key_id.strip_prefix("arn:") else { return key_id };
    let last = arn.rsplit_once(':').map_or(arn, |(_, last)| last);
    last.strip_prefix("key/").unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{ARN, at, edited, pair, ready, recorded};

    const ALL: Columns = Columns { namespace: true, wide: true };

    #[test]
    fn row_has_the_columns_of_kubectl_get() {
        let items = [KeySummary::of(&ready(&[1, 2]).key), KeySummary::of(&recorded(&[]).key)];
        let rows = |columns| -> Vec<Vec<String>> {
            let table = render_table(&items, columns, at(90));
            table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let issued = age(ready(&[1, 2]).key.record()[1].issued_at.0, at(90));
        let wide = rows(ALL);
        assert_eq!(wide[1], ["shop", "orders", "True", "Issued", "2", &issued, ARN, "orders", "90s", "AES_256", "2"]);
        assert_eq!(wide[2][4..9], ["<none>", "<none>", "alias/orders", "orders", "90s"]);
        let narrow = rows(Columns { namespace: false, wide: false });
        assert_eq!(narrow[1], ["orders", "True", "Issued", "2", &issued, last_part(ARN), "orders", "90s"]);
    }

    #[test]
    fn key_is_the_last_part_of_an_arn() {
        for (key_id, shown) in [
            ("arn:aws:kms:eu-west-1:111122223333:key/1234abcd", "1234abcd"),
            ("arn:aws:kms:eu-west-1:111122223333:alias/team/orders", "alias/team/orders"),
            ("alias/orders", "alias/orders"),
            ("mrk-1234", "mrk-1234"),
        ] {
            assert_eq!(last_part(key_id), shown);
        }
    }

    #[test]
    fn list_is_printed_as_recorded() {
        let by_class = edited(recorded(&[]), |value| {
            value["spec"].as_object_mut().unwrap().remove("keyId");
            value["spec"]["className"] = json!("shop");
        });
        let keys = [ready(&[1, 2]), recorded(&[]), pair(&[1]), by_class];
        let items = keys.each_ref().map(|fetched| KeySummary::of(&fetched.key));
        insta::assert_snapshot!("list", render_table(&items, Columns { namespace: false, wide: false }, at(90)));
        insta::assert_snapshot!("list-wide", render_table(&items, ALL, at(90)));
        insta::assert_snapshot!("list-name", names(&keys).join("\n"));
        let list = Items { items: items.to_vec() };
        insta::assert_snapshot!("list-json", crate::output::json(&list).unwrap());
        insta::assert_snapshot!("list-yaml", crate::output::yaml(&list).unwrap());
    }
}
