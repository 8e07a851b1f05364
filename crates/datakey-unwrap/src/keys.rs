//! Calls `Decrypt` for all versions at once, and checks what comes back.

use std::time::Duration;

use datakey::{api::Material, arn::KmsArn};
use datakey_aws::Overrides;
use datakey_decrypt::{Caller, Cause, Decrypter, Refusal, check_plaintext};
use futures::{StreamExt, stream};
use zeroize::Zeroizing;

use crate::{
    APP,
    cli::KeyArgs,
    ended::{Failure, note},
    plan::{Call, Candidate, Plan},
};

/// The most calls at the same time. Each has a connection of its own, and so a TLS handshake.
const CONCURRENT_CALLS: usize = 16;

/// All calls together end this long after the timeout of a single call, whose error says more.
const MARGIN: Duration = Duration::from_secs(1);

/// An unwrapped key. It has no `Debug`: nothing can print it by mistake.
pub struct UnwrappedKey {
    /// The version.
    pub version: i32,
    /// The data key, or the private key (PKCS #8 in DER).
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The public key of a key pair: SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

/// Unwraps all versions of a plan, in ascending order.
///
/// # Errors
/// The first of these causes that any version has: a mismatch, access denied, a KMS key that cannot be used, no answer.
pub async fn unwrap(args: &KeyArgs, plan: Plan) -> Result<Vec<UnwrappedKey>, Failure> {
    let decrypter = Decrypter::new(&caller(args)).await.map_err(Failure::usage)?;
    let calls = plan.calls.into_iter().map(|call| one(&decrypter, call, plan.material));
    let answers = stream::iter(calls).buffered(CONCURRENT_CALLS).collect::<Vec<_>>();
    // The timeout of the calls is that of each; more than CONCURRENT_CALLS are made one after the other.
    let answers = tokio::time::timeout(args.aws.timeout + MARGIN, answers).await;
    let answers = answers.map_err(|_| Failure::try_again("AWS KMS did not answer in time: check the network"))?;
    let count = answers.len();
    let mut keys = Vec::with_capacity(count);
    let mut failures = Vec::new();
    for answer in answers {
        match answer {
            Ok(key) => keys.push(key),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(failure) = most_severe(&failures, count) {
        return Err(failure);
    }
    // Which wrapped key a key came from can matter: that two versions have the same one is a claim of the Secret.
    keys.iter().filter_map(|(_, instead)| instead.as_deref()).for_each(note);
    Ok(keys.into_iter().map(|(key, _)| key).collect())
}

/// The failure that is reported of several ones of this many versions; `None` if there is none.
fn most_severe(failures: &[Failure], versions: usize) -> Option<Failure> {
    let worst = failures.iter().max_by_key(|failure| failure.ended)?;
    let why = match versions {
        1 => worst.why.clone(),
        _ => format!("{} ({} of {versions} versions were not unwrapped)", worst.why, failures.len()),
    };
    Some(Failure { ended: worst.ended, why })
}

fn caller(args: &KeyArgs) -> Caller {
    let aws = &args.aws;
    let overrides = Overrides {
        region: aws.region.clone(),
        profile: aws.profile.clone(),
        endpoint_url: aws.endpoint_url.clone(),
        ca_bundle: aws.ca_bundle.clone(),
    };
    // Credentials can need AWS STS, and so a Region: a pod often has none in its environment.
    let fallback_region =
        args.trust.first().and_then(|trusted| Some(KmsArn::parse(&trusted.key_arn)?.region.to_owned()));
    Caller { overrides, timeout: aws.timeout, retries: aws.retries, fallback_region, ..Caller::workload(APP) }
}

/// Unwraps one version. Also returns what to print if another version was unwrapped in its place.
async fn one(decrypter: &Decrypter, call: Call, material: Material) -> Result<(UnwrappedKey, Option<String>), Failure> {
    let mut refused = Vec::new();
    for candidate in &call.candidates {
        match decrypt(decrypter, candidate).await {
            Ok(plaintext) => {
                let instead = instead(&call, candidate.version, &refused);
                let from = from(&call, candidate);
                let Call { version, wrapped, .. } = call;
                check_plaintext(&plaintext, material, &wrapped.public_key)
                    .map_err(|why| Failure::mismatch(format!("{from}: {why}")))?;
                return Ok((UnwrappedKey { version, plaintext, public_key: wrapped.public_key }, instead));
            }
            Err(refusal) => {
                let is_last = !is_gone(refusal.cause);
                refused.push(refusal);
                if is_last {
                    break;
                }
            }
        }
    }
    Err(failure(&call, &refused))
}

/// Unwraps a wrapped key. Wrapped bytes that nothing names are tried under each trusted KMS key.
async fn decrypt(decrypter: &Decrypter, candidate: &Candidate) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let mut mismatch = None;
    for trusted in &candidate.trusted {
        match decrypter.unwrap_key(&trusted.key_arn, &candidate.blob, &trusted.context).await {
            Err(refusal) if refusal.cause == Cause::Mismatch => {
                mismatch.get_or_insert(refusal);
            }
            other => return other,
        }
    }
    // clap demands at least one.
    Err(mismatch.unwrap_or_else(|| Refusal { cause: Cause::Mismatch, why: "--trust is missing".to_owned() }))
}

/// Whether a KMS key may be gone for good, so that another wrapped key of the same key is tried. An outage ends, and what does not
/// belong together must be seen. Access is denied where the account of the KMS key was closed, or the permission was removed.
fn is_gone(cause: Cause) -> bool {
    matches!(cause, Cause::KeyUnusable | Cause::AccessDenied)
}

/// The version, and the one whose wrapped key was tried.
fn from(call: &Call, candidate: &Candidate) -> String {
    if candidate.version == call.version {
        return format!("version {}", call.version);
    }
    format!("version {}, unwrapped as version {}", call.version, candidate.version)
}

/// What to print of a version whose key came from the wrapped key of another one.
fn instead(call: &Call, from: i32, refused: &[Refusal]) -> Option<String> {
    let version = call.version;
    if from == version {
        return None;
    }
    let why = call.own_refused.as_deref().or_else(|| refused.first().map(|refusal| refusal.why.as_str()));
    let why = why.unwrap_or_default();
    Some(format!("version {version} was unwrapped as version {from}, which has the same key by rewrapOf: {why}"))
}

/// The failure of a version after these refusals, one for each candidate that was tried: that of the first one, which is its own if
/// that is accepted, unless the last one shows more than that its KMS key is gone.
fn failure(call: &Call, refused: &[Refusal]) -> Failure {
    let version = call.version;
    let mut tried = refused.iter().zip(&call.candidates);
    let shows_more = tried.clone().find(|(refusal, _)| !is_gone(refusal.cause));
    let more = match (&shows_more, refused.len()) {
        (Some(_), _) | (None, 0 | 1) => String::new(),
        (None, 2) => "; 1 rewrap was tried, too".to_owned(),
        (None, count) => format!("; {} rewraps were tried, too", count - 1),
    };
    let Some((refusal, candidate)) = shows_more.or_else(|| tried.next()) else {
        // A plan has at least one candidate for each version.
        return Failure::mismatch(format!("version {version} has no wrapped key that is accepted"));
    };
    Failure { ended: refusal.cause.into(), why: format!("{}: {}{more}", from(call, candidate), refusal.why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ended::Ended, source::Wrapped};

    #[test]
    fn possible_tampering_is_reported_before_an_outage() {
        let failure = |ended| Failure { ended, why: format!("{ended:?}") };
        assert_eq!(most_severe(&[], 3), None);
        assert_eq!(most_severe(&[failure(Ended::TryAgain)], 1), Some(failure(Ended::TryAgain)));
        let ascending = [Ended::TryAgain, Ended::KeyUnusable, Ended::AccessDenied, Ended::Mismatch];
        for (number, worst) in ascending.iter().enumerate() {
            let failures: Vec<_> = ascending[..=number].iter().rev().map(|ended| failure(*ended)).collect();
            let reported = most_severe(&failures, 5).unwrap();
            assert_eq!(reported.ended, *worst);
            assert!(
                reported.why.ends_with(&format!("({} of 5 versions were not unwrapped)", number + 1)),
                "{reported:?}"
            );
        }
    }

    /// A version with these candidates.
    fn call(candidates: &[i32], own_refused: Option<&str>) -> Call {
        let candidate = |version: &i32| Candidate { version: *version, blob: Vec::new(), trusted: Vec::new() };
        Call {
            version: 1,
            wrapped: Wrapped { blob: Vec::new(), claim: None, public_key: Vec::new() },
            candidates: candidates.iter().map(candidate).collect(),
            own_refused: own_refused.map(str::to_owned),
        }
    }

    fn refusals(causes: &[Cause]) -> Vec<Refusal> {
        let refusal = |(number, cause): (usize, &Cause)| Refusal { cause: *cause, why: format!("refusal {number}") };
        causes.iter().enumerate().map(refusal).collect()
    }

    #[test]
    fn another_wrapped_key_is_tried_only_if_a_kms_key_is_gone() {
        for (cause, expected) in [
            (Cause::KeyUnusable, true),
            (Cause::AccessDenied, true),
            (Cause::Mismatch, false),
            (Cause::Unavailable, false),
        ] {
            assert_eq!(is_gone(cause), expected, "{cause:?}");
        }
    }

    #[test]
    fn failure_of_the_own_wrapped_key_is_reported() {
        use Cause::{AccessDenied, KeyUnusable, Mismatch, Unavailable};
        for (candidates, causes, ended, why) in [
            (&[1][..], &[KeyUnusable][..], Ended::KeyUnusable, "version 1: refusal 0"),
            (&[1, 3], &[Unavailable], Ended::TryAgain, "version 1: refusal 0"),
            (&[1, 3], &[Mismatch], Ended::Mismatch, "version 1: refusal 0"),
            (
                &[1, 3],
                &[KeyUnusable, AccessDenied],
                Ended::KeyUnusable,
                "version 1: refusal 0; 1 rewrap was tried, too",
            ),
            (
                &[1, 3, 2],
                &[AccessDenied, KeyUnusable, KeyUnusable],
                Ended::AccessDenied,
                "version 1: refusal 0; 2 rewraps were tried, too",
            ),
            // The first one that is trusted.
            (&[3], &[KeyUnusable], Ended::KeyUnusable, "version 1, unwrapped as version 3: refusal 0"),
            // An outage can end, and what was changed must be seen.
            (&[1, 3], &[KeyUnusable, Unavailable], Ended::TryAgain, "version 1, unwrapped as version 3: refusal 1"),
            (&[1, 3], &[KeyUnusable, Mismatch], Ended::Mismatch, "version 1, unwrapped as version 3: refusal 1"),
        ] {
            let failure = failure(&call(candidates, None), &refusals(causes));
            assert_eq!((failure.ended, failure.why.as_str()), (ended, why));
        }
    }

    #[test]
    fn key_of_another_wrapped_key_is_reported() {
        let refused = refusals(&[Cause::KeyUnusable]);
        assert_eq!(instead(&call(&[1, 3], None), 1, &[]), None);
        let why = "version 1 was unwrapped as version 3, which has the same key by rewrapOf: ";
        assert_eq!(instead(&call(&[1, 3], None), 3, &refused), Some(format!("{why}refusal 0")));
        let not_trusted = call(&[2, 3], Some("not trusted"));
        assert_eq!(instead(&not_trusted, 3, &refused), Some(format!("{why}not trusted")));
    }
}
