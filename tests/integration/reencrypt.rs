//! `ReEncrypt` of the KMS server and the proxy before it, which the tests of a rewrap rely on.

mod with_iam;

use std::time::Duration;

use aws_sdk_kms::{
    Client,
    config::Credentials,
    error::ProvideErrorMetadata,
    operation::{RequestId, re_encrypt::ReEncryptOutput},
    primitives::Blob,
    types::{DataKeyPairSpec, DataKeySpec, EncryptionAlgorithmSpec},
};
use testbed::{
    http::Stop,
    kms::{self, KmsServer},
    process::Workdir,
    proxy::{DECRYPT, Fault, KmsProxy, REENCRYPT},
};

/// The account that a data key is moved to.
const OTHER_ACCOUNT: &str = "222200000000";

/// A data key as the owner of the KMS key gets it.
struct DataKey {
    plaintext: Vec<u8>,
    blob: Vec<u8>,
}

/// Issues a data key with this purpose as its encryption context.
async fn issue(client: &Client, key_id: &str, purpose: &str) -> DataKey {
    let call = client.generate_data_key().key_id(key_id).key_spec(DataKeySpec::Aes256);
    let answer = call.encryption_context("purpose", purpose).send().await.unwrap();
    let [plaintext, blob] = [answer.plaintext, answer.ciphertext_blob].map(|bytes| bytes.unwrap().into_inner());
    DataKey { plaintext, blob }
}

/// Moves a blob from a KMS key and a purpose to others; the code of the refusal.
async fn rewrap(client: &Client, blob: &[u8], from: (&str, &str), to: (&str, &str)) -> Result<ReEncryptOutput, String> {
    let call = client.re_encrypt().ciphertext_blob(Blob::new(blob)).destination_key_id(to.0);
    let call = call.set_source_key_id(Some(from.0.to_owned()).filter(|key_id| !key_id.is_empty()));
    let call = call.source_encryption_context("purpose", from.1).destination_encryption_context("purpose", to.1);
    call.send().await.map_err(|error| error.code().unwrap_or("no code").to_owned())
}

async fn unwrap(client: &Client, key_arn: &str, blob: &[u8], purpose: &str) -> Result<Vec<u8>, String> {
    kms::unwrap_key(client, key_arn, blob, [(&"purpose".to_owned(), &purpose.to_owned())]).await
}

/// The code of a refusal.
fn refusal(answer: Result<ReEncryptOutput, String>) -> Option<String> {
    answer.err()
}

async fn servers() -> (Workdir, KmsServer, KmsProxy) {
    let workdir = Workdir::new("reencrypt");
    let server = KmsServer::start(&workdir).await;
    let proxy = KmsProxy::start(server.address()).await;
    (workdir, server, proxy)
}

fn client_of(proxy: &KmsProxy, region: &str, account: &str) -> Client {
    kms::client_at(&proxy.url(), region, Credentials::new(account, "test", None, None, "testbed"))
}

async fn material_id(client: &Client, key_id: &str) -> Option<String> {
    client.describe_key().key_id(key_id).send().await.unwrap().key_metadata.unwrap().current_key_material_id
}

