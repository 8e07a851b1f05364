//! The progress of a command that works on many objects.

use std::time::Duration;

use tokio::time::Instant;

use crate::output::Terminal;

/// How often a terminal shows it.
const REDRAW: Duration = Duration::from_millis(200);

/// How often a log shows it.
const LINE: Duration = Duration::from_secs(5);

/// The characters of the bar.
const WIDTH: usize = 30;

/// A bar at a terminal; elsewhere, for example in the log of a CI job, a line now and then.
pub struct ProgressBar<'a> {
    terminal: &'a Terminal,
    total: usize,
    nouns: &'a str,
    shown: Option<Instant>,
    is_drawn: bool,
}

// === impl ProgressBar ===

impl<'a> ProgressBar<'a> {
    /// The progress of this many objects; `nouns` names them.
    pub fn of(terminal: &'a Terminal, total: usize, nouns: &'a str) -> Self {
        Self { terminal, total, nouns, shown: None, is_drawn: false }
    }

    /// Shows how many steps are done, and what more there is to say. Short work shows nothing.
    pub fn show(&mut self, done: usize, more: &str) {
        let interval = if self.terminal.shows_progress() { REDRAW } else { LINE };
        let since = *self.shown.get_or_insert_with(Instant::now);
        if since.elapsed() < interval {
            return;
        }
        self.shown = Some(Instant::now());
        if self.terminal.shows_progress() {
            self.terminal.redraw(&format!("{} {}", bar(done, self.total), line(done, self.total, self.nouns, more)));
            self.is_drawn = true;
        } else {
            self.terminal.notes([line(done, self.total, self.nouns, more)]);
        }
    }
}

impl Drop for ProgressBar<'_> {
    /// Removes the bar, so that what is printed next has its line.
    fn drop(&mut self) {
        if self.is_drawn {
            self.terminal.redraw("");
        }
    }
}

fn line(done: usize, total: usize, nouns: &str, more: &str) -> String {
    format!("{done} of {total} {nouns}{more}")
}

fn bar(done: usize, total: usize) -> String {
    let filled = (WIDTH * done.min(total)).checked_div(total).unwrap_or(WIDTH);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_is_filled_as_far_as_the_work_is_done() {
        assert_eq!(bar(0, 500), format!("[{}]", ".".repeat(30)));
        assert_eq!(bar(250, 500), format!("[{}{}]", "#".repeat(15), ".".repeat(15)));
        for (done, total) in [(500, 500), (501, 500), (0, 0)] {
            assert_eq!(bar(done, total), format!("[{}]", "#".repeat(30)));
        }
        assert_eq!(line(3, 5, "DataKeys", ": 1 failed"), "3 of 5 DataKeys: 1 failed");
    }
}
