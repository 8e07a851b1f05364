//! The rights of the user, for what the commands need.

use datakey::api::{DataKey, DataKeyPair, KeyKind as _};

use super::Finding;
use crate::{
    cluster::{CLASSES, Right},
    output::CommandError,
};

/// A right, and the commands that need it.
pub struct NeededRight {
    pub right: Right,
    commands: &'static str,
}

const fn on_keys(verb: &'static str, commands: &'static str) -> NeededRight {
    NeededRight { right: Right { verb, group: "datakey.dev", resource: DataKey::KIND.plural }, commands }
}

const fn on_pairs(verb: &'static str, commands: &'static str) -> NeededRight {
    NeededRight { right: Right { verb, group: "datakey.dev", resource: DataKeyPair::KIND.plural }, commands }
}

const fn on_classes(verb: &'static str, commands: &'static str) -> NeededRight {
    NeededRight { right: Right { verb, group: "datakey.dev", resource: CLASSES }, commands }
}

const fn on_core(verb: &'static str, resource: &'static str, commands: &'static str) -> NeededRight {
    NeededRight { right: Right { verb, group: "", resource }, commands }
}

/// All of them. Server-side apply needs `patch`, and `create` for a DataKey that is not there.
pub const RIGHTS: [NeededRight; 9] = [
    on_keys(
        "get",
        "status, verify, export, inject, policy, retry, rotate, rewrap, keep, create --apply, import --apply",
    ),
    on_keys("list", "list, kms-keys, orphans, status, verify, retry and rewrap of several, import --apply of many"),
    on_keys("patch", "retry, rotate, rewrap --apply, create --apply, import --apply"),
    on_keys("create", "create --apply, import --apply, keep"),
    on_keys("delete", "keep"),
    on_core("get", "secrets", "status, verify, keep, import --from-secret"),
    on_core("list", "secrets", "orphans"),
    on_core("get", "configmaps", "import --from-configmap"),
    on_core("list", "events", "status"),
];

/// Those on `DataKeyPair`s.
pub const PAIR_RIGHTS: [NeededRight; 5] = [
    on_pairs("get", "status, verify, export, inject, public-key, policy, retry, rotate, rewrap, keep, create --apply"),
    on_pairs("list", "list, kms-keys, orphans, status, verify, retry and rewrap of several"),
    on_pairs("patch", "retry, rotate, rewrap --apply, create --apply"),
    on_pairs("create", "create --apply, keep"),
    on_pairs("delete", "keep"),
];

/// Those on classes, which are in no namespace.
pub const CLASS_RIGHTS: [NeededRight; 2] = [on_classes("get", "classes NAME"), on_classes("list", "classes")];

/// The rights that matter in a cluster with or without DataKeyPairs: the chart can leave out their definition, and rights on them
/// with it.
pub fn needed(serves_key_pairs: bool) -> impl Iterator<Item = &'static NeededRight> {
    RIGHTS.iter().chain(PAIR_RIGHTS.iter().filter(move |_| serves_key_pairs))
}

/// Whether the user has it.
pub fn check(needed: &NeededRight, namespace: Option<&str>, answer: Result<bool, CommandError>) -> Finding {
    let NeededRight { right: Right { verb, resource, .. }, commands } = needed;
    let check = format!("{verb} {resource}");
    let place = namespace.map_or_else(|| "in all namespaces".to_owned(), |name| format!("in namespace {name}"));
    match answer {
        Ok(true) => Finding::ok(check, format!("you may {place}; for {commands}")),
        Ok(false) => {
            let next = "ask for a role with it (view and edit have the rights on DataKeys and DataKeyPairs, edit those on Secrets), or choose \
                        another -n";
            Finding::failed(check, format!("you may not {place}; for {commands}"), next)
        }
        Err(error) => Finding::unknown(check, error.to_string(), format!("kubectl auth can-i {verb} {resource}")),
    }
}

/// Whether the user has a right on classes. Few users have it, and without it all other commands work, so it is no failure.
pub fn check_on_classes(needed: &NeededRight, answer: Result<bool, CommandError>) -> Finding {
    let NeededRight { right: Right { verb, resource, .. }, commands } = needed;
    let check = format!("{verb} {resource}");
    match answer {
        Ok(true) => Finding::ok(check, format!("you may; for {commands}")),
        Ok(false) => Finding::note(
            check,
            format!("you may not, and only {commands} would use it"),
            "if you need it, ask for a ClusterRoleBinding to the ClusterRole RELEASE:classes-reader of the chart",
        ),
        Err(error) => Finding::unknown(check, error.to_string(), format!("kubectl auth can-i {verb} {resource}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::CheckResult, *};

    #[test]
    fn every_command_that_reaches_the_cluster_has_its_rights() {
        use clap::CommandFactory;

        let without = ["completion", "version", "check", "__complete"];
        for command in crate::cli::Cli::command().get_subcommands().map(clap::Command::get_name) {
            let has = needed(true)
                .chain(&CLASS_RIGHTS)
                .any(|needed| needed.commands.split([' ', ',']).any(|word| word == command));
            assert!(has || without.contains(&command), "{command}");
        }
    }

    #[test]
    fn rights_on_key_pairs_matter_where_they_are_served() {
        let of_pairs = |serves| needed(serves).filter(|needed| needed.right.resource == "datakeypairs").count();
        assert_eq!((of_pairs(true), of_pairs(false)), (PAIR_RIGHTS.len(), 0));
        assert_eq!(needed(false).count(), RIGHTS.len());
    }

    #[test]
    fn right_on_classes_is_needed_by_few_users() {
        let missing = check_on_classes(&CLASS_RIGHTS[1], Ok(false));
        assert_eq!((missing.check.as_str(), missing.result), ("list datakeyclasses", CheckResult::Ok));
        assert!(missing.next.unwrap().contains("RELEASE:classes-reader"));
        assert_eq!(check_on_classes(&CLASS_RIGHTS[1], Ok(true)).next, None);
        let unknown = check_on_classes(&CLASS_RIGHTS[1], Err(CommandError::Failed(String::new())));
        assert_eq!(unknown.result, CheckResult::NotChecked);
    }

    #[test]
    fn missing_right_names_the_commands_that_need_it() {
        let refused = check(&RIGHTS[2], Some("shop"), Ok(false));
        assert_eq!((refused.check.as_str(), refused.result), ("patch datakeys", CheckResult::Failed));
        assert_eq!(
            refused.detail,
            "you may not in namespace shop; for retry, rotate, rewrap --apply, create --apply, import --apply"
        );
        assert_eq!(check(&RIGHTS[2], None, Ok(true)).result, CheckResult::Ok);
        let unknown = check(&RIGHTS[2], None, Err(CommandError::Failed(String::new())));
        assert_eq!(unknown.result, CheckResult::NotChecked);
    }
}
