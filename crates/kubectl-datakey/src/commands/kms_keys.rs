//! `kubectl datakey kms-keys`: the KMS keys that wrapped what is recorded, and those that AWS KMS does not use any more.

use std::collections::BTreeMap;

use datakey::condition::key_usable::{self, Cause, Said, Unusable};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Items,
    census::{KmsKeyCount, census},
    none_found,
};
use crate::{
    cli::KmsKeys,
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Format, Health, Output, render},
    view::table::{age, table},
};

/// A KMS key that wrapped recorded versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KmsKey {
    /// What it wrapped.
    #[serde(flatten)]
    count: KmsKeyCount,
    /// What the operator reports, if AWS KMS does not use it any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<Report>,
}

/// What the operator reports of a KMS key that AWS KMS does not use any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The error code of AWS KMS.
    code: String,
    /// When AWS KMS refused it first.
    since: Time,
}

/// Lists the KMS keys.
pub async fn run(cluster: &Cluster, args: &KmsKeys) -> Result<Output, CommandError> {
    let listing = cluster.selected_by(args.selector.as_deref(), args.all_namespaces).await?;
    let items = kms_keys(&listing.keys);
    let unusable = items.iter().filter(|key| key.unusable.is_some()).count();
    let (all, now) = (items.len(), Timestamp::now());
    let out = render(args.output, &Items { items }, |list| render_table(&list.items, now))?;
    let unread: Vec<_> =
        listing.keys.iter().filter(|fetched| is_unread(fetched)).map(|fetched| fetched.key.shown()).collect();
    let found = if unusable > 0 || !unread.is_empty() { Health::Unhealthy } else { Health::Healthy };
    let mut output = Output::text(out).with(listing.health().max(found));
    if args.output == Format::Table {
        output.notes.extend(match (all, unusable) {
            (0, _) if listing.keys.is_empty() => Some(none_found(cluster, &listing, args.all_namespaces)),
            (0, _) => Some("Nothing is issued yet.".to_owned()),
            (_, 0) => unread.is_empty().then(|| NO_REPORT.to_owned()),
            _ => Some(ADVICE.to_owned()),
        });
    }
    output.notes.extend(unread.into_iter().map(|shown| {
        format!("The condition KeyUsable of {shown} is False, and this version of the plugin cannot read which KMS key it reports: see the condition")
    }));
    output.notes.extend(listing.notes());
    Ok(output)
}

/// What it means that no KMS key is reported.
const NO_REPORT: &str = "The operator reports no KMS key that AWS KMS does not use. It asks twice a day, unless --key-check-interval says \
                         otherwise, and learns nothing of a KMS key that it may not use.";

/// What to do about a KMS key that AWS KMS does not use.
const ADVICE: &str = "AWS deletes a KMS key 7 to 30 days after that is scheduled, and with it every data key that it wrapped. Cancel the \
                      deletion and enable the KMS key; if it must go, move its data keys to another one after that (kubectl datakey \
                      rewrap).";

/// Whether an object reports something that this version cannot read, as a newer release can write it.
fn is_unread(fetched: &FetchedKey) -> bool {
    let object = fetched.key.object();
    matches!(key_usable::said(object), Some(Said::Unusable(_))) && key_usable::reported(object).is_empty()
}

/// Returns the KMS keys, with those that AWS KMS does not use first.
fn kms_keys(listed: &[FetchedKey]) -> Vec<KmsKey> {
    let mut reports = BTreeMap::<String, (Cause, Timestamp)>::new();
    let all = listed.iter().flat_map(|fetched| key_usable::reported(fetched.key.object()));
    for Unusable { key_arn, cause, since } in all {
        // The conditions of objects are written at different times, and a deleted KMS key stays deleted, so the worst cause is shown.
        let (worst, earliest) = reports.entry(key_arn).or_insert((cause, since));
        (*worst, *earliest) = ((*worst).max(cause), (*earliest).min(since));
    }
    let reports: BTreeMap<_, _> = reports
        .into_iter()
        .map(|(arn, (cause, since))| (arn, Report { code: cause.code().to_owned(), since: Time(since) }))
        .collect();
    let with_report = |count: KmsKeyCount| KmsKey { unusable: reports.get(&count.key_id).cloned(), count };
    let mut keys: Vec<_> = census(listed).into_iter().map(with_report).collect();
    keys.sort_by_key(|key| key.unusable.is_none());
    keys
}

