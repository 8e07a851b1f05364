//! The policies of a class. Pure.
//!
//! Source: AWS KMS Developer Guide, "AWS KMS condition keys" (`kms:RequestAlias`, `kms:EncryptionContext:`,
//! `kms:EncryptionContextKeys`); IAM User Guide, "Policy variables" (`aws:PrincipalTag`).

use std::collections::{BTreeMap, BTreeSet};

use datakey::{
    api::{ClassAws, ClassContext, ClassLimits, DataKeyClassSpec, KINDS, Kind, KindId, Others, TagSource, ValueFrom},
    arn::{self, KmsArn, RoleArn},
    class::Class,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    document::{
        Condition, DECRYPT, EITHER_OR_BOTH, KeyPolicyStatements, OPERATOR_ROLE, PolicyDocument, Statement, Values,
        WORKLOAD_ROLE, context_key, escape_policy_variables, numbered, role_or_placeholder, sids,
    },
    kms_key::{ACCOUNT, ANY_REGION, KmsKey},
    statements::{PAIR_SPEC, Roles},
    trust,
};

/// The policies of a class.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassPolicies {
    /// The IAM policy of the operator's own role, by which it may assume the role of the class. Absent if the class has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<PolicyDocument>,
    /// The trust policy of the role of the class. Absent if the class has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<PolicyDocument>,
    /// The IAM policy of the role of the class; of the operator's own role if the class has none.
    pub role: PolicyDocument,
    /// The statements of the key policies, by KMS key.
    pub key_policy_statements: KeyPolicyStatements,
    /// What the user must know or fill in.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// Whose aliases and key IDs a class names.
struct Home<'a> {
    /// The partition; `None` if it follows from the Region.
    partition: Option<&'a str>,
    account: &'a str,
}

