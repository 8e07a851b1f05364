//! The examples below the help of each command. A test parses them.

pub const LIST: &str = "\
Examples:
  kubectl datakey list -A
  kubectl datakey list -l team=shop -o wide
  kubectl datakey list -A -o json";

pub const STATUS: &str = "\
Examples:
  kubectl datakey status
  kubectl datakey status orders -n shop
  kubectl datakey status -A -o json";

pub const CLASSES: &str = "\
Examples:
  kubectl datakey classes -n shop
  kubectl datakey classes shop
  kubectl datakey classes --for orders";

pub const EXPORT: &str = "\
Examples:
  kubectl datakey export orders --version 1 > orders.yaml
  kubectl datakey export orders --pin > orders.yaml
  kubectl datakey export orders -o raw --to orders.bin";

pub const VERIFY: &str = "\
Examples:
  kubectl datakey verify -A
  kubectl datakey verify orders --decrypt";

pub const ROTATE: &str = "\
Examples:
  kubectl datakey rotate orders --wait
  kubectl datakey rotate orders --patch";

pub const RETRY: &str = "\
Examples:
  kubectl datakey retry orders --wait
  kubectl datakey retry -l team=shop
  kubectl datakey retry -A";

pub const KEEP: &str = "\
Examples:
  kubectl datakey keep orders --dry-run
  kubectl datakey keep orders -n shop";

pub const CHECK: &str = "\
Examples:
  kubectl datakey check
  kubectl datakey check --operator-namespace data-keys -o json";

pub const KMS_KEYS: &str = "\
Examples:
  kubectl datakey kms-keys -A
  kubectl datakey kms-keys -A -o json";

pub const ORPHANS: &str = "\
Examples:
  kubectl datakey orphans -A
  kubectl datakey orphans -o name";

pub const POLICY: &str = "\
Examples:
  kubectl datakey policy orders
  kubectl datakey policy orders --only workload -o yaml
  kubectl datakey policy --class shop
  kubectl datakey policy --class shop --only trust
  kubectl datakey policy orders --rewrap --to-key-id \\
    arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

pub const VERSION: &str = "\
Examples:
  kubectl datakey version
  kubectl datakey version --client -o json";

pub const COMPLETION: &str = "\
Examples:
  kubectl datakey completion kubectl > kubectl_complete-datakey
  kubectl datakey completion bash";
