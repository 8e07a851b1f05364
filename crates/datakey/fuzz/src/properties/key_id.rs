//! Key identifiers mean the same to all who parse them.

use datakey::arn::{self, KmsArn};

use super::Reached;

/// Three lines: a key ID as in the spec, a Region, and the ARN that KMS answered.
pub fn key_id(data: &[u8]) -> Reached {
    let Ok(text) = std::str::from_utf8(data) else {
        return Reached::Nothing;
    };
    let mut lines = text.splitn(3, '\n').chain(std::iter::repeat(""));
    let mut next = || lines.next().unwrap();
    let (id, asked, arn) = (next(), next(), next().trim_end_matches('\n'));

    for text in [id, arn] {
        if let Some(KmsArn { partition, region, account, resource }) = KmsArn::parse(text) {
            assert_eq!(format!("arn:{partition}:kms:{region}:{account}:{resource}"), text);
            assert!(account.len() == 12 && account.parse::<u64>().is_ok() && arn::is_region(region));
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
            assert_eq!(arn::resolve_region(text, Some(asked), None), Some(region), "an ARN names its Region itself");
            assert_eq!(arn::may_answer(text, asked, text), resource.starts_with("key/"), "a key answers for itself");
        }
    }
    if KmsArn::parse(id).is_none() {
        assert_eq!(arn::resolve_region(id, Some(asked), Some("own")), Some(asked));
        let made = format!("arn:aws:kms:{asked}:111122223333:key/{id}");
        let possible = arn::is_region(asked) && arn::is_key_id(id);
        assert_eq!(arn::may_answer(id, asked, &made), possible, "{made}");
    }
    let answers = arn::may_answer(id, asked, arn);
    if answers {
        let answer = KmsArn::parse(arn).expect("an ARN");
        assert!(answer.resource.len() > "key/".len() && answer.resource.starts_with("key/"), "a key's");
        if let Some(named) = KmsArn::parse(id) {
            assert_eq!((named.region, named.account), (answer.region, answer.account));
            assert!(named.resource == answer.resource || named.resource.starts_with("alias/"));
        } else {
            assert_eq!(answer.region, asked);
            assert!(id.starts_with("alias/") || answer.resource == format!("key/{id}"));
        }
    }
    if answers { Reached::All } else { Reached::Checks }
}
