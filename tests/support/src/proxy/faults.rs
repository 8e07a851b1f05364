//! How a test makes calls fail.

use std::time::Duration;

use serde_json::Value;

use super::{Call, DECRYPT, DRY_RUN, ISSUE, ISSUE_PAIR, KmsProxy, REENCRYPT, State, quota::Quota};
use crate::{http::Stop, sts::ASSUME_ROLE};

/// What becomes of a call instead of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error of KMS or STS: HTTP status, code, message.
    Error(u16, String, String),
    /// This answer, with HTTP status 200.
    Answer(Value),
    /// The first half of the answer, then the end of the connection.
    Truncate,
    /// The end of the connection before any answer.
    Reset,
    /// No answer.
    Hang,
    /// The answer, later.
    Delay(Duration),
    /// The answer of another account: the call is sent on with that account's credentials.
    AsAccount(String),
    /// The call stands still before KMS has it.
    StopBefore(Stop),
    /// KMS answers, and the answer stands still.
    StopAfter(Stop),
}

/// Which calls meet a fault.
#[derive(Debug)]
pub(super) struct Rule {
    fault: Fault,
    /// How many more calls it is for; `None` for all.
    left: Option<usize>,
}

// === impl KmsProxy ===

impl KmsProxy {
    /// Makes every call for a data key meet this fault, until [`clear_faults`](Self::clear_faults).
    pub fn fail_always(&self, fault: Fault) {
        self.lock().rule = Some(Rule { fault, left: None });
    }

    /// Makes the next calls for a data key meet this fault.
    pub fn fail_next(&self, calls: usize, fault: Fault) {
        self.lock().rule = Some(Rule { fault, left: Some(calls) });
    }

    /// Makes every call for a session meet this fault, until [`clear_faults`](Self::clear_faults).
    pub fn fail_sessions_always(&self, fault: Fault) {
        self.lock().sts_rule = Some(Rule { fault, left: None });
    }

    /// Makes the next calls for a session meet this fault.
    pub fn fail_next_sessions(&self, calls: usize, fault: Fault) {
        self.lock().sts_rule = Some(Rule { fault, left: Some(calls) });
    }

    /// Makes every call of `Decrypt` meet this fault, until [`clear_faults`](Self::clear_faults).
    pub fn fail_decrypt_always(&self, fault: Fault) {
        self.lock().decrypt_rule = Some(Rule { fault, left: None });
    }

    /// Makes the next calls of `Decrypt` meet this fault.
    pub fn fail_next_decrypts(&self, calls: usize, fault: Fault) {
        self.lock().decrypt_rule = Some(Rule { fault, left: Some(calls) });
    }

    /// Makes every call of `ReEncrypt` meet this fault, until [`clear_faults`](Self::clear_faults).
    pub fn fail_rewraps_always(&self, fault: Fault) {
        self.lock().rewrap_rule = Some(Rule { fault, left: None });
    }

    /// Makes the next calls of `ReEncrypt` meet this fault.
    pub fn fail_next_rewraps(&self, calls: usize, fault: Fault) {
        self.lock().rewrap_rule = Some(Rule { fault, left: Some(calls) });
    }

    /// Makes every dry run meet this fault, until [`clear_faults`](Self::clear_faults).
    pub fn fail_dry_runs_always(&self, fault: Fault) {
        self.lock().dry_run_rule = Some(Rule { fault, left: None });
    }

    /// Makes the next dry runs meet this fault.
    pub fn fail_next_dry_runs(&self, calls: usize, fault: Fault) {
        self.lock().dry_run_rule = Some(Rule { fault, left: Some(calls) });
    }

    /// Makes every call for a data key in these Regions meet this fault, besides any other rule.
    pub fn fail_in_regions<'a>(&self, regions: impl IntoIterator<Item = &'a str>, fault: &Fault) {
        let faults = regions.into_iter().map(|region| (region.to_owned(), fault.clone()));
        self.lock().regional.extend(faults);
    }

    /// From now on `Decrypt` with this key ID is refused, as KMS refuses another key than that of the data key. The server
    /// decrypts with any key.
    pub fn refuse_decrypt_with(&self, key_id: &str) {
        self.lock().incorrect_key = Some(key_id.to_owned());
    }

    /// Ends all faults. The quota stays.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.rule = None;
        state.sts_rule = None;
        state.decrypt_rule = None;
        state.rewrap_rule = None;
        state.dry_run_rule = None;
        state.regional.clear();
    }
}

// === impl Fault ===

impl Fault {
    /// An error of KMS by its code, with HTTP status 400.
    pub fn code(code: &str) -> Self {
        Self::Error(400, code.to_owned(), format!("the proxy says {code}"))
    }
}

/// Keeps a call. Returns the fault that it meets, if any.
pub(super) fn take(state: &mut State, operation: &str, mut call: Call) -> Option<Fault> {
    let mut fault = None;
    if [ISSUE, ISSUE_PAIR].contains(&operation) {
        call.is_throttled = !state.quota.as_mut().is_none_or(Quota::take);
        let throttled = call.is_throttled.then(|| Fault::code("ThrottlingException"));
        let regional = state.regional.get(&call.region).cloned();
        fault = throttled.or(regional).or_else(|| Rule::take(&mut state.rule));
    }
    if operation == ASSUME_ROLE {
        fault = Rule::take(&mut state.sts_rule);
    }
    if operation == DECRYPT {
        fault = Rule::take(&mut state.decrypt_rule);
    }
    if operation == REENCRYPT {
        fault = Rule::take(&mut state.rewrap_rule);
    }
    if operation == DRY_RUN {
        fault = Rule::take(&mut state.dry_run_rule);
    }
    if operation == DECRYPT && state.incorrect_key.as_deref().is_some_and(|key_id| call.body["KeyId"] == key_id) {
        fault = Some(Fault::code("IncorrectKeyException"));
    }
    state.calls.entry(operation.to_owned()).or_default().push(call);
    fault
}

// === impl Rule ===

impl Rule {
    /// The fault that a call meets, if any. A rule that is used up is removed.
    fn take(rule: &mut Option<Self>) -> Option<Fault> {
        let Self { fault, left } = rule.as_mut()?;
        let fault = fault.clone();
        if let Some(left) = left {
            *left = left.checked_sub(1)?;
        }
        rule.take_if(|rule| rule.left == Some(0));
        Some(fault)
    }
}
