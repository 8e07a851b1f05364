//! What the value of a flag or of its variable may be. Pure. An error says what to write.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use humantime::format_duration;

use datakey::{
    api::QuotaClass,
    arn,
    names::{MAX_LABEL, MAX_SUBDOMAIN, is_label, is_subdomain},
};

use crate::kms::rates::Rate;

/// How long a server may take to answer. A shorter wait gives up on answers that are under way.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;

/// Waits between two tries.
pub const RETRY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);

/// The accepted intervals of the periodic comparison. A shorter interval would keep a processor busy.
pub const RESYNC: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(720);

/// The accepted intervals between two questions about a KMS key, besides 0. The quota of KMS bounds the shortest one in practice. With the
/// longest one there are two questions in the 7 days that AWS KMS waits at least before it deletes a KMS key.
pub const KEY_CHECK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(72);

/// How long running reconciles may go on after SIGTERM.
pub const GRACE: RangeInclusive<Duration> = Duration::from_millis(1)..=HOUR;

/// The accepted durations of the Lease. After its holder is killed, no replica works for this time.
pub const LEASE: RangeInclusive<Duration> = Duration::from_secs(1)..=HOUR;

const HOUR: Duration = Duration::from_hours(1);

/// A whole number from 1 on.
pub fn number<T: TryFrom<u32>>(most: u32) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("write a whole number from 1 to {most}"))
    }
}

/// A duration with a unit. Without bounds a typing error such as `10M`, ten months, would pass.
pub fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let (least, most) = (format_duration(*bounds.start()), format_duration(*bounds.end()));
        let duration = humantime::parse_duration(text).ok().filter(|duration| bounds.contains(duration));
        duration.ok_or_else(|| format!("write a duration from {least} to {most}, for example 500ms, 10s or 2m"))
    }
}

/// An interval between two questions about a KMS key; 0 for never.
pub fn key_check_interval(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    duration(KEY_CHECK)(text).map_err(|why| format!("{why}, or 0 for no checks"))
}

/// A duration that a Lease can hold.
pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    let (least, most) = (format_duration(*LEASE.start()), format_duration(*LEASE.end()));
    let duration = duration(LEASE)(text).ok().filter(|duration| duration.subsec_nanos() == 0);
    duration.ok_or_else(|| format!("write whole seconds from {least} to {most}, for example 15s"))
}

/// A namespace to watch.
pub fn watched_namespace(text: &str) -> Result<String, String> {
    namespace(text).map_err(|error| {
        format!("{error}, or several names with commas between them; leave it out to watch every namespace")
    })
}

/// A namespace.
pub fn namespace(text: &str) -> Result<String, String> {
    let name = text.trim();
    if is_label(name) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "write the name of a namespace (lower-case letters, digits and '-', beginning and ending with a letter or \
             a digit, at most {MAX_LABEL} characters)"
        ))
    }
}

/// The name of a Lease.
pub fn lease_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if is_subdomain(name) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "write the name of a Lease (lower-case letters, digits, '-' and '.', beginning and ending with a letter \
             or a digit, at most {MAX_SUBDOMAIN} characters)"
        ))
    }
}

/// A Region of AWS, by its form.
pub fn region(text: &str) -> Result<String, String> {
    let name = text.trim();
    if arn::is_region_field(name) {
        Ok(name.to_owned())
    } else {
        Err("write the code of an AWS Region, for example eu-west-1, or several with commas between them".to_owned())
    }
}

/// Keys of labels and annotations that no template of a Secret may have.
pub fn reserved_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    let is_valid = match key.strip_suffix('/') {
        Some(domain) => is_subdomain(domain),
        None => is_key(key),
    };
    if is_valid {
        Ok(key.to_owned())
    } else {
        Err("write the key of a label or an annotation, for example example.com/owner, or a domain and a slash, for example \
             example.com/, or several with commas between them"
            .to_owned())
    }
}

/// The rate of a quota class of key pairs.
pub fn pair_rate(text: &str) -> Result<(QuotaClass, Rate), String> {
    let mut classes = QuotaClass::ALL.iter().filter(|class| **class != QuotaClass::Symmetric);
    let pair = text.trim().split_once('=').and_then(|(name, rate)| {
        let class = classes.find(|class| class.as_str() == name)?;
        Some((*class, Rate::parse(rate)?))
    });
    pair.ok_or_else(|| {
        "write CLASS=RATE with a class of RSA_2048, RSA_3072, RSA_4096, ECC, ML_KEM and SM2 and a number from 0.001 to 1000000, \
         for example RSA_4096=0.5, or several with commas between them"
            .to_owned()
    })
}

/// Where to listen.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write ADDRESS:PORT, for example 0.0.0.0:8080 or [::]:8080".to_owned())
}

/// Whether this is the key of a label or an annotation (Kubernetes documentation, "Labels and Selectors").
fn is_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_name = name.len() <= MAX_LABEL
        && is_end(name.bytes().next())
        && is_end(name.bytes().next_back())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name && domain.is_none_or(is_subdomain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_length_and_form_of_kubernetes() {
        for (length, is_accepted) in [(1, true), (63, true), (64, false)] {
            assert_eq!(namespace(&"a".repeat(length)).is_ok(), is_accepted, "{length}");
        }
        for (length, is_accepted) in [(1, true), (64, true), (253, true), (254, false)] {
            assert_eq!(lease_name(&"a".repeat(length)).is_ok(), is_accepted, "{length}");
        }
        for name in ["-a", "a-", "a_b", "A", "ä", "a..b", ".a", "a.", "a.-b"] {
            assert!(namespace(name).is_err() && lease_name(name).is_err(), "{name}");
        }
        assert!(namespace("a.b").is_err() && lease_name("a.b").is_ok());
    }

    #[test]
    fn bounds_of_a_number_are_accepted() {
        let number = number::<u16>(300);
        let accepted = ["0", "1", "300", "301", "65537", "4294967297", "-1", "1.5", " 1"].map(|text| number(text).ok());
        assert_eq!(accepted, [None, Some(1), Some(300), None, None, None, None, None, None]);
    }

    #[test]
    fn no_accepted_duration_overflows_an_instant() {
        for bounds in [TIMEOUT, RETRY, RESYNC, KEY_CHECK, GRACE, LEASE] {
            // The operator waits 30 times as long for what a person must change.
            assert!(std::time::Instant::now().checked_add(*bounds.end() * 30).is_some());
        }
    }
}
