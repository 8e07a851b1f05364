//! `kubectl datakey rotate`: a new number in `spec.version`, on which the operator has a new data key issued.

use std::time::Duration;

use datakey::api::{FIRST_VERSION, MAX_VERSIONS};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    answer::{Answer, Failure, yaml},
    args::Rotate,
    cluster::{Cluster, Object},
    standing::Standing,
    text::printable,
};

/// How often the API server is asked while waiting.
pub const EVERY: Duration = Duration::from_millis(500);

/// Labels and annotations by which tools mark what they apply from Git.
const FROM_GIT: [(&str, &str); 5] = [
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("meta.helm.sh/release-name", "Helm"),
];

/// Raises the version of a `DataKey`.
pub async fn run(cluster: &Cluster, args: &Rotate) -> Result<Answer, Failure> {
    let object = cluster.data_key(&args.name).await?;
    let next = next_version(&object)?;
    if !args.force {
        ready_for_it(&object)?;
    }
    if args.patch {
        return Ok(Answer::text(patch_for_git(&object, next)?));
    }
    let mut answer = Answer::default();
    if let Some(tool) = applied_by(&object) {
        answer.notes.push(format!(
            "note: {tool} applies this DataKey and will set spec.version back, unless you change it there too; \
             --patch prints the change"
        ));
    }
    let changed = cluster.patch(&args.name, &guarded_patch(&object, next)?, args.dry_run).await?;
    let from = object.key.version();
    if args.dry_run {
        answer.out = format!("{} would be rotated from version {from} to {next} (dry run)\n", args.name).into_bytes();
        return Ok(answer);
    }
    answer.out = format!("{} rotated from version {from} to {next}\n", args.name).into_bytes();
    if args.wait {
        for note in answer.notes.drain(..) {
            eprintln!("{}", printable(&note));
        }
        eprintln!("spec.version is {next}; waiting until the data key is issued and in the Secret");
        wait(cluster, args, changed, next).await?;
    }
    Ok(answer)
}

/// The number behind every one that was ever used: recorded, pinned in the spec, or asked for.
fn next_version(object: &Object) -> Result<i32, Failure> {
    let key = &object.key;
    // Not every definition has pins; where there are none, none are counted.
    let pins = object.value["spec"]["wrappedKeys"].as_array();
    let pinned = pins.into_iter().flatten().filter_map(|pin| i32::try_from(pin["version"].as_i64()?).ok());
    let recorded = key.record().iter().map(|issued| issued.version);
    let used: std::collections::BTreeSet<_> = recorded.chain(pinned).collect();
    if used.len() >= MAX_VERSIONS {
        return Err(Failure::Work(format!(
            "all {MAX_VERSIONS} versions of DataKey {} are used: create another DataKey",
            object.name()
        )));
    }
    let highest = used.last().copied().unwrap_or(FIRST_VERSION).max(key.version());
    highest.checked_add(1).ok_or_else(|| {
        Failure::Work(format!(
            "DataKey {} has version {highest}, the highest number there is: set spec.version to a free lower one by hand",
            object.name()
        ))
    })
}

/// A version that is not issued yet would be left behind for ever.
fn ready_for_it(object: &Object) -> Result<(), Failure> {
    let standing = Standing::of(&object.key);
    if standing.deleting {
        return Err(Failure::NotReady(format!("DataKey {} is being deleted", standing.name)));
    }
    if standing.is_ready() {
        return Ok(());
    }
    Err(Failure::NotReady(format!(
        "DataKey {} is not Ready ({}: {}), and nothing was done: mend that first, or rotate it nevertheless by --force",
        standing.name, standing.reason, standing.message
    )))
}

/// The change, refused by the API server if the `DataKey` is no longer as it was read.
fn guarded_patch(object: &Object, next: i32) -> Result<Value, Failure> {
    let (Some(uid), Some(read)) = (&object.key.metadata.uid, &object.key.metadata.resource_version) else {
        return Err(Failure::Work("the API server's answer has no uid or resourceVersion".to_owned()));
    };
    Ok(json!({ "metadata": { "uid": uid, "resourceVersion": read }, "spec": { "version": next } }))
}

/// The change for Git: for kustomize's `patches`, or `kubectl patch --type=merge --patch-file`.
fn patch_for_git(object: &Object, next: i32) -> Result<String, Failure> {
    yaml(&json!({
        "apiVersion": object.value["apiVersion"],
        "kind": object.value["kind"],
        "metadata": { "name": object.name(), "namespace": object.namespace() },
        "spec": { "version": next },
    }))
}

/// The tool that applies the `DataKey` from elsewhere, where it marks what it applies.
pub fn applied_by(object: &Object) -> Option<&'static str> {
    let metadata = &object.key.metadata;
    let marked = |mark: &str| {
        [&metadata.labels, &metadata.annotations].into_iter().flatten().any(|marks| marks.contains_key(mark))
    };
    FROM_GIT.into_iter().find_map(|(mark, tool)| marked(mark).then_some(tool))
}

/// What the wait for a version comes to.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    GoOn(String),
    /// A person must act, so time won't mend it.
    GiveUp(String),
}

