//! `kubectl datakey retry`: has objects that wait in a back-off tried at once.

use std::{cell::RefCell, collections::BTreeSet};

use datakey::api::KindId;
use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{
    CONCURRENT_READS, grant_tokens, none_found, of_all,
    wait::{answered, pause},
};
use crate::{
    cli::Retry,
    cluster::{Cluster, FetchedKey, Listing},
    output::{CommandError, Health, Output, Terminal, printable},
    reference::{Reference, plural},
    view::summary::KeySummary,
};

/// The operator tries one `DataKey` at most this often because a user asks for it.
const REQUEST_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// An object that is not Ready.
#[derive(Debug)]
struct Waiting {
    fetched: FetchedKey,
    summary: KeySummary,
    /// How long ago the last retry was requested, if that delays the next one.
    last: Option<SignedDuration>,
}

/// What became of the request for one object.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The operator tries it.
    Requested,
    /// The user may not change objects of its kind in its namespace. The message, where this request found that out.
    Forbidden(Option<String>),
    Failed(String),
}

/// Has objects tried at once that are not Ready.
pub async fn run(cluster: &Cluster, terminal: &Terminal, args: &Retry) -> Result<Output, CommandError> {
    let listing = select(cluster, args).await?;
    let now = Timestamp::now();
    let waiting: Vec<_> = listing.keys.iter().filter_map(|fetched| Waiting::of(fetched, now)).collect();
    let outcomes = request(cluster, &waiting, now).await;
    let mut output = report(&waiting, &outcomes, args.all_namespaces);
    output.health = output.health.max(listing.health());
    if waiting.is_empty() && listing.unreadable.is_empty() {
        output.notes.push(match listing.keys.len() {
            0 => none_found(cluster, &listing, args.all_namespaces),
            all => format!("Nothing waits: {} Ready or being deleted.", of_all(all, all, &listing.nouns())),
        });
    }
    output.notes.extend(listing.notes());
    let requested = waiting.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Outcome::Requested);
    let requested = Requested::of(requested.map(|(waiting, _)| waiting));
    if args.wait && !requested.places.is_empty() {
        terminal.print(&output)?;
        output = Output::default().with(output.health);
        terminal.notes([format!("waiting until {} Ready", requested.subject(requested.places.len()))]);
        let Waited { ready, late, health } = wait(cluster, args, &requested.places).await?;
        output.out = requested.closing(ready).into_bytes();
        if !late.is_empty() {
            output.notes.push(format!("not Ready within {}:", humantime::format_duration(args.timeout)));
            output.notes.extend(late);
        }
        output.health = output.health.max(health);
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

/// How far the wait has come.
struct Waited {
    ready: usize,
    /// A line for each object that is not Ready.
    late: Vec<String>,
    health: Health,
}

// === impl Waiting ===

impl Waiting {
    fn of(fetched: &FetchedKey, now: Timestamp) -> Option<Self> {
        let requested = fetched.key.object().retry_at().and_then(|at| at.parse::<Timestamp>().ok());
        let last = requested.map(|at| now.duration_since(at)).filter(|ago| !ago.is_negative() && *ago < REQUEST_EVERY);
        let summary = Some(KeySummary::of(&fetched.key)).filter(is_waiting);
        summary.map(|summary| Self { fetched: fetched.clone(), summary, last })
    }
}

fn place(summary: &KeySummary) -> (String, String) {
    (summary.namespace.clone(), summary.shown.clone())
}

/// How many objects of these kinds.
fn count(kinds: &[KindId]) -> String {
    match kinds {
        [kind] => format!("1 {}", kind.kind().name),
        several => format!("{} {}", several.len(), plural(several.iter().copied())),
    }
}

/// The objects that a retry is requested for.
struct Requested {
    /// Their namespaces, and how messages name them.
    places: BTreeSet<(String, String)>,
    kinds: Vec<KindId>,
}

// === impl Requested ===

impl Requested {
    fn of<'a>(waiting: impl Iterator<Item = &'a Waiting>) -> Self {
        let (places, kinds) = waiting.map(|waiting| (place(&waiting.summary), waiting.fetched.kind().id)).unzip();
        Self { places, kinds }
    }

    /// Some of them, and their verb: the name of a single one, else how many.
    fn subject(&self, some: usize) -> String {
        match self.places.first() {
            Some((_, name)) if self.places.len() == 1 => format!("{name} is"),
            _ if some == self.places.len() => format!("{} are", count(&self.kinds)),
            _ => of_all(some, self.places.len(), &plural(self.kinds.iter().copied())),
        }
    }

    /// The last line after a wait; empty where none is Ready.
    fn closing(&self, ready: usize) -> String {
        if ready == 0 { String::new() } else { format!("{} Ready\n", self.subject(ready)) }
    }
}

