//! From a request for a data key or a key pair to the call of the AWS SDK.

use std::{collections::HashMap, time::Duration};

use aws_sdk_kms::{
    Client,
    config::timeout::TimeoutConfig,
    operation::{
        generate_data_key_pair_without_plaintext::builders::GenerateDataKeyPairWithoutPlaintextFluentBuilder,
        generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextFluentBuilder,
    },
    types::{DataKeyPairSpec as SdkKeyPairSpec, DataKeySpec as SdkKeySpec},
};

use super::{answer::Output, errors::CallError};
use datakey::{
    api::{KeyPairSpec, KeyRequest, KeySpec, Material, RequestFlaw},
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
    /// For a key pair, with the time limit of the call if it differs from that of the client.
    Pair(GenerateDataKeyPairWithoutPlaintextFluentBuilder, Option<TimeoutConfig>),
}

/// How many times longer than any other call the generation of an RSA key may take: KMS searches for two primes.
const RSA_FACTOR: u32 = 3;

// === impl Call ===

impl Call {
    /// The call for a request. `timeout` is the time limit of the client.
    pub fn new(
        client: &Client,
        request: &KeyRequest,
        material: Material,
        grant_tokens: &[String],
        timeout: Duration,
    ) -> Self {
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
                return Self::Pair(call, time_limit(spec, timeout));
            }
        };
        Self::Key(key.set_encryption_context(context).set_grant_tokens(tokens))
    }

    /// Sends the call.
    ///
    /// # Errors
    /// The error of the AWS SDK.
    pub async fn send(self) -> Result<Output, CallError> {
        match self {
            Self::Key(call) => call
                .send()
                .await
                .map(Output::from)
                .map_err(|error| error.map_service_error(|error| error.meta().clone())),
            Self::Pair(call, limit) => {
                let mut config = aws_sdk_kms::config::Builder::new();
                config.set_timeout_config(limit);
                let sent = call.customize().config_override(config).send().await;
                sent.map(Output::from).map_err(|error| error.map_service_error(|error| error.meta().clone()))
            }
        }
    }
}

/// The time limit of a call for this kind of key pair, if it differs from that of the client.
fn time_limit(spec: KeyPairSpec, timeout: Duration) -> Option<TimeoutConfig> {
    spec.quota_class().is_rsa().then(|| {
        let limit = timeout.saturating_mul(RSA_FACTOR);
        TimeoutConfig::builder().operation_attempt_timeout(limit).operation_timeout(limit).build()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datakey::fixtures::request;

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

    #[test]
    fn only_rsa_has_a_longer_time_limit() {
        let limit = |spec| time_limit(spec, Duration::from_secs(10)).and_then(|limit| limit.operation_timeout());
        assert_eq!(limit(KeyPairSpec::Rsa4096), Some(Duration::from_secs(30)));
        assert_eq!(limit(KeyPairSpec::EccNistP256), None);
    }
}
