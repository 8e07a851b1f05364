//! Decides what to log while the API server does not answer: one line at the beginning, one every ten minutes, and one at the
//! end. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// How often a state that lasts is logged again.
pub const LOG_AGAIN: Duration = Duration::from_mins(10);

/// Since when the API server does not answer, and when that was logged.
#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    logged: Option<Instant>,
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The API server does not answer any more.
    Begins,
    /// It has not answered for this time.
    Lasts(Duration),
    /// It answers again, after this time.
    Ends(Duration),
}

/// Texts that were logged less than [`LOG_AGAIN`] ago.
#[derive(Debug, Default)]
pub struct Repeats(Vec<(String, Instant)>);

// === impl Outage ===

impl Outage {
    /// Records that there was no answer, and returns what to log.
    pub fn unanswered(&mut self, now: Instant) -> Option<Notice> {
        let since = *self.since.get_or_insert(now);
        match self.logged {
            Some(logged) if now.saturating_duration_since(logged) < LOG_AGAIN => return None,
            _ => self.logged = Some(now),
        }
        Some(if since == now { Notice::Begins } else { Notice::Lasts(now - since) })
    }

    /// Records that there was an answer, and returns what to log.
    pub fn answered(&mut self, now: Instant) -> Option<Notice> {
        let since = std::mem::take(self).since?;
        Some(Notice::Ends(now.saturating_duration_since(since)))
    }
}

// === impl Repeats ===

impl Repeats {
    /// Whether to log a text now. Returns false if the same text was logged less than [`LOG_AGAIN`] ago.
    pub fn is_due(&mut self, text: &str, now: Instant) -> bool {
        self.0.retain(|(_, logged)| now.saturating_duration_since(*logged) < LOG_AGAIN);
        if self.0.iter().any(|(known, _)| known == text) {
            return false;
        }
        self.0.push((text.to_owned(), now));
        true
    }
}

/// A duration as the log shows it, in whole seconds: `1h 2m 3s`.
pub fn in_seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn outage_is_logged_at_both_ends_and_every_ten_minutes() {
        let mut outage = Outage::default();
        assert_eq!(outage.answered(Instant::now()), None);
        let mut notices = Vec::new();
        for _ in 0..25 * 30 {
            notices.extend(outage.unanswered(Instant::now()));
            advance(Duration::from_secs(2)).await;
        }
        let minutes = Duration::from_mins;
        assert_eq!(notices, [Notice::Begins, Notice::Lasts(minutes(10)), Notice::Lasts(minutes(20))]);
        assert_eq!(outage.answered(Instant::now()), Some(Notice::Ends(minutes(25))));
        assert_eq!(outage.answered(Instant::now()), None, "that was the end of it");
        assert_eq!(outage.unanswered(Instant::now()), Some(Notice::Begins), "another outage");
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_text_is_logged_every_ten_minutes() {
        let mut repeats = Repeats::default();
        assert!(repeats.is_due("a", Instant::now()) && repeats.is_due("b", Instant::now()));
        advance(LOG_AGAIN / 2).await;
        assert!(!repeats.is_due("a", Instant::now()) && repeats.is_due("c", Instant::now()));
        advance(LOG_AGAIN / 2).await;
        assert!(repeats.is_due("a", Instant::now()) && !repeats.is_due("c", Instant::now()));
        assert_eq!(repeats.0.len(), 2, "those that are old are forgotten");
    }

    #[test]
    fn times_are_in_whole_seconds() {
        assert_eq!(in_seconds(Duration::from_millis(3_723_900)), "1h 2m 3s");
        assert_eq!(in_seconds(Duration::from_millis(200)), "0s");
    }
}
