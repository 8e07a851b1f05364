//! Credentials are checked before they sign a request: the SDK panics over those that no HTTP header can hold. Their account
//! is kept for error messages.

use std::sync::Arc;

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use datakey::arn;
use parking_lot::Mutex;

/// The account of the credentials that were used last, if their source names it: STS, IAM Identity Center and EKS Pod
/// Identity do, instance metadata does not.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<Mutex<Option<String>>>);

/// Another provider's credentials, if they can be used.
#[derive(Debug)]
pub struct Checked {
    provider: SharedCredentialsProvider,
    account: Account,
}

/// Whether a request can carry this text, as an access key ID, a secret access key or a session token. None of them has
/// blanks or characters outside ASCII (AWS IAM API reference, `AccessKey`; AWS STS API reference, `Credentials`).
pub fn is_usable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Account ===

impl Account {
    /// The ID of the account: 12 digits.
    pub fn id(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn learn(&self, credentials: &Credentials) {
        let id = credentials.account_id().map(|id| id.as_str().to_owned());
        *self.0.lock() = id.filter(|id| arn::is_account(id));
    }
}

// === impl Checked ===

impl Checked {
    pub fn new(provider: SharedCredentialsProvider, account: Account) -> Self {
        Self { provider, account }
    }

    async fn provide(&self) -> provider::Result {
        let credentials = self.provider.provide_credentials().await?;
        match unusable_part(&credentials) {
            None => {
                self.account.learn(&credentials);
                Ok(credentials)
            }
            Some(part) => Err(CredentialsError::invalid_configuration(format!(
                "the {part} has blanks, control characters or characters outside ASCII"
            ))),
        }
    }
}

impl ProvideCredentials for Checked {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

/// The part of credentials that no request can carry: the AWS SDK panics over it. `None` if they are usable.
pub fn unusable_part(credentials: &Credentials) -> Option<&'static str> {
    let parts = [
        ("access key ID", Some(credentials.access_key_id())),
        ("secret access key", Some(credentials.secret_access_key())),
        ("session token", credentials.session_token()),
    ];
    parts.into_iter().find(|(_, text)| text.is_some_and(|text| !is_usable(text))).map(|(part, _)| part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_that_do_not_fit_a_header_are_refused() {
        for (id, secret, token, part) in [
            ("AKIA", "s/+=", None, None),
            ("AKIA", "s", Some("t=="), None),
            ("AKIA\n", "s", None, Some("access key ID")),
            ("", "s", None, Some("access key ID")),
            ("AKIA", "s s", None, Some("secret access key")),
            ("AKIA", "s", Some("t\u{e9}"), Some("session token")),
        ] {
            let credentials = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
            let provided = Checked::new(SharedCredentialsProvider::new(credentials), Account::default());
            let provided = provided.provide_credentials().await;
            let said = provided.err().map(|error| aws_sdk_kms::error::DisplayErrorContext(error).to_string());
            match part {
                None => assert_eq!(said, None),
                Some(part) => assert!(said.as_ref().is_some_and(|said| said.contains(part)), "{said:?}"),
            }
        }
    }

    #[tokio::test]
    async fn account_of_the_last_credentials_is_known() {
        let account = Account::default();
        for (id, known) in [("111122223333", Some("111122223333")), ("shop", None), ("11112222333\n", None)] {
            let credentials = Credentials::builder().access_key_id("AKIA").secret_access_key("s").account_id(id);
            let provider = SharedCredentialsProvider::new(credentials.provider_name("test").build());
            Checked::new(provider, account.clone()).provide_credentials().await.unwrap();
            assert_eq!(account.id().as_deref(), known);
        }
    }
}