/// How a policy knows the namespaces of requests.
pub(super) enum Namespaces<'a> {
    /// By the tag of the session with this key.
    OfTheSession(&'a str),
    /// These are all that the class admits.
    OfTheClass(&'a [String]),
}

/// What the role of the class may have of one kind.
struct Grant {
    kind: &'static Kind,
    resources: Vec<String>,
    condition: Condition,
}

// === impl ClassPolicies ===

impl ClassPolicies {
    /// Returns the policies for all that a class allows. The class has no flaw.
    ///
    /// # Errors
    /// Why there are none: the class allows nothing.
    pub fn of(class: &Class, roles: &Roles<'_>) -> Result<Self, String> {
        let (name, spec) = (class.name(), class.spec());
        if spec.namespaces.is_empty() {
            return Err(format!(
                "the class {name} admits no namespace, so it needs no policies: add some to spec.namespaces"
            ));
        }
        let aws = spec.aws.as_ref();
        let home = Home::of(aws.map(|aws| aws.role_arn.as_str()).or(roles.operator));
        let role = aws.map(|aws| aws.role_arn.as_str()).or(roles.operator);
        let tag = aws.and_then(namespace_tag);
        let namespaces = tag.map_or(Namespaces::OfTheClass(&spec.namespaces), Namespaces::OfTheSession);
        let context = of_context(spec, &namespaces);

        let mut grants = Vec::new();
        let mut statements = BTreeMap::<String, Vec<Statement>>::new();
        let mut issuing = BTreeSet::new();
        for kind in KINDS {
            for entry in spec.allow.iter().filter(|entry| allows(entry, kind.id)) {
                let keys = home.issuing(entry);
                let condition = of_kind(entry, kind.id).and(context.clone());
                for key in &keys {
                    let principal = role_or_placeholder(role, key, OPERATOR_ROLE);
                    let of_key = statements.entry(key.name()).or_default();
                    let statement = statement(kind, "*".into(), condition.clone(), of_key).for_key_policy(&principal);
                    if !of_key.iter().any(|other| has_same_effect(other, &statement)) {
                        of_key.push(statement);
                    }
                }
                grant(&mut grants, kind, &keys, &condition);
                issuing.extend(keys);
            }
        }
        if grants.is_empty() {
            return Err(format!(
                "the class {name} allows no request, so it needs no policies: look at the kinds, Regions and KMS keys of spec.allow, and \
                 whether a key of keyArns is in the account of the aliases"
            ));
        }
        let workload_context = of_context(spec, &Namespaces::OfTheClass(&spec.namespaces));
        let unwrapping: BTreeSet<_> = spec.allow.iter().flat_map(|entry| home.unwrapping(entry)).collect();
        for key in &unwrapping {
            let workload = role_or_placeholder(roles.workload, key, WORKLOAD_ROLE);
            let unwraps = Statement::allow("WorkloadUnwrapsKeys".to_owned(), DECRYPT, "*", workload_context.clone());
            statements.entry(key.name()).or_default().push(unwraps.for_key_policy(&workload));
        }
        let mut of_role = Vec::new();
        for Grant { kind, resources, condition } in grants {
            let statement = statement(kind, resources.into_iter().collect(), condition, &of_role);
            of_role.push(statement);
        }
        let keys: BTreeSet<_> = issuing.union(&unwrapping).collect();
        Ok(Self {
            assume_role: aws.map(|aws| trust::assume_role(aws, &spec.namespaces)),
            trust: aws.map(|aws| trust::trust(aws, &spec.namespaces, &operator_or_placeholder(roles.operator, &home))),
            role: PolicyDocument::of(of_role),
            key_policy_statements: KeyPolicyStatements(statements),
            notes: notes(class, roles, tag, &keys),
        })
    }
}

/// Returns the ARN of the operator's role. Its account can be another one than that of the role of the class.
fn operator_or_placeholder(operator: Option<&str>, home: &Home<'_>) -> String {
    let placeholder = || format!("arn:{}:iam::{ACCOUNT}:role/{OPERATOR_ROLE}", home.partition.unwrap_or("aws"));
    operator.map_or_else(placeholder, str::to_owned)
}

/// Returns the key of the tag of each session that has the namespace.
fn namespace_tag(aws: &ClassAws) -> Option<&str> {
    let mut tags = aws.session_tags.iter();
    tags.find(|tag| tag.value_from == Some(TagSource::Namespace)).map(|tag| tag.key.as_str())
}

/// Returns the statement by which the operator may issue what is of a kind. Its name is in none of the others.
fn statement(kind: &Kind, resource: Values, condition: Condition, others: &[Statement]) -> Statement {
    let (sid, _) = sids(kind);
    let action = format!("kms:{}", kind.operation);
    let number = others.iter().filter(|other| other.action == action).count() + 1;
    Statement::allow(numbered(sid, number), &action, resource, condition)
}

/// Whether both allow the same of one key.
fn has_same_effect(one: &Statement, other: &Statement) -> bool {
    (&one.principal, &one.action, &one.condition) == (&other.principal, &other.action, &other.condition)
}

/// Adds what an entry of `allow` needs: the keys by their ARNs, and those of aliases by the aliases.
fn grant(grants: &mut Vec<Grant>, kind: &'static Kind, keys: &[KmsKey], condition: &Condition) {
    let mut aliases = BTreeMap::<String, BTreeSet<&str>>::new();
    for key in keys {
        aliases.entry(key.arn()).or_default().extend(key.alias());
    }
    // Accounts and Regions with the same aliases share a statement.
    let mut resources = BTreeMap::<BTreeSet<&str>, Vec<String>>::new();
    for (arn, aliases) in aliases {
        resources.entry(aliases).or_default().push(arn);
    }
    for (aliases, resources) in resources {
        let condition = condition.clone().and(of_aliases(&aliases));
        match grants.iter_mut().find(|grant| grant.kind == kind && grant.condition == condition) {
            Some(grant) => grant
                .resources
                .extend(resources.into_iter().filter(|arn| !grant.resources.contains(arn)).collect::<Vec<_>>()),
            None => grants.push(Grant { kind, resources, condition }),
        }
    }
}

/// Returns the condition that a request names the KMS key by one of these aliases: the class allows these names alone.
fn of_aliases(aliases: &BTreeSet<&str>) -> Condition {
    if aliases.is_empty() {
        return Condition::default();
    }
    let names = aliases.iter().map(|alias| (*alias).to_owned());
    Condition::default().with(matching(names.clone()), "kms:RequestAlias", names.collect::<Values>())
}

/// Returns the operator for these texts, some of which can end in `*`.
fn matching(mut texts: impl Iterator<Item = String>) -> &'static str {
    if texts.any(|text| text.ends_with('*')) { "StringLike" } else { "StringEquals" }
}

