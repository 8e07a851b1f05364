//! The plan as it is printed: a census of the KMS keys, each object, and the rights that are needed. Pure.

use std::{collections::BTreeSet, fmt::Write as _};

use datakey::{
    api::{EncryptionContext, KINDS, Kind, MAX_VERSIONS},
    arn,
    text::printable_json,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{Move, Next, Obstacle, Plan};
use crate::{
    cluster::FetchedKey,
    commands::census::{KmsKeyCount, census},
    output::printable,
    view::table::{indented, table},
};

/// The plan of a move.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovePlan {
    /// The KMS key that is moved to.
    to_key_id: String,
    /// The KMS keys that wrapped what the objects have recorded.
    census: Vec<KmsKeyCount>,
    /// The objects that the move concerns.
    pub items: Vec<ObjectPlan>,
}

/// The plan of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPlan {
    /// `DataKey` or `DataKeyPair`.
    kind: String,
    namespace: String,
    name: String,
    /// How messages name it.
    #[serde(skip)]
    shown: String,
    /// The versions that are rewrapped.
    rewraps: Vec<PlannedRewrap>,
    /// The versions whose data key or private key is under the KMS key already.
    done: Vec<Present>,
    /// What becomes current.
    #[serde(skip_serializing_if = "Option::is_none")]
    becomes_current: Option<BecomesCurrent>,
    /// How many of the 64 versions are used afterwards.
    used_versions: usize,
    /// Why it cannot be moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A version that is rewrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PlannedRewrap {
    version: i32,
    /// The ARN of the KMS key that wrapped it.
    key_id: String,
    /// The ARN by which that KMS key unwraps it in the Region of the new one: of a multi-Region key, that of the replica there.
    source_key_id: String,
    /// The number of the version with the same data key or private key.
    new_version: i32,
    /// The encryption context.
    encryption_context: EncryptionContext,
    /// The encryption context of the new version.
    new_encryption_context: EncryptionContext,
}

/// A version whose data key or private key is under the KMS key already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Present {
    version: i32,
    /// The version that is.
    as_version: i32,
    /// Whether the operator has recorded that one. Else the spec pins it, and the operator records it next.
    is_recorded: bool,
}

/// The version that becomes current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BecomesCurrent {
    version: i32,
    /// Whether the operator issues it as a new data key or key pair.
    is_new: bool,
}

// === impl MovePlan ===

impl MovePlan {
    /// The plan for these objects, of `listed` ones.
    pub fn of<'a>(
        wanted: &Move,
        listed: impl IntoIterator<Item = &'a FetchedKey>,
        plans: impl IntoIterator<Item = (&'a FetchedKey, &'a Result<Plan, Obstacle>)>,
    ) -> Self {
        let items = plans.into_iter().map(|(fetched, plan)| ObjectPlan::of(fetched, plan));
        Self { to_key_id: wanted.to.key_arn.clone(), census: census(listed), items: items.collect() }
    }

    /// The plan as text.
    pub fn text(&self) -> String {
        let sources: BTreeSet<_> =
            self.items.iter().flat_map(|item| &item.rewraps).map(|rewrap| rewrap.key_id.as_str()).collect();
        let rows: Vec<_> = self
            .census
            .iter()
            .map(|count| {
                let is_source = sources.contains(count.key_id.as_str());
                let is_there = arn::decrypts_for(&count.key_id, &self.to_key_id);
                let side = match (is_source, is_there) {
                    (true, true) => "from, to",
                    (true, false) => "from",
                    (false, true) => "to",
                    (false, false) => "",
                };
                let numbers = [count.versions, count.objects, count.namespaces].map(|number| number.to_string());
                [&[count.key_id.clone(), side.to_owned()][..], &numbers].concat()
            })
            .collect();
        let mut out = table(&["KMS KEY", "MOVE", "VERSIONS", "OBJECTS", "NAMESPACES"], &rows);
        for item in &self.items {
            out.push('\n');
            out += &item.text();
        }
        out.extend(self.rights().map(|rights| format!("\n{rights}")));
        out
    }

    /// The rights that are needed; `None` where nothing is to do.
    fn rights(&self) -> Option<String> {
        let sources: BTreeSet<_> =
            self.items.iter().flat_map(|item| &item.rewraps).map(|rewrap| rewrap.source_key_id.as_str()).collect();
        let changed: Vec<_> =
            self.items.iter().filter_map(|item| Some((&item.kind, item.becomes_current.as_ref()?))).collect();
        if sources.is_empty() && changed.is_empty() {
            return None;
        }
        let mut out = String::from("Rights:\n");
        let mut line = |text: &str| out += &indented(text, 2);
        if !sources.is_empty() {
            line("you: kms:ReEncryptFrom on");
            for source in sources {
                line(&format!("  {source}"));
            }
            line(&format!("and kms:ReEncryptTo on\n  {}", self.to_key_id));
            line("(kubectl datakey policy NAME --rewrap prints the policies)");
        }
        let is_issued = |kind: &&Kind| changed.iter().any(|(name, current)| *name == kind.name && current.is_new);
        let operations = KINDS.into_iter().filter(is_issued).map(|kind| format!("kms:{}", kind.operation));
        let operations: Vec<_> = operations.collect();
        if !operations.is_empty() {
            line(&format!("the operator: {} on the new KMS key", operations.join(" and ")));
        }
        line("workloads: kms:Decrypt on the new KMS key, before they meet the new versions");
        Some(out)
    }
}

