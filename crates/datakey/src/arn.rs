//! The forms of a KMS key identifier (AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`, `KeyId`). Pure.

use std::borrow::Cow;

/// A parsed ARN of a KMS key or alias: `arn:PARTITION:kms:REGION:ACCOUNT:RESOURCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KmsArn<'a> {
    /// The partition of AWS, for example `aws` or `aws-cn`.
    pub partition: &'a str,
    /// The Region of the key.
    pub region: &'a str,
    /// The AWS account that owns it, 12 digits.
    pub account: &'a str,
    /// `key/KEY-ID` or `alias/NAME`.
    pub resource: &'a str,
}

/// The Region to call for a key: that of the ARN, else the requested one, else the operator's own.
pub fn resolve_region<'a>(key_id: &'a str, asked: Option<&'a str>, own: Option<&'a str>) -> Option<&'a str> {
    KmsArn::parse(key_id).map(|arn| arn.region).or(asked).or(own)
}

/// Whether a text is the ID of an AWS account: 12 digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// Whether an ARN that KMS answered can be that of the requested key. An alias may name any key of its account and Region.
pub fn may_answer(key_id: &str, region: &str, arn: &str) -> bool {
    let Some(answer) = KmsArn::parse(arn).filter(KmsArn::is_key) else {
        return false;
    };
    match KmsArn::parse(key_id) {
        Some(asked) if asked.is_key() => asked == answer,
        Some(asked) => (asked.region, asked.account) == (answer.region, answer.account),
        None if key_id.starts_with("alias/") => answer.region == region,
        None => answer.region == region && answer.resource.strip_prefix("key/") == Some(key_id),
    }
}

/// The ARN of the same multi-Region key in another Region. The ARNs of primary and replicas differ only in the Region, and
/// each of these keys decrypts what another one encrypted (AWS KMS Developer Guide, "Multi-Region keys in AWS KMS"). `None`
/// for a key of one Region, and for a Region of an unknown form.
pub fn replica_in(arn: &str, region: &str) -> Option<String> {
    let KmsArn { partition, account, resource, .. } = KmsArn::parse(arn)?;
    (is_region(region) && resource.starts_with("key/mrk-"))
        .then(|| format!("arn:{partition}:kms:{region}:{account}:{resource}"))
}

/// Whether one key decrypts what the other one encrypted: they are the same, or replicas of one multi-Region key.
pub fn decrypts_for(one: &str, other: &str) -> bool {
    let there = || replica_in(one, KmsArn::parse(other)?.region);
    one == other || there().as_deref() == Some(other)
}

/// The ARN by which the KMS key `arn` is used in the Region of `other`: itself, or its replica there, where both are in one partition.
/// An operation on two KMS keys, such as `ReEncrypt`, uses both in the Region that is called (AWS KMS API reference). `None` if there
/// is none.
pub fn in_region_of(arn: &str, other: &str) -> Option<String> {
    let (one, other) = (KmsArn::parse(arn)?, KmsArn::parse(other)?);
    let there = || if one.region == other.region { Some(arn.to_owned()) } else { replica_in(arn, other.region) };
    (one.partition == other.partition).then(there).flatten()
}

/// Whether this is the ID of a KMS key: a UUID, or `mrk-` and 32 hexadecimal digits for a multi-Region key.
pub fn is_key_id(text: &str) -> bool {
    let hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if let Some(digits) = text.strip_prefix("mrk-") {
        return hex(digits, 32);
    }
    let mut lengths = [8, 4, 4, 4, 12].into_iter();
    text.split('-').all(|part| lengths.next().is_some_and(|length| hex(part, length))) && lengths.next().is_none()
}

/// Whether this is the name of an alias, `alias/NAME`.
pub fn is_alias(text: &str) -> bool {
    let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
    text.strip_prefix("alias/").is_some_and(|name| (1..=250).contains(&name.len()) && name.bytes().all(taken))
}

