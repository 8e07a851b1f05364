//! What the other tests take from the KMS server and the proxy before it: real key pairs of every kind, and policies of two accounts.
//! The key pairs are not those of AWS: the server makes RSA, elliptic curves and Ed25519, the proxy ML-KEM and SM2.

use aws_sdk_kms::{
    Client,
    config::Credentials,
    error::ProvideErrorMetadata,
    types::{DataKeyPairSpec, DataKeySpec, EncryptionAlgorithmSpec},
};
use datakey::{api::KeyPairSpec, public_key::PublicKey};
use serde_json::json;
use testbed::{
    key_pairs::KeyPair,
    kms,
    proxy::{Fault, KmsProxy},
    sts,
};

use crate::harness::{Accounts, Team, TestNamespace};

const DENIED: &str = "AccessDeniedException";

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

/// Issues a data key in an encryption context; the code of the refusal.
async fn issue(client: &Client, key_id: &str, namespace: &str) -> Result<String, String> {
    let call = client.generate_data_key_without_plaintext().key_id(key_id).key_spec(DataKeySpec::Aes256);
    let answer = call.encryption_context("namespace", namespace).send().await;
    answer.map(|answer| answer.key_id.unwrap()).map_err(|error| error.code().unwrap_or_default().to_owned())
}

/// A session of a team's role, as the operator opens it.
async fn session(accounts: &Accounts, team: &Team) -> Result<Credentials, String> {
    let tags = [("datakey-namespace", team.test.namespace.as_str())];
    assume(accounts, &accounts.credentials, team, Some(&team.external_id), &tags).await
}

async fn assume(
    accounts: &Accounts,
    credentials: &Credentials,
    team: &Team,
    external_id: Option<&str>,
    tags: &[(&str, &str)],
) -> Result<Credentials, String> {
    let client = sts::client_at(&accounts.proxy.url(), credentials.clone());
    sts::assume_role(&client, &team.role_arn, "datakey-test", external_id, tags).await
}

#[tokio::test]
async fn role_is_assumed_only_as_both_accounts_allow() {
    let accounts = Accounts::new().await;
    let [shop, bank] = accounts.teams(["sts-shop", "sts-bank"]).await;
    let denied = Err("AccessDenied".to_owned());
    let id = Some(&*shop.external_id);
    let tag = ("datakey-namespace", "sts-shop");
    for (external_id, tags, code) in [
        (id, vec![tag], None),
        (id, vec![tag, ("stage", "prod")], None),
        (None, vec![tag], Some("AccessDenied")),
        (Some("sts-bank-external-id"), vec![tag], Some("AccessDenied")),
        (id, vec![], Some("AccessDenied")),
        (id, vec![("datakey-namespace", "sts-bank")], Some("AccessDenied")),
        (id, vec![tag, ("Datakey-Namespace", "sts-bank")], Some("InvalidParameterValue")),
    ] {
        let answer = assume(&accounts, &accounts.credentials, &shop, external_id, &tags).await;
        assert_eq!(answer.err().as_deref(), code, "{external_id:?} {tags:?}");
    }
    // Each side alone does not suffice: a role without the right to assume it, and a trust policy without the caller.
    let (role_arn, role) = accounts.operator_role(&[&shop]).await;
    let chained = |team| assume(&accounts, &role, team, None, &[]);
    assert_eq!(chained(&shop).await.map(drop), denied, "the trust policy names the user only");
    accounts.put_trust_policy(&bank, &role_arn, &bank.external_id).await;
    let tags = [("datakey-namespace", "sts-bank")];
    let answer = assume(&accounts, &role, &bank, Some(&bank.external_id), &tags).await;
    assert_eq!(answer.map(drop), denied, "the own policy names the role of shop only");
    accounts.put_trust_policy(&shop, &role_arn, &shop.external_id).await;
    assume(&accounts, &role, &shop, id, &[tag]).await.unwrap();
    assert_eq!(session(&accounts, &shop).await.map(drop), denied, "the user is not trusted any more");
}

