//! Waits until an object is Ready, and reports what it waits for.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{POLL_INTERVAL, Progress};
use crate::{
    cluster::{Cluster, FetchedKey},
    output::{CommandError, Terminal},
    view::summary::KeySummary,
};

/// Returns how far the object is from being Ready with this version.
pub fn progress(fetched: &FetchedKey, version: i32) -> Progress {
    let summary = KeySummary::of(&fetched.key);
    if summary.wanted_version != version {
        return Progress::Failed(format!("spec.version was set to {} meanwhile", summary.wanted_version));
    }
    if summary.is_ready() && summary.version == Some(version) {
        return Progress::Done;
    }
    let why = format!("{}: {}", summary.reason, summary.message);
    if summary.stalled || summary.deleting { Progress::Failed(why) } else { Progress::Pending(why) }
}

/// The time between two looks at this many objects. A list of thousands of objects is expensive for the API server.
pub fn pause(count: usize) -> Duration {
    POLL_INTERVAL * u32::try_from(1 + count / 100).unwrap_or(u32::MAX)
}

/// Reads until the API server answers. A read without an answer says nothing about the objects, and the API server can come back.
///
/// # Errors
/// Returns the error of the last read if there is no time for another one until then.
pub async fn answered<T>(
    until: Instant,
    pause: Duration,
    read: impl AsyncFn() -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    loop {
        match read().await {
            Err(CommandError::Unanswered(_)) if Instant::now() + pause <= until => sleep(pause).await,
            answer => return answer,
        }
    }
}

/// Waits until the object is Ready with the version that its spec makes current. Prints each cause of waiting once.
///
/// # Errors
/// `not_ready` makes the error from the cause, if a user must act or the time is over.
pub async fn until_ready(
    cluster: &Cluster,
    terminal: &Terminal,
    mut fetched: FetchedKey,
    timeout: Duration,
    not_ready: impl Fn(&str) -> CommandError,
) -> Result<FetchedKey, CommandError> {
    let (kind, name, version) = (fetched.kind(), fetched.name(), fetched.key.wanted_version());
    let until = Instant::now() + timeout;
    let mut shown = String::new();
    loop {
        let why = match progress(&fetched, version) {
            Progress::Done => return Ok(fetched),
            // What the user reads goes on after the cause.
            Progress::Failed(why) => return Err(not_ready(why.trim_end_matches('.'))),
            Progress::Pending(why) => why,
        };
        if Instant::now() + POLL_INTERVAL > until {
            let why = why.trim_end_matches('.');
            return Err(not_ready(&format!("not within {}; {why}", humantime::format_duration(timeout))));
        }
        if shown != why {
            terminal.notes([&why]);
            shown = why;
        }
        sleep(POLL_INTERVAL).await;
        match cluster.get(kind, &name).await {
            Ok(found) => fetched = found,
            // It says nothing about the object, and the API server can come back.
            Err(CommandError::Unanswered(why)) if shown != why => {
                terminal.notes([&why]);
                shown = why;
            }
            Err(CommandError::Unanswered(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use datakey::{api::PENDING, condition::failed, reason::Reason};
    use serde_json::json;

    use std::cell::Cell;

    use super::*;
    use crate::fixtures::{at, edited, ready, with_status};

    #[tokio::test(start_paused = true)]
    async fn read_is_repeated_until_there_is_an_answer_or_no_time() {
        let (start, pause) = (Instant::now(), Duration::from_secs(2));
        let unanswered = || Err(CommandError::Unanswered("away".to_owned()));
        let reads = Cell::new(0);
        let until = |limit, answers: u32, answer: Result<(), CommandError>| {
            let reads = &reads;
            answered(start + Duration::from_secs(limit), pause, async move || {
                reads.set(reads.get() + 1);
                if reads.get() > answers { answer.clone() } else { unanswered() }
            })
        };
        assert_eq!((until(4, 2, Ok(())).await, reads.take()), (Ok(()), 3));
        assert_eq!(start.elapsed(), pause * 2);
        // The pause would end after the deadline, and no other error is waited for.
        assert_eq!((until(5, 9, Ok(())).await, reads.take()), (unanswered(), 1));
        assert_eq!(start.elapsed(), pause * 2);
        let refused = Err(CommandError::Forbidden("you may not".to_owned()));
        assert_eq!((until(9, 1, refused.clone()).await, reads.take()), (refused, 2));
    }

    #[test]
    fn wait_ends_when_ready_or_when_a_user_must_act() {
        assert_eq!(progress(&ready(&[1, 2]), 2), Progress::Done);
        let waiting = edited(ready(&[1]), |value| {
            value["spec"]["version"] = json!(2);
            value["metadata"]["generation"] = json!(2);
        });
        assert!(matches!(progress(&waiting, 2), Progress::Pending(why) if why.starts_with(PENDING)));
        let with = |reason: Reason| {
            let fetched = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
            with_status(fetched, |key| failed(key, &reason.into(), at(9)))
        };
        assert!(matches!(progress(&with(Reason::Throttled), 2), Progress::Pending(_)));
        assert!(matches!(progress(&with(Reason::KeyDisabled), 2), Progress::Failed(why) if why.contains("Enable it")));
        assert!(matches!(progress(&ready(&[1, 2, 3]), 2), Progress::Failed(_)), "another client raised it further");
    }
}
