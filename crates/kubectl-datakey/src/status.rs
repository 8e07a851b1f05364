//! `kubectl datakey status`.

use std::fmt::Write;

use futures::{StreamExt, stream};
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    answer::{Answer, Failure, Format, Outcome, render},
    args::Status,
    cluster::{Cluster, Object},
    comparison::Comparison,
    list::{Items, none_found},
    standing::{Happening, Standing},
    text::{age, indented, printable, table},
};

/// How many Secrets are looked at at the same time.
pub const AT_ONCE: usize = 8;

/// How many events are shown.
const EVENTS: usize = 5;

/// Tells how `DataKey`s stand.
pub async fn run(cluster: &Cluster, args: &Status) -> Result<Answer, Failure> {
    let now = Timestamp::now();
    let found = cluster.selected(args.name.as_deref(), args.all_namespaces).await?;
    let mut standings: Vec<_> = stream::iter(&found.objects)
        .map(async |object| Standing::of(&object.key).with_secret(compared(cluster, object).await))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let wanting = if standings.iter().any(Standing::is_wanting) { Outcome::Wanting } else { Outcome::Fine };
    let outcome = wanting.max(found.outcome());
    let mut notes = found.odd;
    let out = if args.name.is_some() {
        let (Some(object), Some(mut standing)) = (found.objects.first(), standings.pop()) else {
            return Ok(Answer::default());
        };
        match cluster.events(object).await {
            Ok(events) => standing.events = latest(events),
            // All else is known without them.
            Err(failure) => notes.push(failure.to_string()),
        }
        render(args.output, &standing, |standing| drawn(standing, now))?
    } else {
        if args.output == Format::Table {
            notes.push(summary(&standings, &none_found(cluster, args.all_namespaces)));
        }
        render(args.output, &Items { items: standings }, |list| {
            let wanting = list.items.iter().filter(|standing| standing.is_wanting());
            wanting.map(|standing| drawn(standing, now)).collect::<Vec<_>>().join("\n")
        })?
    };
    Ok(Answer { notes, ..Answer::text(out).with(outcome) })
}

/// Looks at a Secret by its metadata, and reads it only where they can't tell.
async fn compared(cluster: &Cluster, Object { key, .. }: &Object) -> Comparison {
    let (namespace, name) = (key.metadata.namespace.as_deref().unwrap_or_default(), key.secret_name());
    if key.record().is_empty() {
        return Comparison::whole(key, None);
    }
    match cluster.look_at_secret(namespace, name).await {
        Err(failure) => return Comparison::unknown(key, &failure.to_string()),
        Ok(facts) => {
            if let Some(known) = Comparison::by_metadata(key, facts.as_ref()) {
                return known;
            }
        }
    }
    match cluster.read_secret(namespace, name).await {
        Ok(secret) => Comparison::whole(key, secret.as_ref()),
        Err(failure) => Comparison::unknown(key, &failure.to_string()),
    }
}

fn summary(standings: &[Standing], none: &str) -> String {
    let wanting = standings.iter().filter(|standing| standing.is_wanting()).count();
    match (standings.len(), wanting) {
        (0, _) => none.to_owned(),
        (all, 0) => format!("All is well: {all} of {all} DataKeys are Ready."),
        (all, wanting) => format!("{wanting} of {all} DataKeys are not as they should be."),
    }
}

/// The last events, the last one last.
fn latest(events: Vec<Event>) -> Vec<Happening> {
    let mut all: Vec<_> = events.into_iter().map(happening).collect();
    all.sort_by_key(|happening| happening.at.as_ref().map(|at| at.0));
    all.split_off(all.len().saturating_sub(EVENTS))
}

/// An event's time stands in one of several fields, after who wrote it.
fn happening(event: Event) -> Happening {
    let series = event.series.and_then(|series| series.last_observed_time).map(|time| Time(time.0));
    let once = event.event_time.map(|time| Time(time.0));
    let at = series.or(event.last_timestamp).or(once).or(event.first_timestamp);
    Happening {
        at,
        type_: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        note: event.message.unwrap_or_default(),
    }
}

