//! `kubectl datakey list`.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::{
    answer::{Answer, Failure, render},
    args::List,
    cluster::Cluster,
    standing::Standing,
    text::table,
};

/// Several results, as `kubectl get -o json` has them.
#[derive(Debug, Serialize)]
pub struct Items<T> {
    /// The results.
    pub items: Vec<T>,
}

/// Lists `DataKey`s.
pub async fn run(cluster: &Cluster, args: &List) -> Result<Answer, Failure> {
    let found = cluster.data_keys(args.all_namespaces).await?;
    let items = found.objects.iter().map(|object| Standing::of(&object.key)).collect();
    let now = Timestamp::now();
    let out = render(args.output, &Items { items }, |list| drawn(&list.items, args.all_namespaces, now))?;
    let mut answer = Answer::text(out).with(found.outcome());
    if found.objects.is_empty() && found.odd.is_empty() {
        answer.notes.push(none_found(cluster, args.all_namespaces));
    }
    answer.notes.extend(found.odd);
    Ok(answer)
}

/// What to say where there is nothing.
pub fn none_found(cluster: &Cluster, all_namespaces: bool) -> String {
    if all_namespaces {
        "No DataKeys found.".to_owned()
    } else {
        format!("No DataKeys found in namespace {}.", cluster.namespace)
    }
}

fn drawn(items: &[Standing], with_namespace: bool, now: Timestamp) -> String {
    if items.is_empty() {
        return String::new();
    }
    let headers = ["NAMESPACE", "NAME", "READY", "REASON", "VERSION", "ISSUED", "KEY", "SECRET", "AGE"];
    let from = usize::from(!with_namespace);
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
            row[from..].to_vec()
        })
        .collect();
    table(&headers[from..], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ARN, at, ready, recorded};

    #[test]
    fn a_line_tells_what_kubectl_get_tells_and_how_many_versions_there_are() {
        let items = [Standing::of(&ready(&[1, 2]).key), Standing::of(&recorded(&[]).key)];
        let drawn = drawn(&items, true, at(90));
        let lines: Vec<Vec<_>> = drawn.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["shop", "orders", "True", "Issued", "2", "2", ARN, "orders", "90s"]);
        assert_eq!(lines[2], ["shop", "orders", "Unknown", "Pending", "<none>", "0", "alias/orders", "orders", "90s"]);
    }
}