#[tokio::test]
async fn tag_of_a_session_binds_the_encryption_context() {
    let accounts = Accounts::new().await;
    let [shop, bank] = accounts.teams(["tag-shop", "tag-bank"]).await;
    let client = async |team| accounts.server.client_with(kms::REGION, session(&accounts, team).await.unwrap());
    let of_shop = client(&shop).await;
    let alias_arn = shop.key.arn.replace(&format!("key/{}", shop.key.id), &shop.alias());
    for key_id in [&shop.key.arn, &shop.key.id, &shop.alias(), &alias_arn] {
        assert_eq!(issue(&of_shop, key_id, "tag-shop").await.as_ref(), Ok(&shop.key.arn), "{key_id}");
        assert_eq!(issue(&of_shop, key_id, "tag-bank").await, Err(DENIED.to_owned()), "{key_id}");
    }
    // In another account the policies of both sides decide; the role of bank may use all KMS keys.
    let of_bank = client(&bank).await;
    for namespace in ["tag-shop", "tag-bank"] {
        for key_id in [&shop.key.arn, &alias_arn] {
            assert_eq!(issue(&of_bank, key_id, namespace).await, Err(DENIED.to_owned()), "{key_id} {namespace}");
        }
    }
    let statement = |effect: &str, principal: &str| {
        let action = "kms:GenerateDataKeyWithoutPlaintext";
        json!({ "Effect": effect, "Principal": { "AWS": principal }, "Action": action, "Resource": "*" })
    };
    let admits = statement("Allow", &bank.role_arn);
    accounts.put_key_policy(&shop, std::slice::from_ref(&admits)).await;
    for key_id in [&shop.key.arn, &alias_arn] {
        assert_eq!(issue(&of_bank, key_id, "tag-bank").await.as_ref(), Ok(&shop.key.arn), "{key_id}");
    }
    // A KMS key of another account has no name without its account.
    for key_id in [&shop.key.id, &shop.alias()] {
        assert_eq!(issue(&of_bank, key_id, "tag-bank").await, Err("NotFoundException".to_owned()), "{key_id}");
    }
    accounts.put_key_policy(&shop, &[admits, statement("Deny", "*")]).await;
    for client in [&of_shop, &of_bank] {
        assert_eq!(issue(client, &shop.key.arn, "tag-shop").await, Err(DENIED.to_owned()));
    }
    // The operator itself may use no KMS key, until both sides allow it.
    let operator = accounts.server.client_with(kms::REGION, accounts.credentials.clone());
    assert_eq!(issue(&operator, &bank.key.arn, "tag-bank").await, Err(DENIED.to_owned()));
    accounts.let_operator_use_key(&bank).await;
    assert_eq!(issue(&operator, &bank.key.arn, "tag-bank").await.as_ref(), Ok(&bank.key.arn));
}

#[tokio::test]
async fn sessions_are_counted_and_meet_faults() {
    let accounts = Accounts::new().await;
    let [shop] = accounts.teams(["session-faults"]).await;
    let proxy = &accounts.proxy;
    proxy.fail_next_sessions(1, Fault::code("Throttling"));
    assert_eq!(session(&accounts, &shop).await.map(drop), Err("Throttling".to_owned()));
    proxy.fail_next(1, Fault::code("ExpiredTokenException"));
    let credentials = session(&accounts, &shop).await.unwrap();
    let client = kms::client_at(&proxy.url(), kms::REGION, credentials.clone());
    assert_eq!(issue(&client, &shop.key.arn, "session-faults").await, Err("ExpiredTokenException".to_owned()));
    issue(&client, &shop.key.arn, "session-faults").await.unwrap();

    let asked = proxy.assume_role_requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].body["ExternalId"], "session-faults-external-id");
    assert_eq!(asked[1].access_key_id, accounts.credentials.access_key_id());
    let issued = proxy.sessions();
    assert_eq!(issued.len(), 1);
    assert_eq!((&issued[0].role_arn, &*issued[0].name), (&shop.role_arn, "datakey-test"));
    assert_eq!(issued[0].tags, [("datakey-namespace".to_owned(), "session-faults".to_owned())].into());
    assert_eq!(issued[0].access_key_id, credentials.access_key_id());
    assert_eq!(proxy.requests().len(), 2);
    assert!(proxy.requests().iter().all(|call| call.access_key_id == issued[0].access_key_id));

    // A stub answers, too.
    let stub = KmsProxy::stub().await;
    let client = sts::client_at(&stub.url(), accounts.credentials.clone());
    let made_up = sts::assume_role(&client, &shop.role_arn, "datakey-test", None, &[]).await.unwrap();
    assert_eq!(stub.sessions()[0].access_key_id, made_up.access_key_id());
}
