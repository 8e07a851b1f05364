//! `kubectl datakey retry`: has `DataKey`s that wait in a back-off tried at once.

use std::{collections::BTreeSet, sync::Mutex};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{CONCURRENT_READS, POLL_INTERVAL, none_found, wait::pause};
use crate::{
    cli::Retry,
    cluster::{Cluster, FetchedKey, Listing},
    output::{CommandError, Health, Output, Terminal},
    view::summary::KeySummary,
};

/// What became of the request for one `DataKey`.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The operator tries it.
    Requested,
    /// The user may not change `DataKey`s of its namespace. The message, where this request found that out.
    Forbidden(Option<String>),
    Failed(String),
}

/// Has `DataKey`s tried at once that are not Ready.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Retry) -> Result<Output, CommandError> {
    let listing = select(cluster, args).await?;
    let waiting: Vec<_> = listing.keys.iter().map(|fetched| KeySummary::of(&fetched.key)).filter(is_waiting).collect();
    let outcomes = request(cluster, &waiting, Timestamp::now()).await;
    let mut output = report(&waiting, &outcomes, args.all_namespaces);
    output.health = output.health.max(listing.health());
    if waiting.is_empty() && listing.unreadable.is_empty() {
        output.notes.push(match listing.keys.len() {
            0 => none_found(cluster, args.all_namespaces),
            all => format!("Nothing waits: {all} of {all} DataKeys are Ready or being deleted."),
        });
    }
    output.notes.extend(listing.unreadable);
    let requested = waiting.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Requested);
    let requested: BTreeSet<_> = requested.map(|(summary, _)| place(summary)).collect();
    if args.wait && !requested.is_empty() {
        terminal.print(&output)?;
        output = Output::default().with(output.health);
        terminal.notes([format!("waiting until they are Ready: {}", count(requested.len()))]);
        let late = wait(cluster, args, &requested).await?;
        if !late.is_empty() {
            output.notes.push(format!("not Ready within {}:", humantime::format_duration(args.timeout)));
            output.notes.extend(late);
            output.health = output.health.max(Health::Unhealthy);
        }
    }
    Ok(output)
}

async fn select(cluster: &Cluster, args: &Retry) -> Result<Listing, CommandError> {
    match &args.name {
        Some(name) => cluster.selected(Some(name), false).await,
        None => cluster.selected_by(args.selector.as_deref(), args.all_namespaces).await,
    }
}

/// Whether a retry can help. The operator acts on all others by itself.
fn is_waiting(summary: &KeySummary) -> bool {
    !summary.is_ready() && !summary.deleting
}

fn place(summary: &KeySummary) -> (String, String) {
    (summary.namespace.clone(), summary.name.clone())
}

fn count(number: usize) -> String {
    if number == 1 { "1 DataKey".to_owned() } else { format!("{number} DataKeys") }
}

/// Sends the requests. Where the user may not change one `DataKey` of a namespace, the others are left out.
async fn request(cluster: &Cluster, waiting: &[KeySummary], now: Timestamp) -> Vec<Outcome> {
    let forbidden: Mutex<BTreeSet<&str>> = Mutex::default();
    let is_forbidden = |namespace: &str| forbidden.lock().is_ok_and(|known| known.contains(namespace));
    let one = async |summary: &'_ KeySummary| -> Outcome {
        match cluster.request_retry(&summary.namespace, &summary.name, now).await {
            Ok(()) => Outcome::Requested,
            Err(CommandError::Forbidden(message)) => Outcome::Forbidden(Some(message)),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    };
    stream::iter(waiting)
        .map(async |summary| {
            if is_forbidden(&summary.namespace) {
                return Outcome::Forbidden(None);
            }
            let outcome = one(summary).await;
            if matches!(outcome, Outcome::Forbidden(_))
                && let Ok(mut known) = forbidden.lock()
            {
                known.insert(&summary.namespace);
            }
            outcome
        })
        .buffered(CONCURRENT_READS)
        .collect()
        .await
}

