//! Adds the helper to the spec of a pod, or replaces what an earlier run added.

use super::{
    edit::{Edits, Place},
    helper::{Helper, INSTALLED, Runtime, USER},
    tree::Node,
    value::Value,
};
use crate::cli::inject::InjectMode;

/// The annotation by which kubectl chooses a container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Why a pod cannot have the helper.
type Result<T> = std::result::Result<T, String>;

/// A pod of a manifest.
pub struct Pod<'a> {
    pub spec: &'a Node,
    /// The metadata of the pod, if there are any.
    pub metadata: Option<&'a Node>,
    /// Whether pods have volumes that the workload claims for each.
    pub claims_volumes: bool,
}

/// Adds the helper by edits. Returns notes for the user.
pub fn add(helper: &Helper<'_>, pod: &Pod<'_>, edits: &mut Edits<'_>) -> Result<Vec<String>> {
    let spec = pod.spec;
    if spec.at(&["os", "name"]).and_then(Node::text) == Some("windows") {
        return Err("its pods run on Windows, and datakey-unwrap on Linux".to_owned());
    }
    refuse_indirection(spec, edits)?;
    for (_, list) in spec.entries().iter().filter(|(key, _)| is_edited_list(key)) {
        for node in std::iter::once(list).chain(list.items()) {
            refuse_indirection(node, edits)?;
        }
    }
    let containers = spec.get("containers").filter(|list| !list.items().is_empty());
    let containers = containers.ok_or_else(|| "it has no containers".to_owned())?;
    let all = || all_containers(spec, helper);
    for container in all() {
        for (key, value) in container.entries() {
            if ["volumeMounts", "env", "command", "securityContext"].iter().any(|name| key.text() == Some(name)) {
                refuse_indirection(value, edits)?;
            }
        }
    }
    let targets = targets(helper, pod, containers)?;
    refuse_foreign(helper, spec)?;
    let users = Users::of(spec, &targets);
    for container in all() {
        let is_target = targets.iter().any(|target| std::ptr::eq(*target, container));
        edit_container(helper, container, is_target, edits)?;
    }
    let (mode, needs_group) = match (helper.args.mode, &helper.args.file_mode) {
        (InjectMode::Exec, _) => (None, false),
        (_, Some(bits)) => (Some(bits.as_str()), false),
        (..) if users.reads_as_owner() => (None, false),
        _ => (Some("0440"), true),
    };
    let runtime = Runtime {
        user: users.of_helper(),
        sets_non_root: spec.at(&["securityContext", "runAsNonRoot"]).and_then(Node::text) != Some("true"),
        sets_seccomp: spec.at(&["securityContext", "seccompProfile"]).is_none(),
    };
    let is_own = |node: &Node| node.text_of("name").is_some_and(|name| helper.names.is_container(name));
    edits.sync(
        spec,
        "initContainers",
        is_own,
        &helper.init_containers(runtime, mode),
        Place::First { before: "containers" },
    )?;
    let is_own = |node: &Node| node.text_of("name").is_some_and(|name| is_volume(helper, name));
    edits.sync(spec, "volumes", is_own, &helper.volumes(), Place::Last)?;
    let mut notes = Vec::new();
    if needs_group && spec.at(&["securityContext", "fsGroup"]).is_none() {
        notes.push(add_group(pod, edits)?);
    }
    if helper.args.role_arn.is_some() && spec.get("serviceAccountName").is_none() {
        notes.push("it has no serviceAccountName, so the role must trust the service account default".to_owned());
    }
    Ok(notes)
}

fn is_edited_list(key: &Node) -> bool {
    ["initContainers", "containers", "volumes"].iter().any(|name| key.text() == Some(name))
}

/// A change of a node with an anchor would be one of each alias, and what a merge key brings in is not in the text.
fn refuse_indirection(node: &Node, edits: &Edits<'_>) -> Result<()> {
    let is_alias = matches!(node.kind, super::tree::Kind::Alias);
    let merge = node.entry("<<");
    if is_alias || node.anchored {
        return Err(edits.unusual(node));
    }
    match merge {
        Some((_, merged)) => Err(format!("{}; it has the merge key <<", edits.unusual(merged))),
        None => Ok(()),
    }
}

/// The containers of the manifest, without those that are added.
fn all_containers<'a>(spec: &'a Node, helper: &Helper<'_>) -> impl Iterator<Item = &'a Node> {
    let lists = ["initContainers", "containers"].into_iter().filter_map(|key| spec.get(key));
    let is_own = |node: &&Node| node.text_of("name").is_some_and(|name| helper.names.is_container(name));
    lists.flat_map(Node::items).filter(move |node| !is_own(node)).collect::<Vec<_>>().into_iter()
}

