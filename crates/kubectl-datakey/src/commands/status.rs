//! `kubectl datakey status`.

use std::fmt::Write;

use datakey::api::EncryptionContext;
use futures::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{CONCURRENT_READS, Items, none_found, of_all, secrets_were, with_one_note};
use crate::{
    cli::Status,
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Format, Health, Output, printable, render},
    view::{
        secret_check::SecretCheck,
        summary::{EventSummary, KeySummary},
        table::{age, indented, table},
    },
};

/// How many events are shown.
const EVENTS: usize = 5;

/// Describes the state of one object, or of those that need attention.
pub async fn run(cluster: &Cluster, args: &Status) -> Result<Output, CommandError> {
    let now = Timestamp::now();
    let listing = cluster.selected(args.name.as_ref(), args.all_namespaces).await?;
    let looked = stream::iter(&listing.keys).map(async |fetched| check_secret(cluster, fetched).await);
    let (checks, refused) = with_one_note(&listing.keys, looked.buffered(CONCURRENT_READS).collect().await);
    let summaries = listing.keys.iter().zip(checks);
    let mut summaries: Vec<_> =
        summaries.map(|(fetched, check)| KeySummary::of(&fetched.key).with_secret(check)).collect();
    let health = summaries.iter().map(KeySummary::health).fold(listing.health(), Health::max);
    let mut notes: Vec<_> = listing.notes().chain(refused).collect();
    let out = if args.name.is_some() {
        let (Some(fetched), Some(mut summary)) = (listing.keys.first(), summaries.pop()) else {
            return Ok(Output::default());
        };
        match cluster.events(fetched).await {
            Ok(events) => summary.events = latest(events),
            // The rest of the status does not depend on the events, so a user who may not list them still sees it.
            Err(error) => notes.push(error.to_string()),
        }
        render(args.output, &summary, |summary| describe(summary, now))?
    } else {
        if args.output == Format::Table {
            notes.push(conclusion(&summaries, &listing.nouns(), &none_found(cluster, &listing, args.all_namespaces)));
        }
        render(args.output, &Items { items: summaries }, |list| {
            let shown = list.items.iter().filter(|summary| summary.needs_attention());
            shown.map(|summary| describe(summary, now)).collect::<Vec<_>>().join("\n")
        })?
    };
    Ok(Output { notes, ..Output::text(out).with(health) })
}

/// Checks a Secret by its metadata, and reads its data only if the metadata cannot decide.
async fn check_secret(cluster: &Cluster, FetchedKey { key, .. }: &FetchedKey) -> Result<SecretCheck, CommandError> {
    let (namespace, name) = (key.namespace(), key.secret_name());
    let metadata = cluster.secret_metadata(&namespace, name).await?;
    if let Some(check) = SecretCheck::from_metadata(key, metadata.as_ref()) {
        return Ok(check);
    }
    Ok(SecretCheck::from_secret(key, cluster.secret(&namespace, name).await?.as_ref()))
}

/// Counts the objects that need attention, and those whose Secret could not be read; `none` is the text for an empty list.
fn conclusion(summaries: &[KeySummary], nouns: &str, none: &str) -> String {
    let count = |health| summaries.iter().filter(|summary| summary.health() == health).count();
    let (unhealthy, unknown) = (count(Health::Unhealthy), count(Health::Unknown));
    let known = match (summaries.len(), unhealthy) {
        (0, _) => return none.to_owned(),
        (all, 0) if unknown == 0 => format!("All is well: {} Ready", of_all(all, all, nouns)),
        (all, 0) => format!("{} Ready", of_all(all, all, nouns)),
        (all, 1) => format!("{} not as it should be", of_all(1, all, nouns)),
        (all, unhealthy) => format!("{} not as they should be", of_all(unhealthy, all, nouns)),
    };
    if unknown == 0 { format!("{known}.") } else { format!("{known}, and {} not looked at.", secrets_were(unknown)) }
}