#[tokio::test]
async fn rewrap_across_accounts_keeps_the_plaintext() {
    let (_workdir, server, proxy) = servers().await;
    let (own, other) = (server.client(), server.client_in(kms::REGION, OTHER_ACCOUNT));
    let (from, to) = (server.key().await, kms::create_key(&other).await);
    other.create_alias().alias_name("alias/moved").target_key_id(&to.id).send().await.unwrap();
    let data_key = issue(&own, &from.id, "orders").await;
    let client = client_of(&proxy, kms::REGION, kms::ACCOUNT);
    let alias_arn = to.arn.replace(&format!("key/{}", to.id), "alias/moved");
    for (source, destination) in [(&*from.arn, &to.arn), (&from.id, &to.arn), ("", &to.arn), (&from.arn, &alias_arn)] {
        let answer = rewrap(&client, &data_key.blob, (source, "orders"), (destination, "moved")).await.unwrap();
        assert_eq!((answer.source_key_id(), answer.key_id()), (Some(&*from.arn), Some(&*to.arn)));
        let algorithm = Some(&EncryptionAlgorithmSpec::SymmetricDefault);
        assert_eq!(answer.source_encryption_algorithm(), algorithm);
        assert_eq!(answer.destination_encryption_algorithm(), algorithm);
        let materials = (material_id(&own, &from.id).await, material_id(&other, &to.id).await);
        assert!(materials.0.is_some() && materials.0 != materials.1);
        assert_eq!(materials, (answer.source_key_material_id.clone(), answer.destination_key_material_id.clone()));
        assert!(answer.request_id().is_some());
        let blob = answer.ciphertext_blob.unwrap().into_inner();
        assert_eq!(unwrap(&other, &to.arn, &blob, "moved").await.as_ref(), Ok(&data_key.plaintext), "{source}");
        assert!(unwrap(&other, &to.arn, &blob, "orders").await.is_err());
        assert_eq!(unwrap(&own, &from.arn, &data_key.blob, "orders").await.as_ref(), Ok(&data_key.plaintext));

        // The way back, by the account that has it now, also without the key ARN.
        let client = client_of(&proxy, kms::REGION, OTHER_ACCOUNT);
        for source in [&*to.arn, ""] {
            let answer = rewrap(&client, &blob, (source, "moved"), (&from.arn, "orders")).await.unwrap();
            let blob = answer.ciphertext_blob.unwrap().into_inner();
            assert_eq!(unwrap(&own, &from.arn, &blob, "orders").await.as_ref(), Ok(&data_key.plaintext));
        }
    }
    assert_eq!((proxy.calls_of(REENCRYPT), proxy.calls_of(DECRYPT)), (12, 0));
    let asked = proxy.requests_of(REENCRYPT);
    assert_eq!(asked[0].body["DestinationKeyId"], to.arn);
    assert_eq!(asked[0].access_key_id, kms::ACCOUNT);
}

#[tokio::test]
async fn private_key_of_a_pair_is_rewrapped() {
    let (_workdir, server, proxy) = servers().await;
    let [from, to] = [server.key().await, server.key().await];
    let client = client_of(&proxy, kms::REGION, kms::ACCOUNT);
    // Both who make key pairs: the server and the proxy.
    for spec in [DataKeyPairSpec::EccNistP256, DataKeyPairSpec::MlKem768] {
        let call = client.generate_data_key_pair_without_plaintext().key_id(&from.id).key_pair_spec(spec);
        let pair = call.encryption_context("purpose", "orders").send().await.unwrap();
        let wrapped = pair.private_key_ciphertext_blob.unwrap().into_inner();
        let answer = rewrap(&client, &wrapped, (&from.arn, "orders"), (&to.arn, "moved")).await.unwrap();
        let blob = answer.ciphertext_blob.unwrap().into_inner();
        let private_key = unwrap(&server.client(), &from.arn, &wrapped, "orders").await.unwrap();
        assert_eq!(unwrap(&server.client(), &to.arn, &blob, "moved").await.as_ref(), Ok(&private_key));
    }
}

#[tokio::test]
async fn same_key_gets_another_context() {
    let (_workdir, server, proxy) = servers().await;
    let key = server.key().await;
    let client = client_of(&proxy, kms::REGION, kms::ACCOUNT);
    let data_key = issue(&client, &key.id, "orders").await;
    let answer = rewrap(&client, &data_key.blob, (&key.arn, "orders"), (&key.arn, "moved")).await.unwrap();
    assert_eq!(answer.source_key_id(), answer.key_id());
    let blob = answer.ciphertext_blob.unwrap().into_inner();
    assert_eq!(unwrap(&client, &key.arn, &blob, "moved").await, Ok(data_key.plaintext));
    assert_eq!(unwrap(&client, &key.arn, &blob, "orders").await, Err("InvalidCiphertextException".to_owned()));
}