/// Sends the requests. Where the user may not change one object of a kind in a namespace, the others are left out.
async fn request(cluster: &Cluster, waiting: &[Waiting], now: Timestamp) -> Vec<Outcome> {
    let forbidden = RefCell::new(BTreeSet::new());
    let one = async |Waiting { fetched, .. }: &'_ Waiting| -> Outcome {
        let requested = cluster.request_retry(fetched, now).await;
        match requested.map_err(|error| error.redacted(grant_tokens(fetched))) {
            Ok(()) => Outcome::Requested,
            Err(CommandError::Forbidden(message)) => Outcome::Forbidden(Some(message)),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    };
    stream::iter(waiting)
        .map(async |waiting| {
            let scope = (waiting.fetched.kind().id, &waiting.summary.namespace);
            if forbidden.borrow().contains(&scope) {
                return Outcome::Forbidden(None);
            }
            let outcome = one(waiting).await;
            if matches!(outcome, Outcome::Forbidden(_)) {
                forbidden.borrow_mut().insert(scope);
            }
            outcome
        })
        .buffered(CONCURRENT_READS)
        .collect()
        .await
}

/// Says what was requested. A missing right has one line, however many objects it concerns.
fn report(waiting: &[Waiting], outcomes: &[Outcome], with_namespace: bool) -> Output {
    let mut output = Output::default();
    let (mut left, mut namespaces, mut refusal) = (Vec::new(), BTreeSet::new(), None);
    for (waiting, outcome) in waiting.iter().zip(outcomes) {
        let summary = &waiting.summary;
        match outcome {
            Outcome::Requested => output.out.extend(line(waiting, with_namespace).bytes()),
            Outcome::Failed(message) => output.notes.push(message.clone()),
            Outcome::Forbidden(message) => {
                left.push(waiting.fetched.kind().id);
                namespaces.insert(summary.namespace.as_str());
                refusal = refusal.or(message.as_deref());
            }
        }
    }
    if let Some(refusal) = refusal {
        let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        output.notes.push(format!("no retry is requested for {} in {namespaces}: {refusal}", count(&left)));
    }
    if outcomes.iter().any(|outcome| *outcome != Outcome::Requested) {
        output.health = Health::Unknown;
    }
    output
}

fn line(Waiting { summary, last, .. }: &Waiting, with_namespace: bool) -> String {
    let namespace = if with_namespace { format!("{}/", summary.namespace) } else { String::new() };
    // The operator does not show when it tried last, so the time of the last request is used.
    let delay = last.map_or_else(String::new, |ago| {
        let left = (REQUEST_EVERY - ago).as_secs();
        format!(
            "; there is at most one a minute, and the last one was {}s ago: it is tried in about {left}s",
            ago.as_secs()
        )
    });
    format!("{namespace}{}: a retry is requested ({}){delay}\n", summary.shown, printable(&summary.reason))
}

/// Waits until these objects are Ready. A condition does not show whether the operator
/// has tried again, so a failure does not end the wait.
async fn wait(cluster: &Cluster, args: &Retry, requested: &BTreeSet<(String, String)>) -> Result<Waited, CommandError> {
    let (until, pause) = (Instant::now() + args.timeout, pause(requested.len()));
    loop {
        let listing = answered(until, pause, async || select(cluster, args).await).await?;
        let waited = progress(listing, requested);
        if waited.late.is_empty() || Instant::now() + pause > until {
            return Ok(waited);
        }
        sleep(pause).await;
    }
}

fn progress(listing: Listing, requested: &BTreeSet<(String, String)>) -> Waited {
    let summaries = listing.keys.iter().map(|fetched| KeySummary::of(&fetched.key));
    let (ready, others): (Vec<_>, Vec<_>) =
        summaries.filter(|summary| requested.contains(&place(summary))).partition(KeySummary::is_ready);
    let late = others.iter().filter(|summary| is_waiting(summary)).map(|summary| {
        format!("{} in namespace {}: {}: {}", summary.shown, summary.namespace, summary.reason, summary.message)
    });
    let mut late: Vec<_> = late.collect();
    let mut health = if late.is_empty() { Health::Healthy } else { Health::Unhealthy };
    // It was decoded before, and another client changed it.
    for (_, why) in listing.unreadable.into_iter().filter(|(place, _)| requested.contains(place)) {
        late.push(why);
        health = Health::Unknown;
    }
    // They could be listed before.
    let is_requested =
        |kind| requested.iter().any(|(_, shown)| Reference::parse(shown).is_ok_and(|one| one.is_of(kind)));
    for unlisted in listing.unlisted.into_iter().filter(|unlisted| is_requested(unlisted.kind)) {
        late.push(unlisted.note);
        health = Health::Unknown;
    }
    Waited { ready: ready.len(), late, health }
}

#[cfg(test)]
mod tests {
    use datakey::{
        api::{DataKeyPair, KeyKind as _},
        condition::failed,
        names::RETRY_AT_ANNOTATION,
        reason::Reason,
    };
    use serde_json::json;

