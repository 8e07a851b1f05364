//! Credentials are checked before they sign a request: the SDK panics over those that no HTTP header can hold.

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};

/// Another provider's credentials, if they can be used.
#[derive(Debug)]
pub struct Checked(SharedCredentialsProvider);

/// Whether a request can carry this text, as an access key ID, a secret access key or a session token. None of them has
/// blanks or characters outside ASCII (AWS IAM API reference, `AccessKey`; AWS STS API reference, `Credentials`).
pub fn is_usable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Checked ===

impl Checked {
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self(provider)
    }

    async fn provide(&self) -> provider::Result {
        let credentials = self.0.provide_credentials().await?;
        match unusable_part(&credentials) {
            None => Ok(credentials),
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

fn unusable_part(credentials: &Credentials) -> Option<&'static str> {
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
            let provided = Checked::new(SharedCredentialsProvider::new(credentials)).provide_credentials().await;
            let said = provided.err().map(|error| aws_sdk_kms::error::DisplayErrorContext(error).to_string());
            match part {
                None => assert_eq!(said, None),
                Some(part) => assert!(said.as_ref().is_some_and(|said| said.contains(part)), "{said:?}"),
            }
        }
    }
}