/// Whether an entry of `allow` allows anything of a kind.
fn allows(entry: &ClassLimits, kind: KindId) -> bool {
    match kind {
        KindId::DataKey => {
            entry.number_of_bytes.is_some() || entry.key_specs.as_ref().is_none_or(|specs| !specs.is_empty())
        }
        KindId::DataKeyPair => entry.key_pair_specs.as_ref().is_none_or(|specs| !specs.is_empty()),
    }
}

/// Returns the condition on the kind of a key pair. KMS has none on the length of a data key.
fn of_kind(entry: &ClassLimits, kind: KindId) -> Condition {
    match (kind, &entry.key_pair_specs) {
        (KindId::DataKeyPair, Some(specs)) => {
            let names: Values = specs.iter().map(|spec| spec.as_str().to_owned()).collect();
            Condition::default().with("StringEquals", PAIR_SPEC, names)
        }
        _ => Condition::default(),
    }
}

/// Returns the condition on the encryption context that the class demands.
fn of_context(spec: &DataKeyClassSpec, namespaces: &Namespaces<'_>) -> Condition {
    let Some(ClassContext { pairs, others, .. }) = &spec.encryption_context else { return Condition::default() };
    let has_no_other = others.unwrap_or_default() == Others::Deny;
    if has_no_other && pairs.is_empty() {
        return Condition::without_context();
    }
    let mut condition = Condition::default();
    for pair in pairs {
        let key = context_key(&pair.key);
        condition = match (&pair.value, pair.value_from) {
            (Some(value), _) => condition.with("StringEquals", key, escape_policy_variables(value)),
            (None, Some(ValueFrom::Namespace)) => namespaces.limit(condition, key),
            (None, Some(ValueFrom::Name) | None) => condition.with("Null", key, "false"),
        };
    }
    if has_no_other {
        let keys: Values = pairs.iter().map(|pair| escape_policy_variables(&pair.key)).collect();
        condition = condition.with("ForAllValues:StringEquals", "kms:EncryptionContextKeys", keys);
    }
    condition
}

/// Returns what the user must know or fill in.
fn notes(class: &Class, roles: &Roles<'_>, tag: Option<&str>, keys: &BTreeSet<&KmsKey>) -> Vec<String> {
    let (name, spec) = (class.name(), class.spec());
    let mut notes = Vec::new();
    let mut note = |text: String| notes.push(format!("note: {text}"));
    if spec.aws.is_none() {
        note(format!(
            "the class {name} has no spec.aws, so the operator calls AWS KMS as itself: role is the IAM policy of the operator's own role, \
             and there is no assumeRole and no trust"
        ));
    }
    if (spec.aws.is_some() && roles.operator.is_none()) || keys.iter().any(|key| !key.has_account()) {
        note(format!("fill in {ACCOUNT}, the AWS account of the operator's role"));
    }
    if keys.iter().any(|key| key.is_alias()) {
        note(
            "some KMS keys are known by an alias only: a user who may change aliases decides which keys the policies allow. Name the ARNs \
             of the keys in keyArns of spec.allow"
                .to_owned(),
        );
    }
    if keys.iter().any(|key| key.is_everywhere()) {
        note("the class allows any Region: limit it by regions of spec.allow".to_owned());
    }
    let pairs = || spec.encryption_context.iter().flat_map(|context| &context.pairs);
    if !pairs().any(|pair| pair.value_from == Some(ValueFrom::Namespace)) {
        note(
            "the class demands no pair of the encryption context with the namespace, so the policies do not distinguish namespaces: add one \
             with valueFrom: Namespace"
                .to_owned(),
        );
    } else if spec.aws.is_some() && tag.is_none() {
        note(
            "no tag of the session has the namespace, so a session for one namespace may have the encryption context of another: add one \
             with valueFrom: Namespace to spec.aws.sessionTags"
                .to_owned(),
        );
    }
    if spec.aws.is_some() {
        note(
            "an operator under EKS Pod Identity passes the tags of its own session on, which needs sts:TagSession and uses up most of the \
             space for tags: turn them off (disableSessionTags of the association)"
                .to_owned(),
        );
    }
    note(
        "the key policy lets the workload unwrap what is of any namespace of the class: kubectl datakey policy NAME prints the \
         policies for one DataKey"
            .to_owned(),
    );
    notes.push(EITHER_OR_BOTH.to_owned());
    notes
}

