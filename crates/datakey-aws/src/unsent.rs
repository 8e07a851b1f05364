//! Why a call was not sent, as a clause for a message.

use std::{error::Error, iter::successors};

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use datakey::text::clause;

/// Whether a call was not sent because there are no credentials.
pub fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<CredentialsError>)
}

/// Whether the service that hands out credentials was not reached: they can be there later.
pub fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    // A connector is around the provider of credentials, too.
    let mut below = causes(error).skip_while(|cause| !cause.is::<CredentialsError>());
    below.any(|cause| {
        let is_timeout = || matches!(cause.downcast_ref(), Some(CredentialsError::ProviderTimedOut(_)));
        cause.is::<ConnectorError>() || is_timeout()
    })
}

/// Why a call was not sent, on one line with invisible characters escaped. The texts of the AWS SDK name its own layers first
/// (dispatch failure, other), so the innermost cause is taken.
pub fn why_unsent(error: &(dyn Error + 'static)) -> String {
    let is_missing =
        |cause: &(dyn Error + 'static)| matches!(cause.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_)));
    if causes(error).any(is_missing) {
        return "no AWS credentials were found".to_owned();
    }
    clause(&causes(error).last().map(ToString::to_string).unwrap_or_default())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::SdkError;

    use super::*;

    fn unsent(source: impl Into<Box<dyn Error + Send + Sync>>) -> SdkError<CredentialsError> {
        SdkError::construction_failure(source)
    }

    #[test]
    fn innermost_cause_is_a_clause_on_one_line() {
        let missing = unsent(CredentialsError::not_loaded("no providers in chain provided credentials"));
        assert_eq!(why_unsent(&missing), "no AWS credentials were found");
        assert!(lacks_credentials(&missing));
        let broken = unsent("line 3 of the file\n  has no =");
        assert_eq!(why_unsent(&broken), "line 3 of the file has no =");
        assert!(!lacks_credentials(&broken));
        assert!(!is_unreachable(&broken) && !is_unreachable(&missing));
        let refused = ConnectorError::io("connection refused".into());
        assert!(is_unreachable(&unsent(CredentialsError::provider_error(refused))));
        assert!(lacks_credentials(&unsent(CredentialsError::provider_error("the session has expired"))));
    }
}
