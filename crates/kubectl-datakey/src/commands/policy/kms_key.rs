//! The KMS key that a statement is about. Pure.

use datakey::arn::{self, KmsArn};

use super::document::Condition;

/// The placeholder for an AWS account that is not known before KMS issues a data key.
pub const ACCOUNT: &str = "ACCOUNT";

/// The placeholder for a Region that is not known before KMS issues a data key.
pub const REGION: &str = "REGION";

/// Every Region, in an ARN of a policy.
pub const ANY_REGION: &str = "*";

/// The placeholder for the ID of a KMS key that only a class names.
pub const KEY_ID: &str = "KEY-ID";

/// A KMS key, with placeholders for what is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KmsKey {
    partition: String,
    region: String,
    account: String,
    resource: Resource,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    /// `key/KEY-ID`.
    Key(String),
    /// `alias/NAME`. Its key is not known before KMS issues a data key.
    Alias(String),
}

// === impl KmsKey ===

impl KmsKey {
    /// Parses the ARN of a KMS key or alias; `None` for anything else.
    pub fn from_arn(arn: &str) -> Option<Self> {
        let parsed = KmsArn::parse(arn)?;
        Some(Self {
            partition: parsed.partition.to_owned(),
            region: parsed.region.to_owned(),
            account: parsed.account.to_owned(),
            resource: Resource::parse(parsed.resource),
        })
    }

    /// Returns the key that a spec asks for, before KMS has issued a data key. A spec without a key ID leaves it to a class.
    pub fn from_spec(key_id: Option<&str>, region: Option<&str>) -> Self {
        let key_id = key_id.unwrap_or(KEY_ID);
        Self::from_arn(key_id).unwrap_or_else(|| {
            let region = region.unwrap_or(REGION);
            Self {
                partition: partition_of(region).to_owned(),
                region: region.to_owned(),
                account: ACCOUNT.to_owned(),
                resource: Resource::of_id(key_id),
            }
        })
    }

    /// Returns the keys that an entry of `keyIds` of a class names, in each of these Regions if it names none. A pattern of aliases
    /// stays one.
    pub fn from_class(key_id: &str, partition: Option<&str>, account: &str, regions: &[&str]) -> Vec<Self> {
        // A pattern is no ARN, but what it matches is one.
        if let (Some(key), Some((_, resource))) = (Self::from_arn(&arn::example_of(key_id)), key_id.rsplit_once(':')) {
            return vec![Self { resource: Resource::parse(resource), ..key }];
        }
        let of_region = |region: &&str| Self {
            partition: partition.unwrap_or_else(|| partition_of(region)).to_owned(),
            region: (*region).to_owned(),
            account: account.to_owned(),
            resource: Resource::of_id(key_id),
        };
        regions.iter().map(of_region).collect()
    }

    /// Returns the resource of a statement. For an alias that is every key of the account, limited by
    /// [`alias_condition`](Self::alias_condition): with the ARN of an alias, IAM allows actions on the alias and not on
    /// its key.
    pub fn arn(&self) -> String {
        let resource = match &self.resource {
            Resource::Key(key) => key,
            Resource::Alias(_) => "key/*",
        };
        format!("arn:{}:kms:{}:{}:{resource}", self.partition, self.region, self.account)
    }

    /// Returns the ARN of the key or alias, by which the output groups the key policies.
    pub fn name(&self) -> String {
        match &self.resource {
            Resource::Key(_) => self.arn(),
            Resource::Alias(alias) => format!("arn:{}:kms:{}:{}:{alias}", self.partition, self.region, self.account),
        }
    }

    /// Returns the condition that the key has this alias; an empty one if the key itself is known.
    pub fn alias_condition(&self) -> Condition {
        match self.alias() {
            None => Condition::default(),
            Some(alias) => Condition::default().with("ForAnyValue:StringEquals", "kms:ResourceAliases", alias),
        }
    }

    /// Returns the alias, as `alias/NAME`; `None` if the key itself is known.
    pub fn alias(&self) -> Option<&str> {
        match &self.resource {
            Resource::Key(_) => None,
            Resource::Alias(alias) => Some(alias),
        }
    }

    /// Returns whether the AWS account is known.
    pub fn has_account(&self) -> bool {
        self.account != ACCOUNT
    }

    /// Returns whether the key can be in any Region.
    pub fn is_everywhere(&self) -> bool {
        self.region == ANY_REGION
    }