/// Says what was requested. A missing right has one line, however many `DataKey`s it concerns.
fn report(waiting: &[KeySummary], outcomes: &[Outcome], with_namespace: bool) -> Output {
    let mut output = Output::default();
    let (mut left, mut namespaces, mut refusal) = (0, BTreeSet::new(), None);
    for (summary, outcome) in waiting.iter().zip(outcomes) {
        match outcome {
            Outcome::Requested => output.out.extend(line(summary, "a retry is requested", with_namespace).bytes()),
            Outcome::Failed(message) => output.notes.push(message.clone()),
            Outcome::Forbidden(message) => {
                left += 1;
                namespaces.insert(summary.namespace.as_str());
                refusal = refusal.or(message.as_deref());
            }
        }
    }
    if let Some(refusal) = refusal {
        let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        output.notes.push(format!("no retry is requested for {} in {namespaces}: {refusal}", count(left)));
    }
    if outcomes.iter().any(|outcome| *outcome != Outcome::Requested) {
        output.health = Health::Unknown;
    }
    output
}

fn line(summary: &KeySummary, what: &str, with_namespace: bool) -> String {
    let namespace = if with_namespace { format!("{}/", summary.namespace) } else { String::new() };
    format!("{namespace}{}: {what} ({})\n", summary.name, summary.reason)
}

/// Waits until these `DataKey`s are Ready. Returns a line for each one that is not. A condition does not show whether the operator
/// has tried again, so a failure does not end the wait.
async fn wait(
    cluster: &Cluster,
    args: &Retry,
    requested: &BTreeSet<(String, String)>,
) -> Result<Vec<String>, CommandError> {
    let until = Instant::now() + args.timeout;
    loop {
        let listing = select(cluster, args).await?;
        let late = late(&listing.keys, requested);
        if late.is_empty() || Instant::now() + POLL_INTERVAL > until {
            return Ok(late);
        }
        sleep(pause(requested.len())).await;
    }
}

fn late(keys: &[FetchedKey], requested: &BTreeSet<(String, String)>) -> Vec<String> {
    let summaries = keys.iter().map(|fetched| KeySummary::of(&fetched.key));
    let late = summaries.filter(|summary| requested.contains(&place(summary)) && is_waiting(summary));
    late.map(|summary| {
        format!("{} in namespace {}: {}: {}", summary.name, summary.namespace, summary.reason, summary.message)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use datakey::{condition::failed, reason::Reason};
    use serde_json::json;

    use super::*;
    use crate::fixtures::{at, edited, ready, recorded, with_status};

    fn denied(name: &str) -> FetchedKey {
        let fetched = with_status(recorded(&[]), |key| failed(key, &Reason::AccessDenied.into(), at(9)));
        edited(fetched, |value| value["metadata"]["name"] = json!(name))
    }

    #[test]
    fn only_what_is_not_ready_is_tried() {
        let deleted =
            edited(denied("a"), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        let waits = |fetched: &FetchedKey| is_waiting(&KeySummary::of(&fetched.key));
        assert_eq!(
            [denied("a"), recorded(&[]), ready(&[1]), deleted].iter().map(waits).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }

    #[test]
    fn missing_right_has_one_line_for_all_data_keys() {
        let waiting = ["a", "b", "c"].map(|name| KeySummary::of(&denied(name).key));
        let outcomes =
            [Outcome::Requested, Outcome::Forbidden(Some("you may not".to_owned())), Outcome::Forbidden(None)];
        let output = report(&waiting, &outcomes, true);
        assert_eq!(String::from_utf8(output.out).unwrap(), "shop/a: a retry is requested (AccessDenied)\n");
        assert_eq!(output.notes, ["no retry is requested for 2 DataKeys in shop: you may not"]);
        assert_eq!(output.health, Health::Unknown);
        assert_eq!(report(&waiting[..1], &outcomes[..1], false).health, Health::Healthy);
    }

    #[test]
    fn wait_is_for_what_was_requested_only() {
        let keys = [denied("a"), denied("b"), ready(&[1])];
        let requested = ["a", "orders", "gone"].map(|name| ("shop".to_owned(), name.to_owned())).into();
        let late = late(&keys, &requested);
        assert_eq!(late.len(), 1);
        assert!(late[0].starts_with("a in namespace shop: AccessDenied: "), "{late:?}");
    }

    #[test]
    fn retry_is_printed_as_recorded() {
        let waiting = ["a", "b"].map(|name| KeySummary::of(&denied(name).key));
        let output = report(&waiting, &[Outcome::Requested, Outcome::Requested], true);
        insta::assert_snapshot!("retry", String::from_utf8(output.out).unwrap());
    }
}
