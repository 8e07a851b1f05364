//! The policies of a move to another KMS key or encryption context. Pure.
//!
//! Source: AWS KMS API Reference, "ReEncrypt"; AWS KMS Developer Guide, "AWS KMS condition keys" (`kms:ReEncryptOnSameKey`) and
//! "Multi-Region keys in AWS KMS".

use std::collections::{BTreeMap, BTreeSet};

use datakey::{
    api::EncryptionContext,
    arn::{KmsArn, RoleArn},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    document::{Condition, EITHER_OR_BOTH, KeyPolicyStatements, PolicyDocument, Statement, numbered},
    kms_key::ACCOUNT,
};
use crate::{
    cluster::AnyKey,
    commands::rewrap::plan::{self, Move, Obstacle, Plan, Rewrap},
};

/// The placeholder for the name of the role that rewraps.
pub const REWRAP_ROLE: &str = "REWRAP-ROLE";

/// The action on the KMS key that unwraps, and the name of its statements.
const FROM: (&str, &str) = ("kms:ReEncryptFrom", "RewrapsFrom");

/// The action on the KMS key that wraps, and the name of its statements.
const TO: (&str, &str) = ("kms:ReEncryptTo", "RewrapsTo");

/// What a role with these rights must not have besides.
const AS_GOOD_AS_DECRYPT: &str = "note: kms:ReEncryptFrom together with a broad kms:ReEncryptTo is as good as kms:Decrypt: the role can rewrap \
     onto a KMS key of its own and decrypt there. Allow the role no other kms:ReEncryptTo, attach the policies for the time of the move \
     only, and remove them afterwards";

/// What a user of the namespace can have done.
const OF_PINS: &str = "note: versions came from spec.wrappedKeys or from a Secret (status.adopted), so a user of the namespace decided on \
     KMS keys and encryption contexts in these policies: check that they are those of its own data keys";

/// The policies of a rewrap: a move of what is recorded to another KMS key or encryption context.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RewrapPolicies {
    /// The IAM policy of the role that rewraps.
    pub rewrap: PolicyDocument,
    /// The statements of the key policies, by KMS key: those of the sources and of the destination.
    pub key_policy_statements: KeyPolicyStatements,
    /// What the user must know or fill in.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// What `ReEncrypt` calls of a move have in common.
#[derive(PartialEq, Eq)]
struct Call {
    /// The ARN of the KMS key that unwraps, in the Region of the destination.
    source: String,
    from: EncryptionContext,
    to: EncryptionContext,
}

/// What a move of the record needs.
#[derive(Default)]
struct Calls {
    /// Each once.
    distinct: Vec<Call>,
    /// The versions whose KMS key is called in another Region than where they were issued, by the ARN there.
    replicas: BTreeMap<String, Vec<i32>>,
}

// === impl RewrapPolicies ===

impl RewrapPolicies {
    /// Returns the policies for a move of an object.
    ///
    /// # Errors
    /// Why there are none: nothing is recorded, all is moved already, or nothing can be moved there.
    pub fn of(key: &AnyKey, wanted: &Move, role: Option<&str>) -> Result<Self, String> {
        let destination = &wanted.to.key_arn;
        let to = KmsArn::parse(destination)
            .filter(KmsArn::is_key)
            .ok_or_else(|| format!("{destination} is not the ARN of a KMS key"))?;
        let calls = Calls::of(key, wanted)?;
        let accounts: BTreeSet<_> = calls.accounts().chain([to.account]).collect();
        let principal = role.map_or_else(|| placeholder(&to, &accounts), str::to_owned);
        let mut of_role = Vec::new();
        let mut of_keys = BTreeMap::<String, Vec<Statement>>::new();
        for (arn, statement) in calls.statements(destination) {
            of_keys.entry(arn).or_default().push(statement.clone().for_key_policy(&principal));
            of_role.push(statement);
        }
        Ok(Self {
            rewrap: PolicyDocument::of(of_role),
            key_policy_statements: KeyPolicyStatements(of_keys),
            notes: notes(key, destination, &calls, &accounts, role),
        })
    }
}

/// Returns the ARN of the role that rewraps, with placeholders. Its account is not known if the KMS keys are in several.
fn placeholder(to: &KmsArn<'_>, accounts: &BTreeSet<&str>) -> String {
    let account = if accounts.len() == 1 { to.account } else { ACCOUNT };
    format!("arn:{}:iam::{account}:role/{REWRAP_ROLE}", to.partition)
}

