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
    ended::Failure,
    plan::{Call, Plan},
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
    most_severe(&failures, count).map_or(Ok(keys), Err)
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

/// Unwraps one version. Wrapped bytes that nothing names are tried under each trusted KMS key.
async fn one(decrypter: &Decrypter, call: Call, material: Material) -> Result<UnwrappedKey, Failure> {
    let Call { version, wrapped, trusted } = call;
    let mut refused = None::<Refusal>;
    for trusted in &trusted {
        match decrypter.unwrap_key(&trusted.key_arn, &wrapped.blob, &trusted.context).await {
            Ok(plaintext) => {
                check_plaintext(&plaintext, material, &wrapped.public_key)
                    .map_err(|why| Failure::mismatch(format!("version {version}: {why}")))?;
                return Ok(UnwrappedKey { version, plaintext, public_key: wrapped.public_key });
            }
            Err(refusal) if refusal.cause == Cause::Mismatch => {
                refused.get_or_insert(refusal);
            }
            Err(refusal) => return Err(failure(version, &refusal)),
        }
    }
    // clap demands at least one.
    Err(refused.map_or_else(|| Failure::usage("--trust is missing"), |refusal| failure(version, &refusal)))
}

fn failure(version: i32, refusal: &Refusal) -> Failure {
    Failure { ended: refusal.cause.into(), why: format!("version {version}: {}", refusal.why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ended::Ended;

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
}
