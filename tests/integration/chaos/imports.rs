//! Many wrapped data keys from before the operator become DataKeys.

use aws_sdk_kms::types::DataKeySpec;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::{StreamExt, TryStreamExt, stream};

use super::{patience, scaled};
use crate::{
    harness::TestNamespace,
    plugin::{User, text},
};

#[tokio::test]
async fn imported_data_keys_all_unwrap_as_before() {
    let test = TestNamespace::new("imports").await;
    let count = scaled(60, 500);
    let client = test.kms.client();
    let issued: Vec<_> = stream::iter(0..count)
        .map(|number| {
            let call = client.generate_data_key().key_id(&test.key.arn).key_spec(DataKeySpec::Aes256);
            let call = call.encryption_context("number", number.to_string());
            async move {
                let answer = call.send().await.map_err(|error| format!("{error:?}"))?;
                let (blob, plaintext) = (answer.ciphertext_blob.unwrap(), answer.plaintext.unwrap());
                Ok::<_, String>((blob.into_inner(), plaintext.into_inner()))
            }
        })
        .buffered(16)
        .try_collect()
        .await
        .unwrap();
    let lines = issued.iter().enumerate().map(|(number, (blob, _))| {
        format!("k-{number},{},{},number={number}\n", test.alias(), BASE64_STANDARD.encode(blob))
    });
    let csv = test.plane.workdir().file("imports.csv");
    let header = "name,key_id,ciphertext_blob,encryption_context\n".to_owned();
    std::fs::write(&csv, header + &lines.collect::<String>()).unwrap();
    let folder = test.plane.workdir().file("imports").display().to_string();
    let csv = csv.display().to_string();
    let user = User::of(&test);
    let report = text(&user.ends(0, &["import", "--from-csv", &csv, "--to", &folder]).await);
    assert!(report.starts_with(&format!("{count} of {count} DataKeys imported")), "{report}");
    assert_eq!(test.proxy.calls_of("Decrypt"), count);

    let _operator = test.operator();
    test.plane.kubectl(&["apply", "-f", &folder]).await.unwrap();
    test.all_ready(count, patience(count)).await;
    let wrong: Vec<_> = stream::iter(issued.iter().enumerate())
        .map(async |(number, (_, plaintext))| {
            let data = test.data(&format!("k-{number}")).await;
            (number, test.decrypt(&data, "").await == *plaintext)
        })
        .buffer_unordered(16)
        .filter_map(async |(number, same)| (!same).then_some(number))
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:?} unwrap to another data key");
    assert_eq!(test.proxy.calls(), 0, "none was issued again");
    assert!(!user.saw(&issued[0].1));
}