fn is_volume(helper: &Helper<'_>, name: &str) -> bool {
    helper.names.volumes().iter().any(|(own, _)| *own == name)
}

/// The containers that get the plaintext.
fn targets<'a>(helper: &Helper<'_>, pod: &Pod<'a>, containers: &'a Node) -> Result<Vec<&'a Node>> {
    let named = |name: &str| {
        let found = all_containers(pod.spec, helper).find(|container| container.text_of("name") == Some(name));
        found.ok_or_else(|| {
            let names: Vec<_> =
                all_containers(pod.spec, helper).filter_map(|container| container.text_of("name")).collect();
            format!("it has no container {name}: it has {}", names.join(", "))
        })
    };
    if !helper.args.container.is_empty() {
        return helper.args.container.iter().map(|name| named(name)).collect();
    }
    let annotations = pod.metadata.and_then(|metadata| metadata.get("annotations"));
    match annotations.and_then(|annotations| annotations.text_of(DEFAULT_CONTAINER)) {
        Some(name) => Ok(vec![named(name)?]),
        None => Ok(containers.items().iter().take(1).collect()),
    }
}

/// Refuses names that something else has.
fn refuse_foreign(helper: &Helper<'_>, spec: &Node) -> Result<()> {
    for volume in spec.get("volumes").map_or(&[][..], Node::items) {
        let name = volume.text_of("name").unwrap_or_default();
        let own = helper.names.volumes().into_iter().find(|(own, _)| *own == name);
        if own.is_some_and(|(_, kind)| volume.entry(kind).is_none()) {
            return Err(format!("it has a volume {name} of another type than inject writes: rename it"));
        }
    }
    let lists = ["initContainers", "containers"].into_iter().filter_map(|key| Some((key, spec.get(key)?)));
    for (list, container) in lists.flat_map(|(list, node)| node.items().iter().map(move |container| (list, container)))
    {
        let name = container.text_of("name").unwrap_or_default();
        let first = container.get("args").and_then(|args| args.items().first()).and_then(Node::text);
        let is_ours =
            list == "initContainers" && first.is_some_and(|first| ["file", "watch", "install"].contains(&first));
        if helper.names.is_container(name) && !is_ours {
            return Err(format!("it has a container {name} that inject did not write: rename it"));
        }
    }
    Ok(())
}

/// Gives a container its mounts and, in the mode `exec`, its command and environment, or takes away those of an earlier run.
fn edit_container(helper: &Helper<'_>, container: &Node, is_target: bool, edits: &mut Edits<'_>) -> Result<()> {
    let name = container.text_of("name").unwrap_or_default();
    let mounts = if is_target { helper.mounts() } else { Vec::new() };
    let is_own_volume = |node: &Node| node.text_of("name").is_some_and(|volume| is_volume(helper, volume));
    for mount in container.get("volumeMounts").map_or(&[][..], Node::items) {
        let path = mount.text_of("mountPath").unwrap_or_default().trim_end_matches('/');
        let is_taken = |own: &Value| matches!(own.get("mountPath"), Some(Value::Text(own)) if own == path);
        if !is_own_volume(mount) && mounts.iter().any(is_taken) {
            let volume = mount.text_of("name").unwrap_or_default();
            let advice = if helper.args.mode == InjectMode::Exec { "" } else { " or choose another --mount-path" };
            return Err(format!("its container {name} has the volume {volume} at {path}: mount it elsewhere{advice}"));
        }
    }
    let is_exec = is_target && helper.args.mode == InjectMode::Exec;
    edit_command(helper, container, is_exec, edits)?;
    edits.sync(container, "volumeMounts", is_own_volume, &mounts, Place::Last)
}

fn edit_command(helper: &Helper<'_>, container: &Node, is_exec: bool, edits: &mut Edits<'_>) -> Result<()> {
    let name = container.text_of("name").unwrap_or_default();
    let command = container.get("command").filter(|command| !command.items().is_empty());
    let Some(command) = command else {
        if is_exec {
            return Err(format!(
                "its container {name} has no command, and what its image runs is not known here: write command, with the entrypoint of \
                 the image"
            ));
        }
        return Ok(());
    };
    // What an earlier run put before the command, and whether it was for this Secret.
    let words: Vec<_> = command.items().iter().map(|word| word.text().unwrap_or_default()).collect();
    let is_wrapped = words.starts_with(&[INSTALLED, "exec"]);
    let head = if is_wrapped { words.iter().position(|word| *word == "--").map_or(0, |dashes| dashes + 1) } else { 0 };
    let is_own = mounts(container, &helper.names.program);
    if is_wrapped && !is_own {
        let why = format!("its container {name} runs under datakey-unwrap exec for another Secret already");
        return if is_exec { Err(why) } else { Ok(()) };
    }
    if is_exec || is_wrapped {
        let wrap = if is_exec { helper.command() } else { Vec::new() };
        edits.replace_head(command, head, &wrap)?;
    }
    edit_env(helper, container, is_exec, is_wrapped, edits)
}

