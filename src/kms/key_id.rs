//! The forms of a KMS key identifier (AWS KMS API reference, `GenerateDataKeyWithoutPlaintext`, `KeyId`). Pure.

/// A parsed ARN of a KMS key or alias: `arn:PARTITION:kms:REGION:ACCOUNT:RESOURCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KmsArn<'a> {
    /// The Region of the key.
    pub region: &'a str,
    /// The AWS account that owns it, 12 digits.
    pub account: &'a str,
    /// `key/KEY-ID` or `alias/NAME`.
    pub resource: &'a str,
}

/// The Region to call for a key: the ARN's, else the one asked for, else the operator's own.
pub fn region<'a>(key_id: &'a str, asked: Option<&'a str>, own: Option<&'a str>) -> Option<&'a str> {
    KmsArn::parse(key_id).map(|arn| arn.region).or(asked).or(own)
}

/// Whether an ARN that KMS answered can be the key that was asked for. An alias may point anywhere, but not into
/// another account or Region.
pub fn answers(key_id: &str, region: &str, arn: &str) -> bool {
    let Some(answer) = KmsArn::parse(arn).filter(|answer| answer.resource.starts_with("key/")) else {
        return false;
    };
    match KmsArn::parse(key_id) {
        Some(asked) if asked.resource.starts_with("key/") => asked == answer,
        Some(asked) => (asked.region, asked.account) == (answer.region, answer.account),
        None if key_id.starts_with("alias/") => answer.region == region,
        None => answer.region == region && answer.resource.strip_prefix("key/") == Some(key_id),
    }
}

/// The same multi-Region key in another Region: primary and replicas differ in nothing but the Region of their ARN, and
/// each decrypts what another one encrypted (AWS KMS Developer Guide, "Multi-Region keys in AWS KMS"). `None` for a
/// key that is in one Region only.
pub fn in_region(arn: &str, region: &str) -> Option<String> {
    let KmsArn { account, resource, .. } = KmsArn::parse(arn)?;
    let partition = arn.split(':').nth(1)?;
    resource.starts_with("key/mrk-").then(|| format!("arn:{partition}:kms:{region}:{account}:{resource}"))
}

/// Whether what the one key encrypted the other one decrypts.
pub fn is_same_key(one: &str, other: &str) -> bool {
    let there = || in_region(one, KmsArn::parse(other)?.region);
    one == other || there().as_deref() == Some(other)
}

// === impl KmsArn ===

impl<'a> KmsArn<'a> {
    /// Parses an ARN of a KMS key or alias; `None` for anything else.
    pub fn parse(arn: &'a str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next();
        let (prefix, partition, service, region, account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let whole = prefix == "arn"
            && partition.starts_with("aws")
            && service == "kms"
            && !region.is_empty()
            && account.len() == 12
            && account.bytes().all(|digit| digit.is_ascii_digit())
            && ["key/", "alias/"].iter().any(|kind| resource.strip_prefix(kind).is_some_and(|id| !id.is_empty()));
        whole.then_some(Self { region, account, resource })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ALIAS: &str = "arn:aws-cn:kms:cn-north-1:111122223333:alias/orders";

    #[test]
    fn an_arn_names_region_and_account() {
        let arn = KmsArn::parse(ALIAS).unwrap();
        assert_eq!((arn.region, arn.account, arn.resource), ("cn-north-1", "111122223333", "alias/orders"));
    }

    #[test]
    fn what_is_no_kms_arn_is_not_parsed() {
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
    fn the_arns_region_goes_before_the_asked_one_and_that_before_the_operators_own() {
        assert_eq!(region(KEY, None, Some("us-east-1")), Some("eu-west-1"));
        assert_eq!(region("alias/orders", Some("eu-north-1"), Some("us-east-1")), Some("eu-north-1"));
        assert_eq!(region("alias/orders", None, Some("us-east-1")), Some("us-east-1"));
        assert_eq!(region("alias/orders", None, None), None);
    }

    #[test]
    fn a_multi_region_key_is_the_same_in_every_region() {
        let key = format!("arn:aws:kms:eu-west-1:111122223333:key/mrk-{}", "0a".repeat(16));
        let replica = key.replace("eu-west-1", "us-east-1");
        assert_eq!(in_region(&key, "us-east-1"), Some(replica.clone()));
        assert_eq!(in_region(&key, "eu-west-1"), Some(key.clone()));
        assert!(is_same_key(&key, &replica) && is_same_key(&key, &key));

        assert_eq!(in_region(KEY, "us-east-1"), None, "a key of one Region");
        assert_eq!(in_region(&key.replace("key/", "alias/"), "us-east-1"), None, "an alias");
        assert!(!is_same_key(KEY, &KEY.replace("eu-west-1", "us-east-1")));
        for other in [
            key.replace("111122223333", "999999999999"),
            key.replace("0a0a", "0b0a"),
            key.replace("arn:aws:", "arn:aws-cn:"),
        ] {
            assert!(!is_same_key(&key, &other), "{other}");
        }
    }

    #[test]
    fn an_answer_must_be_the_key_that_was_asked_for() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        assert!(answers(KEY, "eu-west-1", KEY));
        assert!(answers(id, "eu-west-1", KEY));
        assert!(answers("alias/orders", "eu-west-1", KEY));
        assert!(answers("arn:aws:kms:eu-west-1:111122223333:alias/orders", "eu-west-1", KEY));

        assert!(!answers(&KEY.replace("1234abcd", "99999999"), "eu-west-1", KEY), "another key");
        assert!(!answers("99999999-12ab-34cd-56ef-1234567890ab", "eu-west-1", KEY), "another key ID");
        assert!(!answers("alias/orders", "us-east-1", KEY), "another Region");
        assert!(!answers("arn:aws:kms:eu-west-1:999999999999:alias/orders", "eu-west-1", KEY), "another account");
        assert!(!answers("alias/orders", "eu-west-1", "alias/orders"), "no ARN");
        assert!(!answers("alias/orders", "eu-west-1", "arn:aws:kms:eu-west-1:111122223333:alias/orders"), "no key");
    }
}
