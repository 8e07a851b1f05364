//! Completion of commands, flags and values by kubectl.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::json;
use testbed::commands;

use super::{User, text};
use crate::harness::TestNamespace;

/// Completes the last of the words by the function of kubectl for bash. The package bash-completion has the first function.
const BASH_COMPLETION: &str = r#"
source <(kubectl completion bash)
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]}; words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
__start_kubectl 2>/dev/null
printf "%s\n" "${COMPREPLY[@]}"
"#;

fn kubectl_folder() -> PathBuf {
    testbed::asset("kubectl").unwrap().parent().unwrap().to_owned()
}

#[tokio::test]
async fn kubectl_completes_commands_flags_and_names() {
    let test = TestNamespace::new("plugin-complete").await;
    test.create("orders", &json!({})).await;
    test.create("payments", &json!({})).await;
    let user = User::of(&test);
    let folder = test.plane.workdir().file("completion");
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("kubectl_complete-datakey");
    std::fs::write(&script, user.types(&["datakey", "completion", "kubectl"]).await.out).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The first folder is the plugin's own.
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let offers = async |words: &[&str]| {
        let environment: Vec<_> = user.environment().collect();
        let environment =
            [environment, vec![("PATH", format!("{}:{path}", testbed::plugin().parent().unwrap().display()))]];
        let words = [&["__complete", "datakey"], words].concat();
        let ended = commands::plugin(&testbed::plugin(), &environment.concat(), &words).await;
        let offered = text(&ended);
        let words: Vec<_> = offered.lines().filter_map(|line| line.split('\t').next()).map(str::to_owned).collect();
        words
    };
    test.class(&json!({})).await;
    assert_eq!(offers(&["classes", "plugin-compl"]).await, ["plugin-complete", ":4"]);
    assert_eq!(offers(&["create", "k", "--class-name", "plugin-compl"]).await, ["plugin-complete", ":4"]);
    assert_eq!(offers(&["classes", "-n", "plugin-complete", "--for", "o"]).await, ["orders", ":4"]);
    crate::key_pairs::pairs(&test).create("tokens", &json!({})).await;
    assert_eq!(offers(&["public-key", "-n", "plugin-complete", ""]).await, ["tokens", ":4"]);
    assert_eq!(offers(&["public-key", "-n", "plugin-complete", "dkp/t"]).await, ["dkp/tokens", ":4"]);
    assert_eq!(offers(&["sta"]).await, ["status", ":4"]);
    assert_eq!(offers(&["status", "-n", "plugin-complete", "o"]).await, ["orders", ":4"]);
    assert_eq!(
        offers(&["export", "-n", "plugin-complete", ""]).await,
        ["orders", "payments", "datakeypair/tokens", ":4"]
    );
    assert_eq!(offers(&["export", "orders", "-o", "j"]).await, ["json", ":4"]);
    assert_eq!(offers(&["export", "-n", "plugin-complete", "d"]).await, ["datakeypair/tokens", ":4"]);
    assert_eq!(offers(&["export", "-n", "plugin-complete", "dkp/"]).await, ["dkp/tokens", ":4"]);
    assert_eq!(offers(&["export", "-n", "plugin-complete", "datakey/p"]).await, ["datakey/payments", ":4"]);
    assert_eq!(offers(&["create", "k", "--key-pair-spec", "SM"]).await, ["SM2", ":4"]);
    test.patch("orders", &json!({ "metadata": { "labels": { "team": "shop", "stage": "prod" } } })).await;
    test.patch("payments", &json!({ "metadata": { "labels": { "team": "bank" } } })).await;
    assert_eq!(offers(&["list", "-n", "plugin-complete", "-l", "t"]).await, ["team=", ":6"]);
    assert_eq!(offers(&["list", "-n", "plugin-complete", "-l", "team=s"]).await, ["team=shop", ":4"]);
    assert_eq!(offers(&["list", "-n", "plugin-complete", "--selector=team=s"]).await, ["team=shop", ":4"]);
    assert!(offers(&["retry", "-A", "-l", "stage="]).await.contains(&"stage=prod".to_owned()));
    let name = json!({ "name": "old", "namespace": test.namespace });
    test.apply(&[
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": name, "stringData": { "key": "x", "more": "x" } }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": { "text": "x" },
                "binaryData": { "raw": "eA==" } }),
    ])
    .await;
    assert_eq!(offers(&["import", "k", "-n", "plugin-complete", "--from-secret", "o"]).await, ["old/", ":6"]);
    let entries = offers(&["import", "k", "-n", "plugin-complete", "--from-secret", "old/"]).await;
    assert_eq!(entries, ["old/key", "old/more", ":4"]);
    let entries = offers(&["import", "k", "-n", "plugin-complete", "--from-configmap=old/"]).await;
    assert_eq!(entries, ["old/text", "old/raw", ":4"]);
    assert_eq!(offers(&["list", "-n", "plugin-compl"]).await, ["plugin-complete", ":4"]);
    let contexts = offers(&["list", "--context", ""]).await;
    assert_eq!(contexts.len(), 2, "{contexts:?}");

    // The completion of kubectl for bash, with the words as bash-completion splits them; the other shells ask the same way.
    let folders = [folder.clone(), testbed::plugin().parent().unwrap().to_owned(), kubectl_folder()];
    let environment: Vec<_> = user.environment().collect();
    for (typed, offered) in [
        ("datakey list -n plugin-complete -l t", "team="),
        // readline replaces the part after the equals sign.
        ("datakey list -n plugin-complete -l team=s", "shop"),
        ("datakey status -n plugin-complete o", "orders"),
        ("datakey import k -n plugin-complete --from-secret old/m", "old/more"),
        ("datakey export orders -o j", "json"),
    ] {
        let script = format!("bash -c '{BASH_COMPLETION}' bash kubectl {typed}");
        let ended = commands::shell(&folders, &environment, &script).await;
        assert_eq!((ended.code, text(&ended).trim()), (0, offered), "{typed}: {}", ended.err);
    }
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = test.plane.kubectl(&["completion", shell]).await.unwrap();
        assert!(script.contains("__complete"), "{shell}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(text(&user.types(&["datakey", "completion", shell]).await).contains("kubectl-datakey"), "{shell}");
    }
}