#[tokio::test]
async fn rewrap_is_refused_as_kms_refuses_it() {
    let (_workdir, server, proxy) = servers().await;
    let other = server.client_in(kms::REGION, OTHER_ACCOUNT);
    let (from, to, wrong) = (server.key().await, kms::create_key(&other).await, server.key().await);
    let signing = server.signing_key().await;
    let elsewhere = kms::create_key(&server.client_in("us-east-1", kms::ACCOUNT)).await;
    let data_key = issue(&server.client(), &from.id, "orders").await;
    let client = client_of(&proxy, kms::REGION, kms::ACCOUNT);
    let code = async |blob: &[u8], from, to| refusal(rewrap(&client, blob, from, to).await);
    let (source, destination) = ((&*from.arn, "orders"), (&*to.arn, "moved"));
    let nowhere = from.arn.replace(&from.id, "1234abcd-12ab-34cd-56ef-1234567890ab");
    for (from, to, expected) in [
        ((&*from.arn, "invoices"), destination, "InvalidCiphertextException"),
        (("", "invoices"), destination, "InvalidCiphertextException"),
        ((&wrong.arn, "orders"), destination, "IncorrectKeyException"),
        ((&wrong.id, "orders"), destination, "IncorrectKeyException"),
        ((&to.arn, "orders"), destination, "IncorrectKeyException"),
        ((&nowhere, "orders"), destination, "NotFoundException"),
        ((&elsewhere.arn, "orders"), destination, "NotFoundException"),
        ((&signing.arn, "orders"), destination, "InvalidKeyUsageException"),
        (source, (&nowhere, "moved"), "NotFoundException"),
        (source, (&elsewhere.arn, "moved"), "NotFoundException"),
        // A KMS key of another account has no name without its account.
        (source, (&to.id, "moved"), "NotFoundException"),
        (source, (&signing.arn, "moved"), "InvalidKeyUsageException"),
    ] {
        assert_eq!(code(&data_key.blob, from, to).await.as_deref(), Some(expected), "{from:?} {to:?}");
    }
    for key_id in [&*from.arn, ""] {
        let answer = code(b"no blob of KMS", (key_id, "orders"), destination).await;
        assert_eq!(answer.as_deref(), Some("InvalidCiphertextException"));
    }
    for (client, key) in [(&server.client(), &from), (&other, &to)] {
        assert_eq!(code(&data_key.blob, source, destination).await, None);
        client.disable_key().key_id(&key.id).send().await.unwrap();
        assert_eq!(code(&data_key.blob, source, destination).await.as_deref(), Some("DisabledException"));
        client.enable_key().key_id(&key.id).send().await.unwrap();
    }
    assert_eq!(code(&data_key.blob, source, destination).await, None);
    for (client, key) in [(&server.client(), &from), (&other, &to)] {
        client.schedule_key_deletion().key_id(&key.id).send().await.unwrap();
        assert_eq!(code(&data_key.blob, source, destination).await.as_deref(), Some("KMSInvalidStateException"));
        client.cancel_key_deletion().key_id(&key.id).send().await.unwrap();
        client.enable_key().key_id(&key.id).send().await.unwrap();
    }
    assert_eq!(code(&data_key.blob, source, destination).await, None);
}

