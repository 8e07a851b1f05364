//! Where the pods of a manifest are.

use super::{pod::Pod, tree::Node};

/// The kinds whose pods can be changed, and the path from the object to what has the pod's metadata and spec.
const KINDS: [(&str, &str, &[&str]); 8] = [
    ("", "Pod", &[]),
    ("", "ReplicationController", &["spec", "template"]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// An object with pods.
pub struct Workload<'a> {
    /// How messages name it.
    pub title: String,
    /// The namespace that the manifest names.
    pub namespace: Option<&'a str>,
    /// The map of the document that the object is in.
    pub root: &'a Node,
    /// Its pod, or why it has none.
    pub pod: Result<Pod<'a>, String>,
}

/// The objects with pods in these documents and in the lists that they are, in their order.
pub fn find(roots: &[Node]) -> Vec<Workload<'_>> {
    let mut found = Vec::new();
    for root in roots {
        add_of(root, root, &mut found);
    }
    found
}

fn add_of<'a>(root: &'a Node, object: &'a Node, found: &mut Vec<Workload<'a>>) {
    let (version, kind) =
        (object.text_of("apiVersion").unwrap_or_default(), object.text_of("kind").unwrap_or_default());
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if kind == "List" && group.is_empty() {
        let items = object.get("items").map_or(&[][..], Node::items);
        return items.iter().for_each(|item| add_of(root, item, found));
    }
    let Some((.., path)) = KINDS.into_iter().find(|known| (known.0, known.1) == (group, kind)) else { return };
    let metadata = object.get("metadata");
    let text = |key| metadata.and_then(|metadata| metadata.text_of(key));
    let template = object.at(path);
    let spec = template.and_then(|template| template.get("spec")).filter(|spec| spec.is_map());
    let claims_volumes = object.at(&["spec", "volumeClaimTemplates"]).is_some_and(|claims| !claims.items().is_empty());
    let pod =
        spec.map(|spec| Pod { spec, metadata: template.and_then(|template| template.get("metadata")), claims_volumes });
    found.push(Workload {
        title: format!("{kind} {}", text("name").or(text("generateName")).unwrap_or("without a name")),
        namespace: text("namespace"),
        root,
        pod: pod.ok_or_else(|| format!("it has no {}", [path, &["spec"]].concat().join("."))),
    });
}