/// Returns the latest events, oldest first.
fn latest(events: Vec<Event>) -> Vec<EventSummary> {
    let mut all: Vec<_> = events.into_iter().map(event_summary).collect();
    all.sort_by_key(|event| event.at.as_ref().map(|at| at.0));
    all.split_off(all.len().saturating_sub(EVENTS))
}

/// Summarizes an event. Which field has its time depends on the client that wrote it.
fn event_summary(event: Event) -> EventSummary {
    let series = event.series.and_then(|series| series.last_observed_time).map(|time| Time(time.0));
    let once = event.event_time.map(|time| Time(time.0));
    let at = series.or(event.last_timestamp).or(once).or(event.first_timestamp);
    EventSummary {
        at,
        type_: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        note: event.message.unwrap_or_default(),
    }
}

/// Renders a summary in the form of `kubectl describe`.
fn describe(summary: &KeySummary, now: Timestamp) -> String {
    let since = summary.since.as_ref().map(|since| format!(", for {}", age(since.0, now))).unwrap_or_default();
    let state = if summary.is_ready() { "Ready" } else { "not Ready" };
    let deleting = if summary.deleting { ", being deleted" } else { "" };
    let mut out = format!(
        "{} in namespace {}: {state} ({}){since}{deleting}\n",
        summary.shown,
        summary.namespace,
        printable(&summary.reason)
    );
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<9} {}", printable(text));
    };
    line("Why", &summary.message);
    if summary.stalled {
        line("Stalled", "a user must act");
    }
    for advice in &summary.advice {
        line("Next", advice);
    }
    line("Key", &summary.key());
    if let Some(why) = &summary.key_unusable {
        line("Unusable", why);
    }
    if let Some(class) = &summary.class_name {
        line("Class", class);
    }
    let current = summary.versions.iter().find(|version| version.current);
    if let Some(sha256) = current.and_then(|version| version.public_key_sha256.as_ref()) {
        line("Public", &format!("public key with SHA-256 {sha256}"));
    }
    line("Secret", &summary.secret.as_ref().map(SecretCheck::line).unwrap_or_default());
    for difference in summary.secret.iter().flat_map(|secret| &secret.differences) {
        line("", difference);
    }
    line("Version", &version_line(summary));
    if !summary.versions.is_empty() {
        out += "  Versions:\n";
        out += &indented(&version_table(summary), 4);
    }
    if !summary.events.is_empty() {
        out += "  Events:\n";
        out += &indented(&event_table(summary, now), 4);
    }
    out
}

fn version_table(summary: &KeySummary) -> String {
    let headers = ["VERSION", "CURRENT", "ISSUED", "SPEC", "KEY", "CONTEXT", "REQUEST", "CLASS", "REWRAP OF"];
    // Most clusters have no classes, and most objects were never moved.
    let has_classes = summary.versions.iter().any(|version| version.class.is_some());
    let has_rewraps = summary.versions.iter().any(|version| version.rewrap_of.is_some());
    let is_shown = |header: &str| match header {
        "CLASS" => has_classes,
        "REWRAP OF" => has_rewraps,
        _ => true,
    };
    let shown: Vec<_> = headers.into_iter().filter(|header| is_shown(header)).collect();
    let rows: Vec<_> = summary
        .versions
        .iter()
        .map(|version| {
            let row = [
                version.version.to_string(),
                if version.current { "yes" } else { "no" }.to_owned(),
                version.issued_at.0.to_string(),
                version.material(),
                version.key_id.clone(),
                pairs(&version.encryption_context),
                version.request_id.clone().unwrap_or_default(),
                version.class.as_ref().map(|class| class.name.clone()).unwrap_or_default(),
                version.rewrap_of.map(|rewrap_of| rewrap_of.to_string()).unwrap_or_default(),
            ];
            let cells = headers.into_iter().zip(row).filter(|(header, _)| is_shown(header));
            cells.map(|(_, cell)| cell).collect()
        })
        .collect();
    table(&shown, &rows)
}

