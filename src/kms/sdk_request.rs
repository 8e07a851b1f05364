//! From a request for a data key or a key pair to the call of the AWS SDK.

use std::collections::HashMap;

use aws_credential_types::Credentials;
use aws_sdk_kms::{
    Client, Config,
    config::timeout::TimeoutConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        generate_data_key_pair_without_plaintext::builders::GenerateDataKeyPairWithoutPlaintextFluentBuilder,
        generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextFluentBuilder,
    },
    types::{DataKeyPairSpec as SdkKeyPairSpec, DataKeySpec as SdkKeySpec},
};

use super::{answer::Output, errors::CallError};
use datakey::{
    api::{KeyRequest, KeySpec, Material, RequestFlaw},
    reason::{Failure, Reason},
};

/// What a request asks KMS to generate. The definitions have the same rules, but an older definition may have accepted the request.
///
/// # Errors
/// [`Reason::SpecInvalid`] if the request names no length and no kind of key pair, several of these, or a length that KMS does not
/// generate.
pub fn checked_material(request: &KeyRequest) -> Result<Material, Failure> {
    request.material().ok_or_else(|| Failure::new(Reason::SpecInvalid, RequestFlaw::Length.advice()))
}

/// A call that is not sent yet.
pub enum Call {
    /// For a data key.
    Key(GenerateDataKeyWithoutPlaintextFluentBuilder),
    /// For a key pair.
    Pair(GenerateDataKeyPairWithoutPlaintextFluentBuilder),
}

// === impl Call ===

impl Call {
    /// The call for a request. As a dry run, KMS checks it and generates nothing.
    pub fn new(
        client: &Client,
        request: &KeyRequest,
        material: Material,
        grant_tokens: &[String],
        is_dry_run: bool,
    ) -> Self {
        // Absent and false are the same for KMS, and policies do not see it.
        let dry_run = is_dry_run.then_some(true);
        let context: Option<HashMap<_, _>> =
            request.encryption_context.as_ref().map(|context| context.clone().into_iter().collect());
        let tokens = (!grant_tokens.is_empty()).then(|| grant_tokens.to_vec());
        let of_a_key = || client.generate_data_key_without_plaintext().key_id(&request.key_id);
        let key = match material {
            Material::Spec(KeySpec::Aes256) => of_a_key().key_spec(SdkKeySpec::Aes256),
            Material::Spec(KeySpec::Aes128) => of_a_key().key_spec(SdkKeySpec::Aes128),
            Material::Bytes(bytes) => of_a_key().number_of_bytes(bytes.into()),
            Material::Pair(spec) => {
                let call = client.generate_data_key_pair_without_plaintext().key_id(&request.key_id);
                let call = call.key_pair_spec(SdkKeyPairSpec::from(spec.as_str()));
                let call = call.set_encryption_context(context).set_grant_tokens(tokens);
                return Self::Pair(call.set_dry_run(dry_run));
            }
        };
        Self::Key(key.set_encryption_context(context).set_grant_tokens(tokens).set_dry_run(dry_run))
    }

    /// Sends the call with these credentials and time limits, where they are not those of the client.
    ///
    /// # Errors
    /// The error of the AWS SDK.
    pub async fn send(
        self,
        credentials: Option<Credentials>,
        limits: Option<TimeoutConfig>,
    ) -> Result<Output, CallError> {
        let mut config = Config::builder();
        let is_changed = credentials.is_some() || limits.is_some();
        if let Some(credentials) = credentials {
            config = config.credentials_provider(credentials);
        }
        config.set_timeout_config(limits);
        let config = is_changed.then_some(config);
        match self {
            Self::Key(call) => {
                let call = call.customize();
                let call = if let Some(config) = config { call.config_override(config) } else { call };
                call.send().await.map(Output::from).map_err(without_type)
            }
            Self::Pair(call) => {
                let call = call.customize();
                let call = if let Some(config) = config { call.config_override(config) } else { call };
                call.send().await.map(Output::from).map_err(without_type)
            }
        }
    }
}

/// An error of either operation by its code and message.
pub(super) fn without_type<E: ProvideErrorMetadata>(error: SdkError<E>) -> CallError {
    error.map_service_error(|error| error.meta().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datakey::{api::KeyPairSpec, fixtures::request};

    #[test]
    fn request_with_both_lengths_or_none_is_not_sent() {
        let mut both = request();
        both.number_of_bytes = Some(32);
        let mut none = request();
        none.key_spec = None;
        let mut pair = request();
        pair.key_pair_spec = Some(KeyPairSpec::EccNistP256);
        for request in [both, none, pair] {
            assert_eq!(checked_material(&request).err().map(|failure| failure.reason), Some(Reason::SpecInvalid));
        }
    }

    #[test]
    fn every_kind_of_key_pair_is_known_to_the_sdk() {
        for spec in KeyPairSpec::ALL {
            assert!(SdkKeyPairSpec::values().contains(&spec.as_str()), "{spec:?}");
        }
        assert_eq!(SdkKeyPairSpec::values().len(), KeyPairSpec::ALL.len());
    }
}