#[tokio::test]
async fn replica_in_the_region_of_the_call_is_a_source() {
    let (_workdir, server, proxy) = servers().await;
    let primary = server.client().create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
    let primary_arn = primary.arn.unwrap();
    server.client().replicate_key().key_id(&primary.key_id).replica_region("us-east-1").send().await.unwrap();
    let replica_arn = primary_arn.replace(kms::REGION, "us-east-1");
    let data_key = issue(&server.client(), &primary.key_id, "orders").await;
    let there = server.client_in("us-east-1", kms::ACCOUNT);
    let to = kms::create_key(&there).await;
    let client = client_of(&proxy, "us-east-1", kms::ACCOUNT);
    for source in [&*replica_arn, ""] {
        let answer = rewrap(&client, &data_key.blob, (source, "orders"), (&to.arn, "moved")).await.unwrap();
        assert_eq!(answer.source_key_id(), Some(&*replica_arn));
        let blob = answer.ciphertext_blob.unwrap().into_inner();
        assert_eq!(unwrap(&there, &to.arn, &blob, "moved").await.as_ref(), Ok(&data_key.plaintext));
    }
    let answer = rewrap(&client, &data_key.blob, (&primary_arn, "orders"), (&to.arn, "moved")).await;
    assert_eq!(refusal(answer).as_deref(), Some("NotFoundException"));
}

#[tokio::test]
async fn rewraps_meet_faults() {
    let (_workdir, server, proxy) = servers().await;
    let [from, to] = [server.key().await, server.key().await];
    let data_key = issue(&server.client(), &from.id, "orders").await;
    let client = client_of(&proxy, kms::REGION, kms::ACCOUNT);
    let code = async || refusal(rewrap(&client, &data_key.blob, (&from.arn, "orders"), (&to.arn, "moved")).await);
    proxy.fail_next_rewraps(1, Fault::code("DisabledException"));
    assert_eq!(code().await.as_deref(), Some("DisabledException"));
    assert_eq!(code().await, None);
    proxy.fail_rewraps_always(Fault::code("ThrottlingException"));
    assert_eq!(code().await.as_deref(), Some("ThrottlingException"));
    assert_eq!(unwrap(&client, &from.arn, &data_key.blob, "orders").await.as_ref(), Ok(&data_key.plaintext));
    proxy.fail_rewraps_always(Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(300), code()).await.is_err());
    proxy.clear_faults();
    assert_eq!(code().await, None);

    // What changes in KMS meanwhile counts before the call, and not after it.
    for is_before in [true, false] {
        let stop = Stop::default();
        let fault = if is_before { Fault::StopBefore(stop.clone()) } else { Fault::StopAfter(stop.clone()) };
        proxy.fail_next_rewraps(1, fault);
        let disable = async {
            stop.reached().await;
            server.client().disable_key().key_id(&to.id).send().await.unwrap();
            stop.release();
        };
        let (answer, ()) = tokio::join!(code(), disable);
        assert_eq!(answer.as_deref(), is_before.then_some("DisabledException"));
        server.client().enable_key().key_id(&to.id).send().await.unwrap();
    }
}

#[tokio::test]
async fn stub_makes_up_rewraps() {
    let stub = KmsProxy::stub().await;
    let client = client_of(&stub, kms::REGION, kms::ACCOUNT);
    let arn = |account: &str| format!("arn:aws:kms:{}:{account}:key/1234abcd-12ab-34cd-56ef-123456789012", kms::REGION);
    let (from, to) = (arn(kms::ACCOUNT), arn(OTHER_ACCOUNT));
    let rewrapped = rewrap(&client, b"blob", (&from, "orders"), (&to, "moved")).await.unwrap();
    assert_eq!((rewrapped.source_key_id(), rewrapped.key_id()), (Some(&*from), Some(&*to)));
    let other = rewrap(&client, b"blob", (&from, "orders"), (&to, "moved")).await.unwrap();
    assert_ne!(rewrapped.ciphertext_blob, other.ciphertext_blob);
    let failing = "alias/failing/DisabledException";
    let answer = rewrap(&client, b"blob", (&from, "orders"), (failing, "moved")).await;
    assert_eq!(refusal(answer).as_deref(), Some("DisabledException"));
    assert_eq!(stub.calls_of(REENCRYPT), 3);
}