fn event_table(summary: &KeySummary, now: Timestamp) -> String {
    let rows: Vec<_> = summary
        .events
        .iter()
        .map(|event| {
            let at = event.at.as_ref().map(|at| age(at.0, now)).unwrap_or_default();
            vec![at, event.type_.clone(), event.reason.clone(), event.note.clone()]
        })
        .collect();
    table(&["AGE", "TYPE", "REASON", "NOTE"], &rows)
}

fn version_line(summary: &KeySummary) -> String {
    let wanted = summary.wanted_version;
    match summary.version {
        Some(current) if current == wanted => format!("{current} is current, as the spec wants it"),
        Some(current) => format!("{current} is current; the spec wants {wanted}"),
        None => format!("none is current yet; the spec wants {wanted}"),
    }
}

fn pairs(context: &EncryptionContext) -> String {
    context.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use datakey::{
        condition::{
            failed,
            key_usable::{Cause, Verdict, wanted},
        },
        reason::{Failure, Reason},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{at, edited, issued, pair, ready, recorded, secret, with_status};

    #[test]
    fn failure_has_its_cause_and_the_next_steps() {
        let fetched = with_status(recorded(&[]), |key| failed(key, &Reason::KeyDisabled.into(), at(0)));
        let summary = KeySummary::of(&fetched.key).with_secret(SecretCheck::from_secret(&fetched.key, None));
        let text = describe(&summary, at(150));
        assert_eq!(
            text,
            "orders in namespace shop: not Ready (KeyDisabled), for 2m30s\n  \
             Why       The KMS key is disabled. Enable it, or name another key in spec.keyId.\n  \
             Stalled   a user must act\n  \
             Next      the operator acts on a change of the spec at once, and on others within about ten minutes; to try now: \
             kubectl datakey retry orders -n shop (at most once a minute)\n  \
             Key       alias/orders\n  \
             Secret    orders: nothing is issued yet that it could hold\n  \
             Version   none is current yet; the spec wants 1\n"
        );
    }

    #[test]
    fn kms_key_that_aws_does_not_use_needs_attention() {
        let verdict = Verdict::Unusable(Cause::KMSInvalidStateException, at(30));
        let wanted = |fetched: &FetchedKey| wanted(fetched.key.object(), |_| Some(verdict), at(60)).unwrap();
        let fetched = ready(&[1]);
        let conditions = json!(wanted(&fetched).conditions);
        let fetched = edited(fetched, |value| value["status"]["conditions"] = conditions);
        let key = &fetched.key;
        let summary = KeySummary::of(key).with_secret(SecretCheck::from_secret(key, Some(&secret(key, 1))));
        assert!(summary.is_ready() && summary.needs_attention());
        let text = describe(&summary, at(90));
        assert!(text.starts_with("orders in namespace shop: Ready (Issued)"), "{text}");
        let line = format!(
            "  Unusable  AWS KMS does not use {} (KMSInvalidStateException since {})",
            issued(1).key_id,
            at(30)
        );
        assert!(text.contains(&line), "{text}");
    }

    #[test]
    fn each_version_has_a_row_and_the_current_one_is_marked() {
        let key = ready(&[1, 2]).key;
        let summary = KeySummary::of(&key).with_secret(SecretCheck::from_secret(&key, Some(&secret(&key, 2))));
        let text = describe(&summary, at(90));
        let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.iter().any(|row| row.starts_with(&["1", "no"]) && row.contains(&"purpose=orders")), "{text}");
        assert!(rows.iter().any(|row| row.starts_with(&["2", "yes"]) && row.ends_with(&["request-2"])), "{text}");
    }

    #[test]
    fn latest_events_are_found_in_each_time_field() {
        let once = |second| Event { event_time: Some(MicroTime(at(second))), ..Event::default() };
        let often = |second| Event { last_timestamp: Some(Time(at(second))), ..Event::default() };
        let shown = latest(vec![often(6), once(1), once(2), often(5), once(4), once(3), Event::default()]);
        let times: Vec<_> = shown.iter().map(|shown| shown.at.as_ref().map(|at| at.0)).collect();
        assert_eq!(times, [2, 3, 4, 5, 6].map(|second| Some(at(second))));
    }

    #[test]
    fn conclusion_counts_what_needs_attention() {
        let summaries = [KeySummary::of(&ready(&[1]).key), KeySummary::of(&recorded(&[]).key)];
        assert_eq!(conclusion(&summaries, "DataKeys", ""), "1 of 2 DataKeys is not as it should be.");
        assert_eq!(conclusion(&summaries[..1], "DataKeys", ""), "All is well: 1 of 1 DataKeys is Ready.");
        assert_eq!(conclusion(&[], "DataKeys", "none"), "none");
        let both = [KeySummary::of(&ready(&[1]).key), KeySummary::of(&pair(&[1]).key)];
        let all = "All is well: 2 of 2 DataKeys and DataKeyPairs are Ready.";
        assert_eq!(conclusion(&both, "DataKeys and DataKeyPairs", ""), all);
        let key = ready(&[1]).key;
        let unknown = [KeySummary::of(&key).with_secret(SecretCheck::unknown(&key, "no answer")), summaries[1].clone()];
        assert_eq!(
            conclusion(&unknown[..1], "DataKeys", ""),
            "1 of 1 DataKeys is Ready, and 1 Secret was not looked at."
        );
        assert_eq!(
            conclusion(&unknown, "DataKeys", ""),
            "1 of 2 DataKeys is not as it should be, and 1 Secret was not looked at."
        );
    }

    #[test]
    fn status_is_printed_as_recorded() {
        let key = ready(&[1, 2]).key;
        let good = KeySummary::of(&key).with_secret(SecretCheck::from_secret(&key, Some(&secret(&key, 2))));
        let fetched = with_status(recorded(&[]), |key| failed(key, &Reason::AccessDenied.into(), at(0)));
        let bad = KeySummary::of(&fetched.key).with_secret(SecretCheck::from_secret(&fetched.key, None));
        insta::assert_snapshot!("status-ready", describe(&good, at(90)));
        insta::assert_snapshot!("status-failed", describe(&bad, at(150)));
        let pair = pair(&[1, 2]).key;
        let pair = KeySummary::of(&pair).with_secret(SecretCheck::from_secret(&pair, Some(&secret(&pair, 2))));
        insta::assert_snapshot!("status-pair", describe(&pair, at(90)));
        let of_class = edited(ready(&[1, 2]), |value| {
            value["spec"].as_object_mut().unwrap().remove("keyId");
            value["spec"]["className"] = json!("shop");
            let class = json!({ "name": "shop", "uid": "uid-of-shop", "generation": 1 });
            value["status"]["versions"][1]["class"] = class;
            value["status"]["versions"][1]["asWritten"] =
                json!({ "keySpec": "AES_256", "encryptionContext": { "purpose": "orders" } });
        });
        let refusal = "class shop, check namespaces: the class does not admit namespace shop";
        let refusal = Failure::new(Reason::ClassRefused, refusal);
        let refused = edited(of_class.clone(), |value| value["status"] = json!({}));
        let refused = with_status(refused, |key| failed(key, &refusal, at(0)));
        let refused = KeySummary::of(&refused.key).with_secret(SecretCheck::from_secret(&refused.key, None));
        insta::assert_snapshot!("status-refused", describe(&refused, at(150)));
        let of_class = of_class.key;
        let of_class =
            KeySummary::of(&of_class).with_secret(SecretCheck::from_secret(&of_class, Some(&secret(&of_class, 2))));
        insta::assert_snapshot!("status-class", describe(&of_class, at(90)));
        insta::assert_snapshot!("status-class-json", crate::output::json(&of_class).unwrap());
        insta::assert_snapshot!("status-json", crate::output::json(&good).unwrap());
        insta::assert_snapshot!("status-yaml", crate::output::yaml(&bad).unwrap());
    }
}
