//! The commands that the test replaces or does not run, with the reasons. It runs every other command of the documentation
//! as it is.

/// The files: the first steps, everything in between, and last what installs, moves and uninstalls.
pub const FILES: [&str; 21] = [
    "README.md",
    "docs/README.md",
    "docs/glossary.md",
    "docs/reference.md",
    "docs/consume.md",
    "docs/datakey-unwrap.md",
    "docs/key-pairs.md",
    "docs/kubectl-datakey.md",
    "docs/disaster-recovery.md",
    "docs/moving.md",
    "docs/tenancy.md",
    "docs/security.md",
    "docs/reliability.md",
    "docs/performance.md",
    "docs/gitops.md",
    "docs/troubleshooting.md",
    "docs/not-verified.md",
    "docs/releasing.md",
    "charts/datakey-operator/README.md",
    "docs/install.md",
    "docs/operations.md",
];

/// Why a variable is replaced.
const OWN_SHELL: &str = "each command has a shell of its own, where the variable is not set";

/// Why a flag is added.
const MOVED_BEFORE: &str = "the reader has one of these moves, and the test has all, of one DataKey";

/// A part of a command, its replacement, and the reason.
pub const SUBSTITUTED: [(&str, &str, &str); 30] = [
    ("REGISTRY/", "registry.example.com/", "there are no nodes that pull: the name of each image is checked instead"),
    ("/usr/local/bin/", "bin/", "a folder of the test is on the PATH"),
    (
        "eks create-pod-identity-association",
        "eks create-pod-identity-association --generate-cli-skeleton output",
        "there is no EKS: the AWS CLI checks the parameters and calls nothing",
    ),
    (
        "service-quotas list-service-quotas",
        "service-quotas list-service-quotas --generate-cli-skeleton output",
        "there are no service quotas: the AWS CLI checks the parameters and calls nothing",
    ),
    (
        "stage=prod --apply",
        "stage=prod --apply --dry-run=server",
        "only the DataKeys of the first steps are compared later; tests/integration/plugin_create.rs applies one",
    ),
    (
        "kms cancel-key-deletion",
        "kms cancel-key-deletion --generate-cli-skeleton output",
        "no KMS key is pending deletion: the AWS CLI checks the parameters and calls nothing",
    ),
    ("kms describe-key --key-id KEY_ARN", "kms describe-key --key-id alias/orders", "the reader's key"),
    (
        "kms enable-key",
        "kms enable-key --generate-cli-skeleton output",
        "the reader's key: the AWS CLI checks the parameters and calls nothing",
    ),
    (
        "apply --server-side -f backup",
        "apply --server-side --dry-run=server -f backup",
        "the DataKeys exist, and no data key may change here",
    ),
    (r#"protectSecrets.allowedUsers=["USER"]"#, r#"protectSecrets.allowedUsers=["jane"]"#, "the reader's name"),
    (
        "patch datakey orders",
        "patch datakey orders -n shop --dry-run=server",
        "later steps expect the version of the README",
    ),
    (
        "delete secrets --all-namespaces",
        "delete secrets --all-namespaces --dry-run=server",
        "the test compares the Secrets after each command",
    ),
    ("policy --class NAME", "policy --class shop", "the reader's name"),
    ("label datakey NAME", "label datakey orders -n shop", "the reader's name"),
    ("datakey check", "datakey check --help", "it fails here, where no operator runs in pods"),
    ("datakey classes --for accounts", "datakey classes --for orders", "the reader's name"),
    ("datakey retry payments", "datakey retry orders", "the reader's name"),
    ("get secret NAME", "get secret orders -n shop", "the reader's name"),
    ("datakey keep orders", "datakey keep --help", "it needs garbage collection: tests/integration/keep.rs runs it"),
    (
        "delete datakey NAME --cascade=orphan",
        "delete datakey orders -n shop --cascade=orphan --dry-run=server",
        "the reader's name; it needs garbage collection: tests/integration/keep.rs runs it",
    ),
    ("| grep SecretConflict", "| grep Issued", "no DataKey is in conflict here"),
    (
        r#""$old_key""#,
        r#""$(aws kms describe-key --key-id alias/invoices --query KeyMetadata.Arn --output text)""#,
        OWN_SHELL,
    ),
    (
        r#""$new_key""#,
        r#""$(aws kms describe-key --key-id alias/invoices-2027 --query KeyMetadata.Arn --output text)""#,
        OWN_SHELL,
    ),
    (
        r#""$their_key""#,
        r#""$(aws --profile payroll kms describe-key --key-id alias/invoices --query KeyMetadata.Arn --output text)""#,
        OWN_SHELL,
    ),
    (
        r#""$multi_region_key""#,
        r#""$(aws kms describe-key --key-id alias/invoices-all --query KeyMetadata.Arn --output text)""#,
        OWN_SHELL,
    ),
    (r#""$same_key""#, r#""$(kubectl get datakey invoices -n billing -o jsonpath='{.status.keyId}')""#, OWN_SHELL),
    ("--output invoices-other-account.yaml", "--include-adopted --output invoices-other-account.yaml", MOVED_BEFORE),
    ("--output invoices-all-regions.yaml", "--include-adopted --output invoices-all-regions.yaml", MOVED_BEFORE),
    ("stage=prod --no-rotate --apply", "stage=prod --no-rotate --include-adopted --apply", MOVED_BEFORE),
    (
        "--force-conflicts -f invoices-other-account.yaml",
        "--force-conflicts --dry-run=server -f invoices-other-account.yaml",
        "the KMS server without IAM lets no operator use a KMS key of another account",
    ),
];

/// Beginnings of commands that are not run, and the reason. For `make`, the test checks that the target exists.
pub const NOT_RUN: [(&str, &str); 13] = [
    ("make ", "they build, or test: CI runs them"),
    ("velero restore create", "needs Velero in the cluster; tests/integration/restored.rs has what it restores"),
    ("kubectl krew install", "needs a published release; tests/repository/krew.rs checks the manifest"),
    ("install target/plugin", "make plugin is not run; the plugin of the tests is in place"),
    ("kubectl get pod POD", "there are no nodes, so no pods"),
    ("kubectl rollout restart deployment/orders", "there are no nodes, so no pods"),
    ("restic ", "tests/programs/restic.rs runs them"),
    ("git ", "a maintainer releases"),
    ("cosign verify", "needs a published release"),
    ("gh attestation verify", "needs a published release"),
    ("aws sso login", "a person signs in"),
    ("aws login", "a person signs in"),
    ("eval \"$(aws configure export-credentials", "needs the session of a person who signed in"),
];

/// Commands that the text only mentions: to run them takes more than what is written there.
pub const MENTIONED: [&str; 30] = [
    "aws kms update-alias",
    "helm --wait",
    "helm install",
    "helm template",
    "helm upgrade",
    "helm upgrade --install --wait",
    "kubectl apply",
    "kubectl apply --server-side",
    "kubectl apply -k",
    // deploy names an image that is not published: the overlay is run.
    "kubectl apply -k deploy",
    "kubectl create -f",
    // Without a command it prints its help and fails.
    "kubectl datakey",
    "kubectl datakey export -o json",
    "kubectl datakey export -o manifest",
    "kubectl datakey inject",
    "kubectl datakey inject --also-key-id",
    "kubectl datakey keep",
    "kubectl datakey policy --rewrap",
    "kubectl datakey public-key",
    "kubectl datakey retry",
    // Without a name and a KMS key it prints an error.
    "kubectl datakey rewrap",
    // It deletes all DataKeys, which the text warns of.
    "kubectl delete -k",
    "kubectl get datakeys -o yaml",
    "kubectl delete --cascade=orphan",
    "kubectl delete datakey --cascade=orphan",
    "kubectl logs",
    "kubectl patch --type=merge --patch-file",
    "kubectl replace --force",
    "kubectl wait",
    "kubectl wait --for=condition=Ready",
];

/// Words before a command, what the test does before it, and the reason.
pub const MEANWHILE: [(&str, &str, &str); 12] = [
    (
        "## What is not Ready, and why",
        "kubectl config set-context --current --namespace=shop",
        "the examples are of the reader's namespace",
    ),
    (
        "## What you may use, and why not",
        "printf '%s\\n' 'apiVersion: datakey.dev/v1alpha1' 'kind: DataKeyClass' 'metadata: {name: shop}' \
           'spec: {namespaces: [shop], allow: [{keyIds: [alias/shop]}]}' | kubectl apply -f -",
        "the class of docs/tenancy.md is there",
    ),
    (
        "## Publish a public key",
        "printf '%s\\n' 'apiVersion: datakey.dev/v1alpha1' 'kind: DataKeyPair' 'metadata: {name: tokens, namespace: shop}' \
           'spec: {keyId: alias/orders, keyPairSpec: ECC_NIST_P256}' | kubectl apply -f -
         kubectl wait --for=condition=Ready datakeypair/tokens -n shop",
        "the key pair of docs/key-pairs.md is there",
    ),
    (
        "The examples move the DataKey",
        "kubectl create namespace billing
         aws kms create-alias --alias-name alias/invoices \
           --target-key-id \"$(aws kms create-key --query KeyMetadata.KeyId --output text)\"
         printf '%s\\n' 'apiVersion: datakey.dev/v1alpha1' 'kind: DataKey' 'metadata: {name: invoices, namespace: billing}' \
           'spec: {keyId: alias/invoices, keySpec: AES_256, encryptionContext: {purpose: invoices}}' | kubectl apply -f -
         kubectl wait --for=condition=Ready datakey/invoices -n billing --timeout=60s
         kubectl datakey rotate invoices -n billing --wait",
        "the DataKey of the examples has two versions",
    ),
    (
        "Give it the script",
        "kubectl create namespace argocd; kubectl create configmap argocd-cm -n argocd",
        "Argo CD is installed",
    ),
    (
        "### Several releases",
        "kubectl create namespace shop-staging; kubectl create namespace payments",
        "the teams have their namespaces",
    ),
    (
        "### IRSA",
        "helm upgrade datakey-operator charts/datakey-operator --namespace datakey-system --reset-then-reuse-values \
           --force-conflicts",
        "a reader who uses Helm: the overlay of the section before changed the same installation",
    ),
    (
        "**From kubectl to Helm:**",
        "helm uninstall data-keys --namespace keys-system
         kubectl apply -k overlay",
        "a reader who uses kubectl",
    ),
    (
        "**A second release goes on alone.**",
        "kubectl delete -f deploy/operator.yaml",
        "the installation with the definition goes",
    ),
    (
        "**The definition was deleted.**",
        "helm uninstall shop-keys --namespace shop-system
         helm install datakey-operator charts/datakey-operator --namespace datakey-system --take-ownership \
           --force-conflicts --set image.repository=registry.example.com/datakey-operator
         kubectl delete crd datakeys.datakey.dev",
        "what the text says",
    ),
    ("Remove an installation by kubectl", "kubectl apply -k overlay", "a reader who uses kubectl"),
    (
        "and apply the DataKeys from Git",
        "kubectl apply -f orders.yaml
         kubectl wait --for=condition=Ready datakey/orders -n shop",
        "what the text says; orders.yaml is in Git",
    ),
];