/// Whether this has one of the four forms that KMS accepts as `KeyId`.
pub fn has_known_form(key_id: &str) -> bool {
    is_key_id(key_id) || is_alias(key_id) || KmsArn::parse(key_id).is_some()
}

/// A key ID that an entry of `keyIds` of a class matches: where it is a pattern of aliases, with a letter in place of its `*`.
pub fn example_of(pattern: &str) -> Cow<'_, str> {
    match pattern.strip_suffix('*') {
        Some(beginning) => Cow::Owned(format!("{beginning}a")),
        None => Cow::Borrowed(pattern),
    }
}

/// Whether this is an alias of a key that AWS manages for its services.
pub fn is_aws_managed(key_id: &str) -> bool {
    let resource = KmsArn::parse(key_id).map_or(key_id, |arn| arn.resource);
    resource.starts_with("alias/aws/")
}

/// Whether this has the form of the code of an AWS Region, for example `eu-west-1`.
pub fn is_region(text: &str) -> bool {
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let Some((area, number)) = text.rsplit_once('-') else {
        return false;
    };
    let mut parts = area.split('-');
    (1..=2).contains(&number.len())
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && parts.next().is_some_and(|first| first.len() >= 2 && letters(first))
        && area.contains('-')
        && parts.all(letters)
}

/// Whether the definition accepts this as `spec.region`.
pub fn is_region_field(text: &str) -> bool {
    text.len() <= 32 && is_region(text)
}

/// Whether the record accepts this as the ID of key material: KMS answers 64 hexadecimal digits.
pub fn is_key_material_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether the record accepts this as the request ID of a call: KMS answers a UUID.
pub fn is_request_id(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=._:-".contains(&byte))
}

// === impl KmsArn ===

impl<'a> KmsArn<'a> {
    /// Parses an ARN of a KMS key or alias; `None` for anything else.
    pub fn parse(arn: &'a str) -> Option<Self> {
        let Fields { partition, service, region, account, resource } = Fields::of(arn)?;
        let whole = service == "kms"
            && is_region(region)
            && is_account(account)
            && (is_alias(resource) || resource.strip_prefix("key/").is_some_and(is_key_id));
        whole.then_some(Self { partition, region, account, resource })
    }

    /// Whether this is the ARN of a key, not of an alias.
    pub fn is_key(&self) -> bool {
        self.resource.starts_with("key/")
    }
}

/// The parts of the ARN of an IAM role that decide something: `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleArn<'a> {
    /// The partition of AWS, for example `aws` or `aws-cn`.
    pub partition: &'a str,
    /// The AWS account that owns the role, 12 digits.
    pub account: &'a str,
}

// === impl RoleArn ===

impl<'a> RoleArn<'a> {
    /// Parses the ARN of a role; `None` for anything else. A path has at most 512 characters with its slashes, and a name 64 (IAM User
    /// Guide, "IAM and AWS STS quotas").
    pub fn parse(arn: &'a str) -> Option<Self> {
        let Fields { partition, service, region, account, resource } = Fields::of(arn)?;
        let path_and_name = resource.strip_prefix("role/")?;
        let (path, name) = path_and_name.rsplit_once('/').unwrap_or(("", path_and_name));
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        let whole = service == "iam"
            && region.is_empty()
            && is_account(account)
            && path.len() <= 510
            && path.bytes().all(|byte| byte.is_ascii_graphic())
            && (1..=64).contains(&name.len())
            && name.bytes().all(of_a_name);
        whole.then_some(Self { partition, account })
    }
}

