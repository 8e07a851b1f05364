//! Whether STS lets the operator assume the role of each class: what the condition of the class says. The time is passed in.

use std::{collections::BTreeMap, num::NonZeroUsize};

use datakey::{api::ClassRef, class::RoleOutcome};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// The most states of classes of which outcomes are kept.
const MAX_CLASSES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The most namespaces of a class whose refusals are kept.
const MAX_NAMESPACES: usize = 64;

/// How the last calls of STS ended, by the state of the class: uid and generation.
pub struct Outcomes(Mutex<LruCache<(String, i64), OfClass>>);

#[derive(Default)]
struct OfClass {
    was_assumed: bool,
    /// By namespace, with the code of STS.
    refused: BTreeMap<String, (Box<str>, Instant)>,
}

// === impl Outcomes ===

impl Default for Outcomes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CLASSES)))
    }
}

impl Outcomes {
    /// STS opened a session for a namespace. Returns whether it refused that before.
    pub fn assumed(&self, class: &ClassRef, namespace: &str) -> bool {
        self.change(class, |of_class| {
            of_class.was_assumed = true;
            of_class.refused.remove(namespace).is_some()
        })
    }

    /// STS refused a session for a namespace.
    pub fn refused(&self, class: &ClassRef, namespace: &str, code: &str, now: Instant) {
        self.change(class, |of_class| {
            of_class.was_assumed = false;
            let refused = &mut of_class.refused;
            if refused.len() < MAX_NAMESPACES || refused.contains_key(namespace) {
                refused.insert(namespace.to_owned(), (code.into(), now));
            }
        });
    }

    /// What is known of a state of a class. A refusal counts for this time after the last attempt: it must be longer than the longest
    /// delay between two attempts of an object.
    pub fn of(&self, (uid, generation): (&str, i64), counts_for: Duration, now: Instant) -> RoleOutcome {
        let mut all = self.0.lock();
        let Some(of_class) = all.get_mut(&(uid.to_owned(), generation)) else { return RoleOutcome::Unknown };
        of_class.refused.retain(|_, (_, at)| now.saturating_duration_since(*at) < counts_for);
        match of_class.refused.first_key_value() {
            Some((namespace, (code, _))) => RoleOutcome::Refused {
                namespace: namespace.clone(),
                code: code.to_string(),
                others: of_class.refused.len() - 1,
            },
            None if of_class.was_assumed => RoleOutcome::Assumed,
            None => RoleOutcome::Lapsed,
        }
    }

    fn change<T>(&self, class: &ClassRef, change: impl FnOnce(&mut OfClass) -> T) -> T {
        let mut all = self.0.lock();
        change(all.get_or_insert_mut((class.uid.clone(), class.generation), OfClass::default))
    }
}

#[cfg(test)]
mod tests {
    use datakey::api::Rest;

    use super::*;

    const COUNTS_FOR: Duration = Duration::from_mins(30);

    fn class(generation: i64) -> ClassRef {
        ClassRef { name: "shop".to_owned(), uid: "u".to_owned(), generation, rest: Rest::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn class_is_refused_while_one_namespace_is() {
        let outcomes = Outcomes::default();
        let of = |generation| outcomes.of(("u", generation), COUNTS_FOR, Instant::now());
        let refused = |namespace: &str, others| RoleOutcome::Refused {
            namespace: namespace.to_owned(),
            code: "AccessDenied".to_owned(),
            others,
        };
        assert_eq!(of(1), RoleOutcome::Unknown);
        outcomes.assumed(&class(1), "shop");
        assert_eq!(of(1), RoleOutcome::Assumed);
        for namespace in ["web", "bank"] {
            outcomes.refused(&class(1), namespace, "AccessDenied", Instant::now());
        }
        assert_eq!(of(1), refused("bank", 1));
        outcomes.assumed(&class(1), "bank");
        assert_eq!(of(1), refused("web", 0));
        // Nothing asks for it any more.
        tokio::time::advance(COUNTS_FOR).await;
        assert_eq!(of(1), RoleOutcome::Assumed, "bank was assumed since");
        outcomes.refused(&class(1), "web", "AccessDenied", Instant::now());
        tokio::time::advance(COUNTS_FOR).await;
        assert_eq!(of(1), RoleOutcome::Lapsed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_of_the_class_has_outcomes_of_its_own() {
        let outcomes = Outcomes::default();
        let of = |generation| outcomes.of(("u", generation), COUNTS_FOR, Instant::now());
        outcomes.refused(&class(1), "shop", "AccessDenied", Instant::now());
        outcomes.assumed(&class(2), "shop");
        assert_eq!((of(2), of(3)), (RoleOutcome::Assumed, RoleOutcome::Unknown));
        // After a restore of etcd, the number is lower than before.
        assert!(matches!(of(1), RoleOutcome::Refused { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_that_nothing_repeats_lapses() {
        let outcomes = Outcomes::default();
        outcomes.refused(&class(1), "shop", "AccessDenied", Instant::now());
        tokio::time::advance(COUNTS_FOR).await;
        assert_eq!(outcomes.of(("u", 1), COUNTS_FOR, Instant::now()), RoleOutcome::Lapsed);
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_bounded() {
        let outcomes = Outcomes::default();
        for number in 0..10_000 {
            outcomes.refused(&class(number), "shop", "AccessDenied", Instant::now());
            outcomes.refused(&class(1), &format!("n{number:04}"), "AccessDenied", Instant::now());
        }
        let RoleOutcome::Refused { others, .. } = outcomes.of(("u", 1), COUNTS_FOR, Instant::now()) else { panic!() };
        assert_eq!((others, outcomes.0.lock().len()), (MAX_NAMESPACES - 1, MAX_CLASSES.get()));
    }
}