    use super::*;
    use crate::{
        cluster::Unlisted,
        fixtures::{at, edited, pair, ready, recorded, with_status},
    };

    fn denied(name: &str) -> FetchedKey {
        let fetched = with_status(recorded(&[]), |key| failed(key, &Reason::AccessDenied.into(), at(9)));
        edited(fetched, |value| value["metadata"]["name"] = json!(name))
    }

    #[test]
    fn only_what_is_not_ready_is_tried() {
        let deleted =
            edited(denied("a"), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        let waits = |fetched: &FetchedKey| Waiting::of(fetched, at(0)).is_some();
        assert_eq!(
            [denied("a"), recorded(&[]), ready(&[1]), deleted].iter().map(waits).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }

    fn of_shop(name: &str) -> (String, String) {
        ("shop".to_owned(), name.to_owned())
    }

    fn waiting(name: &str) -> Waiting {
        Waiting::of(&denied(name), at(0)).unwrap()
    }

    fn waiting_pair() -> Waiting {
        let denied = with_status(pair(&[1]), |key| failed(key, &Reason::AccessDenied.into(), at(0)));
        Waiting::of(&denied, at(0)).unwrap()
    }

    #[test]
    fn second_request_within_a_minute_says_when_it_is_tried() {
        let requested = edited(denied("a"), |value| {
            value["metadata"]["annotations"] = json!({ RETRY_AT_ANNOTATION: at(0).to_string() });
        });
        let said = |second| line(&Waiting::of(&requested, at(second)).unwrap(), false);
        let first = "a: a retry is requested (AccessDenied)";
        assert_eq!(
            said(6),
            format!("{first}; there is at most one a minute, and the last one was 6s ago: it is tried in about 54s\n")
        );
        assert_eq!([said(60), said(-9)], [format!("{first}\n"), format!("{first}\n")]);
    }

    #[test]
    fn wait_ends_with_a_line() {
        let keys = |names: &[&str]| Requested::of(names.iter().map(|name| waiting(name)).collect::<Vec<_>>().iter());
        assert_eq!(keys(&["a"]).closing(1), "a is Ready\n");
        assert_eq!(keys(&["a", "b"]).closing(2), "2 DataKeys are Ready\n");
        assert_eq!(keys(&["a", "b"]).closing(1), "1 of 2 DataKeys is Ready\n");
        assert_eq!(keys(&["a"]).closing(0), "");
        let both = [waiting("orders"), waiting_pair()];
        assert_eq!(Requested::of(both.iter()).closing(2), "2 DataKeys and DataKeyPairs are Ready\n");
        assert_eq!(Requested::of(both[1..].iter()).closing(1), "datakeypair/orders is Ready\n");
    }

    #[test]
    fn reason_cannot_control_the_terminal() {
        let fetched = edited(denied("a"), |value| {
            for condition in value["status"]["conditions"].as_array_mut().unwrap() {
                condition["reason"] = json!("\u{1b}[2J");
            }
        });
        let text = line(&Waiting::of(&fetched, at(20)).unwrap(), false);
        assert_eq!(text, "a: a retry is requested (\\u{1b}[2J)\n");
    }

    #[test]
    fn missing_right_has_one_line_for_all_data_keys() {
        let waiting = ["a", "b", "c"].map(waiting);
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
        let listing = |unreadable: &[&str]| Listing {
            keys: vec![denied("a"), denied("b"), ready(&[1])],
            unlisted: Vec::new(),
            unreadable: unreadable.iter().map(|name| (of_shop(name), format!("{name} can't be read"))).collect(),
        };
        let requested = ["a", "orders", "gone"].map(of_shop).into();
        let Waited { ready, late, health } = progress(listing(&["b"]), &requested);
        assert_eq!((ready, late.len(), health), (1, 1, Health::Unhealthy));
        assert!(late[0].starts_with("a in namespace shop: AccessDenied: "), "{late:?}");
        let Waited { ready, late, health } = progress(listing(&["gone", "other"]), &requested);
        assert_eq!((ready, late.len(), &*late[1], health), (1, 2, "gone can't be read", Health::Unknown));

        // A kind that could be listed before is not deleted.
        let without_pairs = || Listing {
            unlisted: vec![Unlisted { kind: DataKeyPair::KIND, has_no_definition: false, note: "left out".to_owned() }],
            ..Listing::default()
        };
        for (name, late, health) in [("datakeypair/tokens", 1, Health::Unknown), ("orders", 0, Health::Healthy)] {
            let waited = progress(without_pairs(), &[of_shop(name)].into());
            assert_eq!((waited.late.len(), waited.health), (late, health), "{name}");
        }
    }

    #[test]
    fn retry_is_printed_as_recorded() {
        let waiting = [waiting("a"), waiting("b"), waiting_pair()];
        let output = report(&waiting, &[Outcome::Requested, Outcome::Requested, Outcome::Requested], true);
        insta::assert_snapshot!("retry", String::from_utf8(output.out).unwrap());
    }
}