/// The variables by which AWS gets the token. In a container whose command an earlier run changed they are of that run, if the
/// container has the volume with the token.
fn edit_env(
    helper: &Helper<'_>,
    container: &Node,
    is_exec: bool,
    is_wrapped: bool,
    edits: &mut Edits<'_>,
) -> Result<()> {
    const VARIABLES: [&str; 2] = ["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"];

    let variables = container.get("env").map_or(&[][..], Node::items);
    let is_aws = |node: &Node| node.text_of("name").is_some_and(|name| VARIABLES.contains(&name));
    let has_own_token = is_wrapped && mounts(container, &helper.names.token);
    let wanted = if is_exec { helper.env() } else { Vec::new() };
    if !has_own_token && !wanted.is_empty() && variables.iter().any(is_aws) {
        let name = container.text_of("name").unwrap_or_default();
        return Err(format!(
            "its container {name} has an AWS role of its own ({}), and one process has one: give that role kms:Decrypt, and leave out \
             --role-arn",
            VARIABLES.join(", ")
        ));
    }
    let is_own = |node: &Node| has_own_token && is_aws(node);
    edits.sync(container, "env", is_own, &wanted, Place::Last)
}

/// Whether a container has a volume.
fn mounts(container: &Node, volume: &str) -> bool {
    let mounts = container.get("volumeMounts").map_or(&[][..], Node::items);
    mounts.iter().any(|mount| mount.text_of("name") == Some(volume))
}

/// Lets the containers read the files as members of the group.
fn add_group(pod: &Pod<'_>, edits: &mut Edits<'_>) -> Result<String> {
    let group = Value::Number(USER);
    match pod.spec.get("securityContext") {
        Some(context) if context.entries().is_empty() => {
            edits.set(pod.spec, "securityContext", &Value::Map(vec![("fsGroup", group)]))?;
        }
        Some(context) => {
            refuse_indirection(context, edits)?;
            edits.set(context, "fsGroup", &group)?;
        }
        None => edits.set(pod.spec, "securityContext", &Value::Map(vec![("fsGroup", group)]))?,
    }
    let volumes = pod.spec.get("volumes").map_or(&[][..], Node::items);
    let is_persistent = pod.claims_volumes
        || volumes
            .iter()
            .any(|volume| ["persistentVolumeClaim", "ephemeral"].iter().any(|kind| volume.get(kind).is_some()));
    let also = if is_persistent { ", for its persistent volumes, too" } else { "" };
    Ok(format!(
        "the user of its container is not known here, so the files are for its group: fsGroup {USER} is added{also}. Set runAsUser \
         instead, or --file-mode"
    ))
}

/// The users of the pod and of the containers that get the plaintext.
struct Users {
    pod: Option<i64>,
    /// The one user of all these containers, if it is known and not root.
    reader: Option<i64>,
}

// === impl Users ===

impl Users {
    fn of(spec: &Node, targets: &[&Node]) -> Self {
        let number = |text: &str| text.parse().ok().filter(|user: &i64| user.to_string() == text);
        // A number in octal digits is an unknown one.
        let user = |node: &Node| number(node.at(&["securityContext", "runAsUser"])?.text()?);
        let pod = user(spec);
        let mut readers: Vec<Option<i64>> = targets.iter().map(|target| user(target).or(pod)).collect();
        readers.dedup();
        // Without its capabilities root reads no file of another user.
        let reader = if readers.len() == 1 { readers[0].filter(|user| *user > 0) } else { None };
        Self { pod, reader }
    }

    fn reads_as_owner(&self) -> bool {
        self.reader.is_some()
    }

    /// `runAsUser` of the helper, unless that of the pod is right.
    fn of_helper(&self) -> Option<i64> {
        match (self.pod, self.reader) {
            (Some(pod), Some(reader)) if pod == reader => None,
            (_, Some(reader)) => Some(reader),
            (Some(pod), None) if pod > 0 => None,
            _ => Some(USER),
        }
    }
}