/// Returns what the user must know or fill in.
fn notes(key: &AnyKey, destination: &str, calls: &Calls, accounts: &BTreeSet<&str>, role: Option<&str>) -> Vec<String> {
    let mut notes = vec![AS_GOOD_AS_DECRYPT.to_owned()];
    if plan::is_adopted(key.object()) {
        notes.push(OF_PINS.to_owned());
    }
    for (arn, numbers) in &calls.replicas {
        notes.push(format!(
            "note: {} {} rewrapped by {arn}, the multi-Region key in the Region of the destination: it must have been replicated there",
            versions(numbers),
            if numbers.len() == 1 { "is" } else { "are" }
        ));
    }
    notes.push(EITHER_OR_BOTH.to_owned());
    match role.and_then(RoleArn::parse) {
        Some(role) => {
            let elsewhere: Vec<_> = accounts.iter().filter(|account| **account != role.account).copied().collect();
            if !elsewhere.is_empty() {
                notes.push(format!(
                    "note: the role is in the account {}, so the KMS keys of {} need both: the IAM policy and the statements of \
                     their key policies",
                    role.account,
                    elsewhere.join(" and ")
                ));
            }
        }
        None if accounts.len() > 1 => notes.push(format!(
            "note: the KMS keys are in the accounts {}, so at least those outside {ACCOUNT}, the account of the role, need both: the IAM \
             policy and the statements of their key policies",
            accounts.iter().copied().collect::<Vec<_>>().join(" and ")
        )),
        None => {}
    }
    notes.push(format!(
        "note: after the move the operator needs kms:{} on {} for the next version, and workloads need kms:Decrypt: print their policies \
         again then (kubectl datakey policy {} -n {})",
        key.kind().operation,
        destination,
        key.shown(),
        key.namespace()
    ));
    notes
}

/// Returns versions as a sentence names them.
fn versions(numbers: &[i32]) -> String {
    let texts: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("version{} {}", if texts.len() == 1 { "" } else { "s" }, texts.join(", "))
}

// === impl Calls ===

impl Calls {
    /// Returns what `kubectl datakey rewrap` calls for the selected versions of an object.
    fn of(key: &AnyKey, wanted: &Move) -> Result<Self, String> {
        let name = key.shown();
        let plan = Plan::of(key.object(), wanted).map_err(|obstacle| match obstacle {
            Obstacle::NotIssued => format!(
                "{name} has no issued version yet, so there is nothing to move: wait until it is Ready (kubectl datakey status \
                 {name} -n {}), or name the other KMS key in spec.keyId before a version is issued",
                key.namespace()
            ),
            obstacle => format!("{name} cannot be moved to this KMS key: {obstacle}"),
        })?;
        if plan.rewraps.is_empty() {
            return Err(format!(
                "every selected version of {name} is already under this KMS key with this encryption context, so a move needs no policies"
            ));
        }
        let mut calls = Self::default();
        let all = |mut rewrap: Rewrap| {
            let alternatives = std::mem::take(&mut rewrap.alternatives);
            std::iter::once(rewrap).chain(alternatives)
        };
        for Rewrap { source, source_key, context, .. } in plan.rewraps.into_iter().flat_map(all) {
            if source_key != source.key_id {
                calls.replicas.entry(source_key.clone()).or_default().push(source.version);
            }
            let call = Call { source: source_key, from: source.request.context().clone(), to: context };
            if !calls.distinct.contains(&call) {
                calls.distinct.push(call);
            }
        }
        Ok(calls)
    }

    /// Returns the accounts of the KMS keys that unwrap.
    fn accounts(&self) -> impl Iterator<Item = &str> {
        self.distinct.iter().filter_map(|call| KmsArn::parse(&call.source)).map(|arn| arn.account)
    }

    /// Returns the statements, each with the ARN of its KMS key.
    fn statements(&self, destination: &str) -> Vec<(String, Statement)> {
        let mut sides = [(FROM, Vec::new()), (TO, Vec::new())];
        for call in &self.distinct {
            let is_same = call.source == destination;
            let both = [(call.source.as_str(), &call.from, is_same), (destination, &call.to, is_same)];
            for ((_, side), needed) in sides.iter_mut().zip(both) {
                if !side.contains(&needed) {
                    side.push(needed);
                }
            }
        }
        let statement = |(action, sid), number, (arn, context, is_same): (&str, _, bool)| {
            let same_key = Condition::default().with("Bool", "kms:ReEncryptOnSameKey", is_same.to_string());
            let condition = Condition::of_whole_context(context).and(same_key);
            (arn.to_owned(), Statement::allow(numbered(sid, number), action, arn, condition))
        };
        let of_side =
            |(names, side): (_, Vec<_>)| (1..).zip(side).map(move |(number, needed)| statement(names, number, needed));
        sides.into_iter().flat_map(of_side).collect()
    }
}

#[cfg(test)]
mod tests;
