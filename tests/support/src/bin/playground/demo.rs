//! What `make demo` shows. Each command is shown as it runs, and what it shows is checked.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::{NAMESPACE, Playground, step, terminal::Terminal};

/// What the last lines say.
const NEXT: &str = "\
Try next:
  make dev              the same servers, and they stay: change deploy/samples
  docs/consume.md       unwrap with Python, Go, Rust or the AWS Encryption SDK
  docs/install.md       install it in your cluster, with AWS
  docs/README.md        all pages, by reader
  make test             the checks of a change";

/// All DataKeys in 80 columns: the ARN of a KMS key takes as many.
const LIST: &str = "\
kubectl get datakeys -o custom-columns=NAME:.metadata.name,\\\n\
READY:.status.conditions[0].status,REASON:.status.conditions[0].reason";

const COMPARE: &str = "\
kubectl get secret orders -o jsonpath='{.data.ciphertextBlob}' \\\n    \
| base64 --decode | cmp - $KEYS/ciphertextBlob && echo the same bytes";

/// The entries of the Secret, with their sizes.
const ENTRIES: &str = "kubectl describe secret orders | sed -n '/^====/,$p'";

/// What shows that two data keys are the same, or not, and how long they are.
const MEASURE: &str = " | base64 --decode | cksum";

/// Runs the demo.
pub async fn run() -> Result<(), String> {
    let playground = Playground::start().await?;
    let Playground { plane, kms, proxy, operator } = &playground;
    let terminal = Terminal::of(plane, kms);
    let run = async |line: &str| terminal.run(line).await;

    step("A DataKey asks for a data key, and is ready when its Secret is there");
    run("cat deploy/samples/orders.yaml").await?;
    run("kubectl apply -f deploy/samples").await?;
    let ready = run("kubectl wait --for=condition=Ready datakeys --all --timeout=60s").await;
    ready.map_err(|error| format!("{error}\n{}", operator.log()))?;
    run(LIST).await?;

    step("The Secret holds the wrapped data key, and how to unwrap it");
    let secrets: Api<Secret> = Api::namespaced(plane.admin().await, NAMESPACE);
    let held = read(&secrets, "orders").await?;
    run(ENTRIES).await?;

    step("A workload unwraps it with its own kms:Decrypt; $KEYS is the mounted Secret");
    terminal.mount(&held);
    let first = run(&decrypt("", "file://$KEYS/encryptionContext", MEASURE)).await?;
    check(first.ends_with(" 32\n"), "an AES_256 data key has 32 bytes")?;
    println!("(a checksum and the number of bytes: the data key itself is not shown)");

    step("Under another encryption context KMS refuses to unwrap it");
    let refused = terminal.fails(&decrypt("", "purpose=payments", "")).await?;
    check(refused.contains("InvalidCiphertextException"), "KMS refuses another encryption context")?;

    step("The Secret is deleted, and comes back with the same bytes");
    let before = uid(&secrets).await?;
    run("kubectl delete secret orders").await?;
    run("kubectl wait --for=create secret/orders --timeout=30s").await?;
    run(COMPARE).await?;
    check(uid(&secrets).await? != before, "it is another Secret")?;
    check(read(&secrets, "orders").await? == held, "all entries are the same")?;

    step("A rotation: version 2 is issued, and version 1 stays beside it");
    run("kubectl patch datakey orders --type=merge -p '{\"spec\":{\"version\":2}}'").await?;
    run("kubectl wait --for=condition=Ready datakey/orders --timeout=60s").await?;
    run(ENTRIES).await?;
    terminal.mount(&read(&secrets, "orders").await?);
    let second = run(&decrypt("", "file://$KEYS/encryptionContext", MEASURE)).await?;
    check(second.ends_with(" 32\n") && second != first, "version 2 is another data key")?;
    let again = run(&decrypt(".v1", "file://$KEYS/encryptionContext.v1", MEASURE)).await?;
    check(again == first, "version 1 is the data key that it was")?;
    println!("(version 1 is as it was: what it encrypted can be read)");

    step("The operator called KMS once for each version, and for nothing else");
    let keys = plane.kubectl(&["get", "datakeys", "-n", NAMESPACE, "-o", "name"]).await?.lines().count();
    println!("{keys} DataKeys, one of them rotated: {} calls, all of them", proxy.calls());
    println!("{}", proxy.operations().join(", "));
    check(keys > 0 && proxy.calls() == keys + 1, "one call to KMS for each version")?;
    check(proxy.operations() == [testbed::proxy::ISSUE], "no other operation of KMS is called")?;

    drop(playground);
    println!("\nAll of it held, and nothing is left running.\n\n{NEXT}");
    Ok(())
}

/// The call that README.md shows, with the Region from the ARN of the KMS key.
fn decrypt(version: &str, context: &str, measure: &str) -> String {
    format!(
        "aws kms decrypt --key-id $(cat $KEYS/keyId{version}) \\\n    \
         --region $(cut -d: -f4 $KEYS/keyId{version}) \\\n    \
         --ciphertext-blob fileb://$KEYS/ciphertextBlob{version} \\\n    \
         --encryption-context {context} \\\n    --query Plaintext --output text{measure}"
    )
}

fn check(held: bool, what: &str) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("this does not hold: {what}")) }
}

async fn uid(secrets: &Api<Secret>) -> Result<Option<String>, String> {
    secrets.get("orders").await.map(|secret| secret.metadata.uid).map_err(|error| error.to_string())
}

async fn read(secrets: &Api<Secret>, name: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let secret = secrets.get(name).await.map_err(|error| error.to_string())?;
    Ok(secret.data.unwrap_or_default().into_iter().map(|(entry, value)| (entry, value.0)).collect())
}
