//! What the other tests take from the KMS server and the proxy before it: real key pairs of every kind. They are not those of AWS:
//! the server makes RSA, elliptic curves and Ed25519, the proxy ML-KEM and SM2.

use aws_sdk_kms::{
    config::Credentials,
    error::ProvideErrorMetadata,
    types::{DataKeyPairSpec, EncryptionAlgorithmSpec},
};
use datakey::{api::KeyPairSpec, public_key::PublicKey};
use testbed::{key_pairs::KeyPair, kms, proxy::Fault};

use crate::harness::TestNamespace;

#[tokio::test]
async fn key_pairs_of_every_kind_are_real() {
    let test = TestNamespace::new("kms-key-pairs").await;
    let key = test.kms.key().await;
    let client =
        kms::client_at(&test.proxy.url(), kms::REGION, Credentials::new(kms::ACCOUNT, "test", None, None, "testbed"));
    for spec in KeyPairSpec::ALL {
        let asked = DataKeyPairSpec::from(spec.as_str());
        assert!(DataKeyPairSpec::values().contains(&spec.as_str()), "the SDK does not know {spec:?}");
        let call = client.generate_data_key_pair_without_plaintext().key_id(&key.id).key_pair_spec(asked.clone());
        let answer = call.encryption_context("purpose", "orders").send().await.unwrap();
        assert_eq!((answer.key_id(), answer.key_pair_spec()), (Some(&*key.arn), Some(&asked)));
        let public_key = answer.public_key.unwrap().into_inner();
        PublicKey::parse(&public_key, *spec).unwrap_or_else(|flaw| panic!("{spec:?}: {flaw}"));

        let decrypt = client.decrypt().key_id(&key.arn).encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault);
        let decrypt = decrypt.ciphertext_blob(answer.private_key_ciphertext_blob.unwrap());
        assert!(decrypt.clone().encryption_context("purpose", "invoices").send().await.is_err(), "{spec:?}");
        let private_key = decrypt.encryption_context("purpose", "orders").send().await.unwrap().plaintext.unwrap();
        let made_by_the_proxy = spec.as_str().starts_with("ML_KEM") || *spec == KeyPairSpec::Sm2;
        let public_half = KeyPair::public_key_of(&asked, private_key.as_ref());
        assert_eq!(public_half, made_by_the_proxy.then_some(public_key), "{spec:?}");
    }
    assert_eq!(test.proxy.pair_requests().len(), KeyPairSpec::ALL.len());
    assert_eq!(test.proxy.calls(), KeyPairSpec::ALL.len(), "no data key without a pair");
}

#[tokio::test]
async fn key_pairs_meet_faults_and_bad_kms_keys() {
    let test = TestNamespace::new("kms-key-pair-faults").await;
    let key = test.kms.key().await;
    let client =
        kms::client_at(&test.proxy.url(), kms::REGION, Credentials::new(kms::ACCOUNT, "test", None, None, "testbed"));
    let code = async |key_id: &str, spec: DataKeyPairSpec| {
        let call = client.generate_data_key_pair_without_plaintext().key_id(key_id).key_pair_spec(spec);
        call.send().await.err().and_then(|error| error.code().map(str::to_owned))
    };
    test.proxy.fail_next(1, Fault::code("KMSInternalException"));
    assert_eq!(code(&key.id, DataKeyPairSpec::MlKem768).await.as_deref(), Some("KMSInternalException"));
    assert_eq!(code(&key.id, DataKeyPairSpec::MlKem768).await, None);
    assert_eq!(test.proxy.pair_requests().len(), 2);
    for spec in [DataKeyPairSpec::EccNistP256, DataKeyPairSpec::MlKem768, DataKeyPairSpec::Sm2] {
        assert_eq!(code("alias/none", spec.clone()).await.as_deref(), Some("NotFoundException"), "{spec}");
    }
    test.kms.client().disable_key().key_id(&key.id).send().await.unwrap();
    for spec in [DataKeyPairSpec::EccNistP256, DataKeyPairSpec::MlKem768, DataKeyPairSpec::Sm2] {
        assert_eq!(code(&key.id, spec.clone()).await.as_deref(), Some("DisabledException"), "{spec}");
    }
}
