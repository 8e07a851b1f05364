//! `kubectl datakey inject`: adds `datakey-unwrap` to the pods of a manifest, so that their containers get the plaintext of a data
//! key or key pair. It changes nothing in the cluster: it reads the record, which says what the helper may trust.

use std::{fs, io::Read as _, path::Path};

use helper::{Helper, Names};
use unwrapping::Unwrapping;

use crate::{
    cli::inject::Inject,
    cluster::Cluster,
    output::{CommandError, Output},
};

mod edit;
mod helper;
mod pod;
mod tree;
mod unwrapping;
mod value;
mod workload;

#[cfg(test)]
mod tests;

/// Prints the manifest with the helper.
pub async fn run(cluster: &Cluster, args: &Inject) -> Result<Output, CommandError> {
    let text = read(&args.filename)?;
    // First, because a mistake in the file needs no cluster.
    tree::parse(&text).map_err(|why| unreadable(&why))?;
    let fetched = cluster.resolve(&args.name).await?;
    inject(&text, &Unwrapping::of(&fetched, args)?, args)
}

fn read(file: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|found| text = found)
    };
    match read {
        Ok(()) => Ok(text),
        Err(error) => Err(CommandError::Usage(format!("can't read {}: {error}", file.display()))),
    }
}

fn unreadable(why: &str) -> CommandError {
    CommandError::Usage(format!("the file is no YAML or JSON: {why}"))
}

/// Returns the text with the helper in each pod.
fn inject(text: &str, unwrapping: &Unwrapping, args: &Inject) -> Result<Output, CommandError> {
    let roots = tree::parse(text).map_err(|why| unreadable(&why))?;
    let workloads = workload::find(&roots);
    if workloads.is_empty() {
        return Err(CommandError::Usage("the file has no object with pods: nothing can get the plaintext".to_owned()));
    }
    let helper = Helper { args, names: Names::of(&unwrapping.secret), unwrapping };
    let (mut out, mut notes) = (text.to_owned(), Vec::new());
    // One at a time: the form of each document is its own.
    for index in 0..workloads.len() {
        let roots = tree::parse(&out).map_err(|why| unreadable(&why))?;
        let workloads = workload::find(&roots);
        let Some(workload) = workloads.get(index) else { continue };
        let refuse = |why: String| CommandError::Usage(format!("{} can't have the helper: {why}", workload.title));
        if let Some(other) = workload.namespace.filter(|namespace| *namespace != unwrapping.namespace) {
            return Err(refuse(format!(
                "it is in namespace {other}, and pods mount Secrets of their own namespace, which is not {}",
                unwrapping.namespace
            )));
        }
        let pod = workload.pod.as_ref().map_err(|why| refuse(why.clone()))?;
        let mut edits = edit::Edits::of(&out);
        edits.like(workload.root, pod.spec.entry("containers").map(|(key, list)| (key, list)));
        let found = pod::add(&helper, pod, &mut edits).map_err(refuse)?;
        notes.extend(found.into_iter().map(|note| format!("note: {}: {note}", workload.title)));
        let edited = edits.apply();
        drop(workloads);
        out = edited;
    }
    notes.extend(unwrapping.notes.iter().cloned());
    notes.extend(hints(args));
    Ok(Output { notes, ..Output::text(out) })
}

/// What the user may have to do.
fn hints(args: &Inject) -> impl Iterator<Item = String> {
    let image = args.image.is_none().then(|| {
        format!("note: the image is {}: name yours by --image, or by images in a kustomization", helper::IMAGE)
    });
    let role = args.role_arn.is_none().then(|| {
        "note: no --role-arn: the pods need kms:Decrypt by EKS Pod Identity, or by the role of their service account".to_owned()
    });
    image.into_iter().chain(role)
}