/// The fields of an ARN of any service.
struct Fields<'a> {
    partition: &'a str,
    service: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Splits an ARN of a partition of AWS. The other fields are not checked.
    fn of(arn: &'a str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next();
        let (prefix, partition, service, region, account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let is_partition = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let is_of_aws = prefix == "arn" && partition.strip_prefix("aws").is_some_and(is_partition);
        is_of_aws.then_some(Self { partition, service, region, account, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_arn_has_a_partition_and_an_account() {
        for (arn, parts) in [
            ("arn:aws:iam::111122223333:role/shop", Some(("aws", "111122223333"))),
            ("arn:aws-cn:iam::111122223333:role/teams/shop/keys-1", Some(("aws-cn", "111122223333"))),
            ("arn:aws:iam::111122223333:role/", None),
            ("arn:aws:iam::111122223333:role/a b", None),
            ("arn:aws:iam::111122223333:role/a\u{e9}/b", None),
            ("arn:aws:iam::111122223333:user/shop", None),
            ("arn:aws:iam::11112222333:role/shop", None),
            ("arn:aws:iam:eu-west-1:111122223333:role/shop", None),
            ("arn:aws:sts::111122223333:role/shop", None),
            ("arn:other:iam::111122223333:role/shop", None),
            ("shop", None),
        ] {
            assert_eq!(RoleArn::parse(arn).map(|role| (role.partition, role.account)), parts, "{arn}");
        }
        let long = |length| format!("arn:aws:iam::111122223333:role/{}", "n".repeat(length));
        assert!(RoleArn::parse(&long(64)).is_some() && RoleArn::parse(&long(65)).is_none());
    }

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ALIAS: &str = "arn:aws-cn:kms:cn-north-1:111122223333:alias/orders";

    #[test]
    fn arn_is_parsed_into_region_account_and_resource() {
        let arn = KmsArn::parse(ALIAS).unwrap();
        assert_eq!((arn.region, arn.account, arn.resource), ("cn-north-1", "111122223333", "alias/orders"));
        assert_eq!(arn.partition, "aws-cn");
    }

    #[test]
    fn other_text_is_not_parsed_as_a_kms_arn() {
        let key_id = KEY.rsplit_once('/').unwrap().1;
        let changed = |from: &str, to: &str| KEY.replace(from, to);
        let changed = [
            changed(key_id, "*"),
            changed(key_id, "\u{1b}[2J"),
            changed(key_id, "\u{202e}gnp"),
            changed(key_id, "a b"),
            changed(key_id, &"x".repeat(500)),
            changed(key_id, &key_id.to_uppercase()),
            changed(key_id, "mrk-1234"),
            format!("{KEY}-0123"),
            format!("{KEY}\n"),
            changed(":aws:", ":aws1:"),
            changed(":aws:", ":\u{202e}aws:"),
            changed("eu-west-1", "europe"),
            changed("eu-west-1", "eu-west-1.attacker.example"),
            changed("key/", "alias/aws orders/"),
        ];
        for text in &changed {
            assert_eq!(KmsArn::parse(text), None, "{text:?}");
        }
        for text in [
            "",
            "alias/orders",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:s3:eu-west-1:111122223333:key/x",
            "arn:aws:kms:eu-west-1:11112222333:key/x",
            "arn:aws:kms::111122223333:key/x",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:grant/x",
            "arn:aws:kms:eu-west-1:111122223333",
        ] {
            assert_eq!(KmsArn::parse(text), None, "{text}");
        }
    }

    #[test]
    fn key_ids_aliases_and_regions_are_recognized() {
        let mrk = format!("mrk-{}", "0a".repeat(16));
        for known in [KEY, ALIAS, "1234abcd-12ab-34cd-56ef-1234567890ab", &mrk, "alias/a/B_c-1"] {
            assert!(has_known_form(known), "{known}");
        }
        for unknown in ["", "orders", "alias/", "alias/a b", "alias/\u{202e}a", "mrk-1", "1234abcd", "alias/ä"] {
            assert!(!has_known_form(unknown), "{unknown:?}");
        }
        assert!(is_aws_managed("alias/aws/s3") && is_aws_managed(&ALIAS.replace("orders", "aws/s3")));
        assert!(!is_aws_managed("alias/awsome") && !is_aws_managed(KEY));
        for region in ["eu-west-1", "us-gov-east-1", "ap-southeast-12", "us-isob-east-1", "eusc-de-east-1"] {
            assert!(is_region(region), "{region}");
        }
        for other in
            ["", "-", "europe", "eu-1", "eu-west-", "eu-west-123", "EU-west-1", "e-west-1", "eu--west-1", "eu-west-1\n"]
        {
            assert!(!is_region(other), "{other:?}");
        }
    }

    #[test]
    fn region_is_taken_from_the_arn_then_the_spec_then_the_operator() {
        assert_eq!(resolve_region(KEY, None, Some("us-east-1")), Some("eu-west-1"));
        assert_eq!(resolve_region("alias/orders", Some("eu-north-1"), Some("us-east-1")), Some("eu-north-1"));
        assert_eq!(resolve_region("alias/orders", None, Some("us-east-1")), Some("us-east-1"));
        assert_eq!(resolve_region("alias/orders", None, None), None);
    }

    #[test]
    fn multi_region_key_decrypts_in_every_region() {
        let key = format!("arn:aws:kms:eu-west-1:111122223333:key/mrk-{}", "0a".repeat(16));
        let replica = key.replace("eu-west-1", "us-east-1");
        assert_eq!(replica_in(&key, "us-east-1"), Some(replica.clone()));
        assert_eq!(replica_in(&key, "eu-west-1"), Some(key.clone()));
        assert!(decrypts_for(&key, &replica) && decrypts_for(&key, &key));

        assert_eq!(replica_in(KEY, "us-east-1"), None, "a key of one Region");
        assert_eq!(replica_in(&key.replace("key/", "alias/"), "us-east-1"), None, "an alias");
        assert!(!decrypts_for(KEY, &KEY.replace("eu-west-1", "us-east-1")));
        for other in [
            key.replace("111122223333", "999999999999"),
            key.replace("0a0a", "0b0a"),
            key.replace("arn:aws:", "arn:aws-cn:"),
        ] {
            assert!(!decrypts_for(&key, &other), "{other}");
        }
    }

    #[test]
    fn kms_key_is_used_in_the_region_of_another_one() {
        let key = format!("arn:aws:kms:eu-west-1:111122223333:key/mrk-{}", "0a".repeat(16));
        let other = KEY.replace("eu-west-1", "us-east-1");
        assert_eq!(in_region_of(KEY, &key).as_deref(), Some(KEY));
        assert_eq!(in_region_of(KEY, &other), None);
        assert_eq!(in_region_of(&key, &other), Some(key.replace("eu-west-1", "us-east-1")));
        assert_eq!(in_region_of(KEY, &KEY.replace("arn:aws:", "arn:aws-cn:")), None, "another partition");
        assert_eq!(in_region_of(KEY, "alias/orders"), None);
    }

    #[test]
    fn answer_must_be_the_requested_key() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        assert!(may_answer(KEY, "eu-west-1", KEY));
        assert!(may_answer(id, "eu-west-1", KEY));
        assert!(may_answer("alias/orders", "eu-west-1", KEY));
        assert!(may_answer("arn:aws:kms:eu-west-1:111122223333:alias/orders", "eu-west-1", KEY));

        assert!(!may_answer(&KEY.replace("1234abcd", "99999999"), "eu-west-1", KEY), "another key");
        assert!(!may_answer("99999999-12ab-34cd-56ef-1234567890ab", "eu-west-1", KEY), "another key ID");
        assert!(!may_answer("alias/orders", "us-east-1", KEY), "another Region");
        assert!(!may_answer("arn:aws:kms:eu-west-1:999999999999:alias/orders", "eu-west-1", KEY), "another account");
        assert!(!may_answer("alias/orders", "eu-west-1", "alias/orders"), "no ARN");
        assert!(!may_answer("alias/orders", "eu-west-1", "arn:aws:kms:eu-west-1:111122223333:alias/orders"), "no key");
    }
}