fn render_table(items: &[KmsKey], now: Timestamp) -> String {
    if items.is_empty() {
        return String::new();
    }
    let row = |KmsKey { count, unusable }: &KmsKey| {
        let (state, since) = match unusable {
            Some(Report { code, since }) => (format!("unusable ({code})"), age(since.0, now)),
            None => ("not reported".to_owned(), String::new()),
        };
        let numbers = [count.versions, count.objects, count.namespaces].map(|number| number.to_string());
        [&[count.key_id.clone()][..], &numbers, &[state, since]].concat()
    };
    let headers = ["KMS KEY", "DATA KEYS", "OBJECTS", "NAMESPACES", "STATE", "SINCE"];
    table(&headers, &items.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use datakey::{
        api::Object,
        condition::key_usable::{Cause, Verdict, wanted},
    };
    use serde_json::json;

    use super::*;
    use crate::fixtures::{ARN, at, edited, pair_of, ready};

    /// The object with what the operator reports of its KMS keys since this time.
    fn reported(fetched: FetchedKey, cause: Cause, since: i64) -> FetchedKey {
        let object: Object<'_> = fetched.key.object();
        let status = wanted(object, |_| Some(Verdict::Unusable(cause, at(since))), at(since)).unwrap();
        edited(fetched, |value| value["status"]["conditions"] = json!(status.conditions))
    }

    fn listed() -> Vec<FetchedKey> {
        let other = edited(ready(&[1]), |value| {
            value["metadata"]["name"] = json!("payments");
            value["status"]["versions"][0]["keyId"] = json!(ARN.replace("1234abcd", "00000000"));
        });
        let elsewhere = edited(pair_of(&ready(&[1])), |value| value["metadata"]["namespace"] = json!("bank"));
        let cause = Cause::KMSInvalidStateException;
        vec![other, reported(ready(&[1, 2]), cause, 9), reported(elsewhere, cause, 5)]
    }

    #[test]
    fn kms_keys_that_are_not_used_come_first() {
        let keys = kms_keys(&listed());
        assert_eq!(keys.iter().map(|key| key.unusable.is_some()).collect::<Vec<_>>(), [true, false]);
        let KmsKey { count, unusable } = &keys[0];
        assert_eq!((&*count.key_id, count.versions, count.objects, count.namespaces), (ARN, 3, 2, 2));
        let report = unusable.as_ref().unwrap();
        assert_eq!((&*report.code, report.since.0), ("KMSInvalidStateException", at(5)), "the earliest");
    }

    #[test]
    fn worst_cause_is_shown_since_the_earliest_report() {
        let listed = [
            reported(ready(&[1]), Cause::KMSInvalidStateException, 5),
            reported(
                edited(ready(&[1]), |value| value["metadata"]["name"] = json!("payments")),
                Cause::NotFoundException,
                9,
            ),
        ];
        let report = kms_keys(&listed)[0].unusable.clone().unwrap();
        assert_eq!((&*report.code, report.since.0), ("NotFoundException", at(5)));
    }

    #[test]
    fn report_that_cannot_be_read_is_no_all_clear() {
        let readable = reported(ready(&[1]), Cause::DisabledException, 5);
        let newer = edited(reported(ready(&[1]), Cause::DisabledException, 5), |value| {
            let conditions = value["status"]["conditions"].as_array_mut().unwrap();
            let condition = conditions.iter_mut().find(|condition| condition["type"] == "KeyUsable").unwrap();
            condition["message"] = json!("as a newer release writes it");
        });
        assert!(is_unread(&newer) && !is_unread(&readable) && !is_unread(&ready(&[1])));
    }

    #[test]
    fn table_and_json_are_printed_as_recorded() {
        let keys = kms_keys(&listed());
        insta::assert_snapshot!("kms-keys", render_table(&keys, at(3605)));
        insta::assert_snapshot!("kms-keys-json", crate::output::json(&Items { items: keys }).unwrap());
        assert_eq!(render_table(&[], at(0)), "");
    }
}
