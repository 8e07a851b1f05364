//! From a request for a data key to the call of the AWS SDK.

use aws_sdk_kms::{
    Client, operation::generate_data_key_without_plaintext::builders::GenerateDataKeyWithoutPlaintextFluentBuilder,
    types::DataKeySpec as SdkKeySpec,
};

use datakey::{
    api::{KeyRequest, KeySpec, Material},
    reason::{Failure, Reason},
};

/// What a request asks KMS to generate. The definition of the DataKey has the same rule, but an older definition may have
/// accepted the request.
///
/// # Errors
/// [`Reason::SpecInvalid`] if the request names no length, two lengths, or one that KMS does not generate.
pub fn checked_material(request: &KeyRequest) -> Result<Material, Failure> {
    request.material().ok_or_else(|| {
        Failure::new(
            Reason::SpecInvalid,
            "set exactly one of keySpec (AES_256 or AES_128) and numberOfBytes (1 to 1024)",
        )
    })
}

/// The call for a request, not sent yet.
pub fn to_call(
    client: &Client,
    request: &KeyRequest,
    material: Material,
    grant_tokens: &[String],
) -> GenerateDataKeyWithoutPlaintextFluentBuilder {
    let call = client.generate_data_key_without_plaintext().key_id(&request.key_id);
    let call = match material {
        Material::Spec(KeySpec::Aes256) => call.key_spec(SdkKeySpec::Aes256),
        Material::Spec(KeySpec::Aes128) => call.key_spec(SdkKeySpec::Aes128),
        Material::Bytes(bytes) => call.number_of_bytes(bytes.into()),
    };
    let context = request.encryption_context.as_ref().map(|context| context.clone().into_iter().collect());
    call.set_encryption_context(context).set_grant_tokens((!grant_tokens.is_empty()).then(|| grant_tokens.to_vec()))
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
        for request in [both, none] {
            assert_eq!(checked_material(&request).err().map(|failure| failure.reason), Some(Reason::SpecInvalid));
        }
    }
}