// === impl ObjectPlan ===

impl ObjectPlan {
    fn of(fetched: &FetchedKey, plan: &Result<Plan, Obstacle>) -> Self {
        let mut item = Self {
            kind: fetched.kind().name.to_owned(),
            namespace: fetched.namespace(),
            name: fetched.name(),
            shown: fetched.shown(),
            rewraps: Vec::new(),
            done: Vec::new(),
            becomes_current: None,
            used_versions: fetched.key.record().len(),
            error: None,
        };
        match plan {
            Err(why) => item.error = Some(why.to_string()),
            Ok(plan) => {
                item.rewraps = plan
                    .rewraps
                    .iter()
                    .map(|rewrap| PlannedRewrap {
                        version: rewrap.source.version,
                        key_id: rewrap.source.key_id.clone(),
                        source_key_id: rewrap.source_key.clone(),
                        new_version: rewrap.number,
                        encryption_context: rewrap.source.request.context().clone(),
                        new_encryption_context: rewrap.context.clone(),
                    })
                    .collect();
                let present = plan.present.iter();
                let is_recorded = |version| fetched.key.recorded_version(version).is_some();
                let done = present.map(|(&version, &as_version)| Present {
                    version,
                    as_version,
                    is_recorded: is_recorded(as_version),
                });
                item.done = done.collect();
                item.used_versions = plan.used;
                item.becomes_current = match plan.next {
                    Next::Unchanged => None,
                    Next::Existing(version) => Some(BecomesCurrent { version, is_new: false }),
                    Next::New(version) => Some(BecomesCurrent { version, is_new: true }),
                };
            }
        }
        item
    }

    fn text(&self) -> String {
        let mut out = format!("{} in namespace {}:\n", self.shown, self.namespace);
        if let Some(why) = &self.error {
            let _ = writeln!(out, "  cannot be moved: {}", printable(why));
            return out;
        }
        for PlannedRewrap {
            version, key_id, new_version, encryption_context: from, new_encryption_context: to, ..
        } in &self.rewraps
        {
            let context = if from == to { context(from) } else { format!("{}, then {}", context(from), context(to)) };
            let _ = writeln!(out, "  version {version} is rewrapped as version {new_version}");
            let _ = writeln!(out, "    from {key_id}");
            let _ = writeln!(out, "    encryption context: {context}");
        }
        for Present { version, as_version, is_recorded } in &self.done {
            let name = if version == as_version { String::new() } else { format!(", as version {as_version}") };
            let waits = if *is_recorded { "" } else { " (pinned, not recorded yet)" };
            let _ = writeln!(out, "  version {version} is under the new KMS key already{name}{waits}");
        }
        match &self.becomes_current {
            Some(BecomesCurrent { version, is_new: true }) => {
                let _ = writeln!(out, "  version {version} is issued under the new KMS key, and becomes current");
            }
            Some(BecomesCurrent { version, is_new: false }) => {
                let _ = writeln!(out, "  version {version} becomes current");
            }
            None => out += "  the current version stays\n",
        }
        let _ = writeln!(out, "  {} of {MAX_VERSIONS} versions are used then", self.used_versions);
        out
    }
}

/// An encryption context on one line.
fn context(context: &EncryptionContext) -> String {
    if context.is_empty() {
        return "none".to_owned();
    }
    printable_json(&serde_json::to_string(context).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests;