    /// Returns whether the Region is known.
    pub fn has_region(&self) -> bool {
        self.region != REGION
    }

    /// Returns whether the key is known, by its ID or an alias.
    pub fn is_named(&self) -> bool {
        self.resource != Resource::unnamed()
    }

    /// Returns whether only an alias of the key is known.
    pub const fn is_alias(&self) -> bool {
        matches!(self.resource, Resource::Alias(_))
    }

    /// Returns the ARN of a role in the account of the key, with a placeholder for its name.
    pub fn placeholder_role(&self, role: &str) -> String {
        format!("arn:{}:iam::{}:role/{role}", self.partition, self.account)
    }
}

// === impl Resource ===

impl Resource {
    /// That of a key that only a class names.
    fn unnamed() -> Self {
        Self::Key(format!("key/{KEY_ID}"))
    }

    /// That of a key ID or the name of an alias.
    fn of_id(key_id: &str) -> Self {
        if key_id.starts_with("alias/") { Self::Alias(key_id.to_owned()) } else { Self::Key(format!("key/{key_id}")) }
    }

    fn parse(text: &str) -> Self {
        if text.starts_with("alias/") { Self::Alias(text.to_owned()) } else { Self::Key(text.to_owned()) }
    }
}

/// Returns the partition of a Region (AWS General Reference).
fn partition_of(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("us-iso-") => "aws-iso",
        _ if region.starts_with("us-isob-") => "aws-iso-b",
        _ if region.starts_with("eu-isoe-") => "aws-iso-e",
        _ if region.starts_with("us-isof-") => "aws-iso-f",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::ARN;

    #[test]
    fn arn_of_a_key_is_kept() {
        let key = KmsKey::from_arn(ARN).unwrap();
        assert_eq!((key.arn(), key.name(), key.alias()), (ARN.to_owned(), ARN.to_owned(), None));
        assert!(key.has_account() && key.has_region() && !key.is_alias());
        assert_eq!(key, KmsKey::from_spec(Some(ARN), Some("eu-north-1")));
    }

    #[test]
    fn alias_is_a_condition_on_all_keys_of_the_account() {
        let key = KmsKey::from_spec(Some("arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/orders"), None);
        assert_eq!(key.arn(), "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/*");
        assert_eq!(key.name(), "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/orders");
        let condition = json!({ "ForAnyValue:StringEquals": { "kms:ResourceAliases": "alias/orders" } });
        assert_eq!(json!(key.alias_condition()), condition);
    }

    #[test]
    fn key_of_a_class_is_in_each_of_its_regions() {
        let names = |key_id, regions: &[&str]| -> Vec<_> {
            KmsKey::from_class(key_id, Some("aws"), "111122223333", regions).iter().map(KmsKey::name).collect()
        };
        let in_two =
            ["eu-west-1", "eu-north-1"].map(|region| format!("arn:aws:kms:{region}:111122223333:alias/shop/*"));
        assert_eq!(names("alias/shop/*", &["eu-west-1", "eu-north-1"]), in_two);
        for arn in
            [ARN, "arn:aws-cn:kms:cn-north-1:999999999999:alias/a", "arn:aws-cn:kms:cn-north-1:999999999999:alias/a*"]
        {
            assert_eq!(names(arn, &["eu-west-1"]), [arn]);
        }
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        assert_eq!(names(id, &["*"]), [format!("arn:aws:kms:*:111122223333:key/{id}")]);
        assert!(names("alias/shop", &[]).is_empty());
    }

    #[test]
    fn partition_follows_from_the_region() {
        let key = KmsKey::from_spec(Some("1234abcd-12ab-34cd-56ef-1234567890ab"), Some("cn-north-1"));
        assert_eq!(key.arn(), "arn:aws-cn:kms:cn-north-1:ACCOUNT:key/1234abcd-12ab-34cd-56ef-1234567890ab");
        assert_eq!(key.placeholder_role("ROLE"), "arn:aws-cn:iam::ACCOUNT:role/ROLE");
        assert!(!key.has_account() && key.has_region() && key.is_named());
        let unnamed = KmsKey::from_spec(None, Some("cn-north-1"));
        assert_eq!(
            (unnamed.arn().as_str(), unnamed.is_named()),
            ("arn:aws-cn:kms:cn-north-1:ACCOUNT:key/KEY-ID", false)
        );
    }
}
