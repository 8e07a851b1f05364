//! `kubectl datakey list`.

use k8s_openapi::jiff::Timestamp;

use super::{Items, none_found};
use crate::{
    cli::List,
    cluster::Cluster,
    output::{CommandError, Output, render},
    view::{summary::KeySummary, table::table},
};

/// Lists `DataKey`s.
pub async fn run(cluster: &Cluster, args: &List) -> Result<Output, CommandError> {
    let listing = cluster.data_keys(args.all_namespaces).await?;
    let items = listing.keys.iter().map(|fetched| KeySummary::of(&fetched.key)).collect();
    let now = Timestamp::now();
    let out = render(args.output, &Items { items }, |list| render_table(&list.items, args.all_namespaces, now))?;
    let mut output = Output::text(out).with(listing.health());
    if listing.keys.is_empty() && listing.unreadable.is_empty() {
        output.notes.push(none_found(cluster, args.all_namespaces));
    }
    output.notes.extend(listing.unreadable);
    Ok(output)
}

fn render_table(items: &[KeySummary], with_namespace: bool, now: Timestamp) -> String {
    if items.is_empty() {
        return String::new();
    }
    let headers = ["NAMESPACE", "NAME", "READY", "REASON", "VERSION", "ISSUED", "KEY", "SECRET", "AGE"];
    let first = usize::from(!with_namespace);
    let rows: Vec<_> = items
        .iter()
        .map(|item| {
            let row = [
                item.namespace.clone(),
                item.name.clone(),
                item.ready.clone(),
                if item.deleting { "Deleting".to_owned() } else { item.reason.clone() },
                item.version.map(|version| version.to_string()).unwrap_or_default(),
                item.versions.len().to_string(),
                item.key_id.clone(),
                item.secret_name.clone(),
                item.age(now),
            ];
            row[first..].to_vec()
        })
        .collect();
    table(&headers[first..], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ARN, at, ready, recorded};

    #[test]
    fn row_has_the_columns_of_kubectl_get_and_the_version_count() {
        let items = [KeySummary::of(&ready(&[1, 2]).key), KeySummary::of(&recorded(&[]).key)];
        let table = render_table(&items, true, at(90));
        let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["shop", "orders", "True", "Issued", "2", "2", ARN, "orders", "90s"]);
        assert_eq!(lines[2], ["shop", "orders", "Unknown", "Pending", "<none>", "0", "alias/orders", "orders", "90s"]);
    }
}