fn progress(object: &Object, version: i32) -> Progress {
    let standing = Standing::of(&object.key);
    if standing.wanted_version != version {
        return Progress::GiveUp(format!("spec.version was set to {} meanwhile", standing.wanted_version));
    }
    if standing.is_ready() && standing.version == Some(version) {
        return Progress::Done;
    }
    let why = format!("{}: {}", standing.reason, standing.message);
    if standing.stalled || standing.deleting { Progress::GiveUp(why) } else { Progress::GoOn(why) }
}

async fn wait(cluster: &Cluster, args: &Rotate, mut object: Object, version: i32) -> Result<(), Failure> {
    let until = Instant::now() + args.timeout;
    loop {
        let why = match progress(&object, version) {
            Progress::Done => return Ok(()),
            Progress::GiveUp(why) => return Err(not_ready(args, version, &why)),
            Progress::GoOn(why) => why,
        };
        if Instant::now() + EVERY > until {
            return Err(not_ready(
                args,
                version,
                &format!("not within {}; {why}", humantime::format_duration(args.timeout)),
            ));
        }
        sleep(EVERY).await;
        object = cluster.data_key(&args.name).await?;
    }
}

fn not_ready(args: &Rotate, version: i32, why: &str) -> Failure {
    let name = &args.name;
    Failure::NotReady(format!(
        "spec.version of DataKey {name} is {version}, but it is not Ready: {why}; look at kubectl datakey status {name}"
    ))
}

#[cfg(test)]
mod tests {
    use datakey::status::{PENDING, Reason, failed};

    use super::*;
    use crate::fixtures::{at, edited, issued, ready, recorded, with_status};

    #[test]
    fn the_next_number_is_behind_all_that_were_ever_used() {
        assert_eq!(next_version(&ready(&[1])), Ok(2));
        assert_eq!(next_version(&ready(&[1, 7])), Ok(8));
        let went_back = edited(ready(&[1, 7]), |value| value["spec"]["version"] = json!(1));
        assert_eq!(next_version(&went_back), Ok(8));
        let pinned = edited(ready(&[1]), |value| value["spec"]["wrappedKeys"] = json!([issued(1), issued(9)]));
        assert_eq!(next_version(&pinned), Ok(10));
        let asked = edited(ready(&[1]), |value| value["spec"]["version"] = json!(4));
        assert_eq!(next_version(&asked), Ok(5));
        assert_eq!(next_version(&recorded(&[])), Ok(2), "version 1 is asked for");
    }

    #[test]
    fn there_is_an_end_of_versions() {
        let all: Vec<i32> = (1..=64).collect();
        assert!(next_version(&ready(&all)).unwrap_err().to_string().contains("create another DataKey"));
        let highest = edited(ready(&[1]), |value| value["spec"]["version"] = json!(i32::MAX));
        assert!(next_version(&highest).unwrap_err().to_string().contains("by hand"));
    }

    #[test]
    fn only_a_ready_data_key_is_rotated() {
        assert_eq!(ready_for_it(&ready(&[1])), Ok(()));
        let pending = edited(ready(&[1]), |value| value["metadata"]["generation"] = json!(2));
        let deleted =
            edited(ready(&[1]), |value| value["metadata"]["deletionTimestamp"] = json!("2027-01-15T08:00:00Z"));
        for object in [recorded(&[]), pending, deleted] {
            assert!(matches!(ready_for_it(&object), Err(Failure::NotReady(_))));
        }
    }

    #[test]
    fn the_change_holds_for_the_object_that_was_read_only_and_the_one_for_git_always() {
        let patch = guarded_patch(&ready(&[1]), 2).unwrap();
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "7c3c8f7e-0001", "resourceVersion": "100" }, "spec": { "version": 2 } })
        );
        let git: Value = serde_saphyr::from_str(&patch_for_git(&ready(&[1]), 2).unwrap()).unwrap();
        assert_eq!(
            git,
            json!({
                "apiVersion": "datakey.dev/v1alpha1",
                "kind": "DataKey",
                "metadata": { "name": "orders", "namespace": "shop" },
                "spec": { "version": 2 },
            })
        );
    }

    #[test]
    fn tools_that_apply_from_git_are_known_by_their_marks() {
        assert_eq!(applied_by(&ready(&[1])), None);
        for (field, mark, tool) in [
            ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
            ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
        ] {
            let object = edited(ready(&[1]), |value| value["metadata"][field] = json!({ mark: "x" }));
            assert_eq!(applied_by(&object), Some(tool));
        }
    }

    #[test]
    fn the_wait_ends_when_it_is_done_or_time_would_not_mend_it() {
        assert_eq!(progress(&ready(&[1, 2]), 2), Progress::Done);
        let waiting = edited(ready(&[1]), |value| {
            value["spec"]["version"] = json!(2);
            value["metadata"]["generation"] = json!(2);
        });
        assert!(matches!(progress(&waiting, 2), Progress::GoOn(why) if why.starts_with(PENDING)));
        let with = |reason: Reason| {
            let object = edited(ready(&[1]), |value| value["spec"]["version"] = json!(2));
            with_status(object, |key| failed(key, &reason.into(), at(9)))
        };
        assert!(matches!(progress(&with(Reason::Throttled), 2), Progress::GoOn(_)));
        assert!(matches!(progress(&with(Reason::KeyDisabled), 2), Progress::GiveUp(why) if why.contains("enable it")));
        assert!(matches!(progress(&ready(&[1, 2, 3]), 2), Progress::GiveUp(_)), "somebody wants another version");
    }
}