// === impl Home ===

impl<'a> Home<'a> {
    /// Returns the account of the role that calls KMS.
    fn of(role: Option<&'a str>) -> Self {
        match role.and_then(RoleArn::parse) {
            Some(RoleArn { partition, account }) => Self { partition: Some(partition), account },
            None => Self { partition: None, account: ACCOUNT },
        }
    }

    /// Returns the keys and aliases of `keyIds`.
    fn named(&self, entry: &ClassLimits) -> Vec<KmsKey> {
        let regions = entry.regions.as_ref().map(|regions| regions.iter().map(String::as_str).collect());
        let regions: Vec<_> = regions.unwrap_or_else(|| vec![ANY_REGION]);
        let named = entry.key_ids.iter();
        named.flat_map(|key_id| KmsKey::from_class(key_id, self.partition, self.account, &regions)).collect()
    }

    /// Returns the keys that KMS can be asked for. `keyArns` can also have those of earlier versions.
    fn issuing(&self, entry: &ClassLimits) -> Vec<KmsKey> {
        match &entry.key_arns {
            None => self.named(entry),
            Some(arns) => {
                arns.iter().filter(|arn| self.can_answer(entry, arn)).filter_map(|arn| KmsKey::from_arn(arn)).collect()
            }
        }
    }

    /// Whether KMS can answer with this key where an object names one of `keyIds`.
    fn can_answer(&self, entry: &ClassLimits, arn: &str) -> bool {
        let Some(KmsArn { region, account, .. }) = KmsArn::parse(arn) else { return false };
        let is_at_home = self.account == ACCOUNT || self.account == account;
        let asks = |key_id: &String| arn::may_answer(&arn::example_of(key_id), region, arn);
        entry.key_ids.iter().filter(|key_id| is_at_home || key_id.starts_with("arn:")).any(asks)
    }

    /// Returns the keys that wrapped what the class allows to be recorded.
    fn unwrapping(&self, entry: &ClassLimits) -> Vec<KmsKey> {
        match &entry.key_arns {
            None => self.named(entry),
            Some(arns) => arns.iter().filter_map(|arn| KmsKey::from_arn(arn)).collect(),
        }
    }
}

// === impl Namespaces ===

impl Namespaces<'_> {
    /// Returns the condition that a key of the request also has the namespace.
    pub(super) fn limit(&self, condition: Condition, key: String) -> Condition {
        match self {
            Self::OfTheSession(tag) => condition.with("StringEquals", key, format!("${{aws:PrincipalTag/{tag}}}")),
            Self::OfTheClass(names) if names.iter().any(|name| name == "*") => condition.with("Null", key, "false"),
            Self::OfTheClass(names) => {
                let names = names.iter().cloned();
                condition.with(matching(names.clone()), key, names.collect::<Values>())
            }
        }
    }
}

#[cfg(test)]
mod tests;