fn drawn(standing: &Standing, now: Timestamp) -> String {
    let since = standing.since.as_ref().map(|since| format!(", for {}", age(since.0, now))).unwrap_or_default();
    let state = if standing.is_ready() { "Ready" } else { "not Ready" };
    let deleting = if standing.deleting { ", being deleted" } else { "" };
    let mut out = format!(
        "{} in namespace {}: {state} ({}){since}{deleting}\n",
        standing.name,
        standing.namespace,
        printable(&standing.reason)
    );
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<9} {}", printable(text));
    };
    line("Why", &standing.message);
    if standing.stalled {
        line("Stalled", "a person must act");
    }
    for advice in &standing.advice {
        line("Next", advice);
    }
    line("Key", &standing.key_id);
    line("Secret", &standing.secret.as_ref().map(Comparison::line).unwrap_or_default());
    for difference in standing.secret.iter().flat_map(|secret| &secret.differences) {
        line("", difference);
    }
    line("Version", &version_line(standing));
    if !standing.versions.is_empty() {
        let headers = ["VERSION", "CURRENT", "ISSUED", "LENGTH", "KEY", "CONTEXT", "REQUEST"];
        let rows: Vec<_> = standing
            .versions
            .iter()
            .map(|version| {
                vec![
                    version.version.to_string(),
                    if version.current { "yes" } else { "no" }.to_owned(),
                    version.issued_at.0.to_string(),
                    version.length(),
                    version.key_id.clone(),
                    pairs(&version.encryption_context),
                    version.request_id.clone().unwrap_or_default(),
                ]
            })
            .collect();
        out += "  Versions:\n";
        out += &indented(&table(&headers, &rows), 4);
    }
    if !standing.events.is_empty() {
        let rows: Vec<_> = standing
            .events
            .iter()
            .map(|event| {
                let at = event.at.as_ref().map(|at| age(at.0, now)).unwrap_or_default();
                vec![at, event.type_.clone(), event.reason.clone(), event.note.clone()]
            })
            .collect();
        out += "  Events:\n";
        out += &indented(&table(&["AGE", "TYPE", "REASON", "NOTE"], &rows), 4);
    }
    out
}

fn version_line(standing: &Standing) -> String {
    let wanted = standing.wanted_version;
    match standing.version {
        Some(current) if current == wanted => format!("{current} is current, as spec.version wants it"),
        Some(current) => format!("{current} is current; spec.version wants {wanted}"),
        None => format!("none is current yet; spec.version wants {wanted}"),
    }
}

fn pairs(context: &datakey::api::EncryptionContext) -> String {
    context.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use datakey::status::{Reason, failed};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::fixtures::{at, ready, recorded, secret, with_status};

    #[test]
    fn a_failure_reads_in_plain_words() {
        let object = with_status(recorded(&[]), |key| failed(key, &Reason::KeyDisabled.into(), at(0)));
        let standing = Standing::of(&object.key).with_secret(Comparison::whole(&object.key, None));
        let text = drawn(&standing, at(150));
        assert_eq!(
            text,
            "orders in namespace shop: not Ready (KeyDisabled), for 2m30s\n  \
             Why       the KMS key is disabled: enable it, or name another key in spec.keyId\n  \
             Stalled   a person must act\n  \
             Next      a change of the DataKey is acted on at once; other changes within minutes\n  \
             Key       alias/orders\n  \
             Secret    orders: nothing is issued yet that it could hold\n  \
             Version   none is current yet; spec.version wants 1\n"
        );
    }

    #[test]
    fn every_version_has_a_line_and_the_current_one_is_marked() {
        let key = ready(&[1, 2]).key;
        let standing = Standing::of(&key).with_secret(Comparison::whole(&key, Some(&secret(&key, 2))));
        let text = drawn(&standing, at(90));
        let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.iter().any(|row| row.starts_with(&["1", "no"]) && row.contains(&"purpose=orders")), "{text}");
        assert!(rows.iter().any(|row| row.starts_with(&["2", "yes"]) && row.ends_with(&["request-2"])), "{text}");
    }

    #[test]
    fn the_last_events_are_shown_whoever_wrote_them() {
        let once = |second| Event { event_time: Some(MicroTime(at(second))), ..Event::default() };
        let often = |second| Event { last_timestamp: Some(Time(at(second))), ..Event::default() };
        let shown = latest(vec![often(6), once(1), once(2), often(5), once(4), once(3), Event::default()]);
        let times: Vec<_> = shown.iter().map(|shown| shown.at.as_ref().map(|at| at.0)).collect();
        assert_eq!(times, [2, 3, 4, 5, 6].map(|second| Some(at(second))));
    }

    #[test]
    fn the_summary_counts_what_is_not_as_it_should_be() {
        let standings = [Standing::of(&ready(&[1]).key), Standing::of(&recorded(&[]).key)];
        assert_eq!(summary(&standings, ""), "1 of 2 DataKeys are not as they should be.");
        assert_eq!(summary(&standings[..1], ""), "All is well: 1 of 1 DataKeys are Ready.");
        assert_eq!(summary(&[], "none"), "none");
    }
}
