//! The requests that read `DataKey`s and `DataKeyPair`s.

use datakey::api::{DataKey, KINDS, KeyKind as _, Kind, KindId};
use futures::future::join_all;
use kube::api::{GetParams, ListParams};

use super::{
    Cluster, FetchedKey, Listing, Unlisted,
    errors::{explain, is_missing},
    objects_of,
};
use crate::{
    output::CommandError,
    reference::{Reference, explicit, plural},
};

/// Whether an installation can leave out the definition of a kind, or a role the rights on it.
fn is_optional(kind: &Kind) -> bool {
    kind.id != KindId::DataKey
}

// === impl Cluster ===

impl Cluster {
    /// Gets an object of the namespace.
    pub async fn get(&self, kind: &'static Kind, name: &str) -> Result<FetchedKey, CommandError> {
        match self.answer(kind, name).await {
            Ok(answer) => FetchedKey::decode(kind, &answer),
            Err(error) => Err(explain(&error, &self.what(kind, name))),
        }
    }

    /// Gets the present state of an object, in whatever namespace it is.
    pub async fn refreshed(&self, fetched: &FetchedKey) -> Result<FetchedKey, CommandError> {
        let (kind, namespace) = (fetched.kind(), fetched.namespace());
        let request = objects_of(kind, Some(&namespace)).get(&fetched.name(), &GetParams::default());
        match self.send(request).await {
            Ok(answer) => FetchedKey::decode(kind, &answer),
            Err(error) => Err(explain(&error, &format!("{} in namespace {namespace}", fetched.titled()))),
        }
    }

    /// Gets an object of the namespace, or `None` if it does not exist.
    pub async fn find(&self, kind: &'static Kind, name: &str) -> Result<Option<FetchedKey>, CommandError> {
        match self.answer(kind, name).await {
            Ok(answer) => FetchedKey::decode(kind, &answer).map(Some),
            Err(kube::Error::Api(status)) if is_missing(&status) => Ok(None),
            Err(error) => Err(explain(&error, &self.what(kind, name))),
        }
    }

    /// Gets the object that the user names.
    ///
    /// # Errors
    /// Returns an error if it does not exist, or if a bare name is that of several objects.
    pub async fn resolve(&self, reference: &Reference) -> Result<FetchedKey, CommandError> {
        let kind = reference.kind.unwrap_or(DataKey::KIND);
        match self.locate(reference).await? {
            Some(found) => Ok(found),
            // Its error says what to do.
            None => self.get(kind, &reference.name).await,
        }
    }

    /// Gets the object that the user names, or `None` if it does not exist. A bare name is that of a `DataKey` or, where there is
    /// none, of an object of another kind. A kind that the cluster does not have, or that the user may not read, has no objects.
    ///
    /// # Errors
    /// Returns an error if a bare name is that of several objects.
    pub async fn locate(&self, reference: &Reference) -> Result<Option<FetchedKey>, CommandError> {
        let name = &reference.name;
        if let Some(kind) = reference.kind {
            return self.find(kind, name).await;
        }
        let found = join_all(KINDS.map(async |kind| match self.answer(kind, name).await {
            Ok(answer) => FetchedKey::decode(kind, &answer).map(Some),
            Err(kube::Error::Api(status)) if is_missing(&status) => Ok(None),
            Err(kube::Error::Api(status)) if is_optional(kind) && [403, 404].contains(&status.code) => Ok(None),
            Err(error) => Err(explain(&error, &self.what(kind, name))),
        }));
        choose(found.await)
    }

    /// Lists the objects of all kinds in the namespace, or in all namespaces.
    pub async fn all(&self, all_namespaces: bool) -> Result<Listing, CommandError> {
        self.selected_by(None, all_namespaces).await
    }

    /// Lists the objects of all kinds in the namespace, or in all namespaces, that a label selector selects.
    pub async fn selected_by(&self, labels: Option<&str>, all_namespaces: bool) -> Result<Listing, CommandError> {
        self.list(&KINDS, labels, all_namespaces).await
    }

    /// Lists the objects of a kind in the namespace.
    pub async fn of_kind(&self, kind: &'static Kind) -> Result<Listing, CommandError> {
        self.list(&[kind], None, false).await
    }

    /// Gets one object, or lists all if `reference` is `None`.
    pub async fn selected(&self, reference: Option<&Reference>, all_namespaces: bool) -> Result<Listing, CommandError> {
        match reference {
            Some(reference) => Ok(Listing { keys: vec![self.resolve(reference).await?], ..Listing::default() }),
            None => self.all(all_namespaces).await,
        }
    }

    async fn list(
        &self,
        kinds: &[&'static Kind],
        labels: Option<&str>,
        all_namespaces: bool,
    ) -> Result<Listing, CommandError> {
        let namespace = (!all_namespaces).then_some(self.namespace.as_str());
        let params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        let lists = join_all(kinds.iter().map(async |kind| self.send(objects_of(kind, namespace).list(&params)).await));
        let mut listing = Listing::default();
        for (kind, listed) in kinds.iter().zip(lists.await) {
            let what = plural([kind.id]);
            match listed.and_then(|list| listing.decode(kind, &list)) {
                Ok(()) => {}
                // Without the kind the answer is plain text.
                Err(kube::Error::Api(status)) if is_optional(kind) && status.code == 404 => {
                    // A definition that is replaced is missing for a moment only.
                    let (has_no_definition, note) = match self.serves(kind.plural).await {
                        Ok(false) => {
                            (true, format!("note: {what} are not installed: the API server does not know them"))
                        }
                        _ => {
                            (false, format!("note: {what} are left out: the API server did not know them for a moment"))
                        }
                    };
                    listing.unlisted.push(Unlisted { kind, has_no_definition, note });
                }
                Err(error) => match explain(&error, &what) {
                    CommandError::Forbidden(why) if is_optional(kind) => {
                        let note = format!("note: {what} are left out. {why}");
                        listing.unlisted.push(Unlisted { kind, has_no_definition: false, note });
                    }
                    error => return Err(error),
                },
            }
        }
        Ok(listing)
    }

    async fn answer(&self, kind: &'static Kind, name: &str) -> Result<String, kube::Error> {
        self.send(objects_of(kind, Some(&self.namespace)).get(name, &GetParams::default())).await
    }

    /// What messages call an object of the namespace.
    pub(super) fn what(&self, kind: &Kind, name: &str) -> String {
        format!("{} {name} in namespace {}", kind.name, self.namespace)
    }
}

/// Returns the only object that has a bare name, of what was found of each kind. An object of one kind must not be taken for that of
/// another one, so an object that may be there and could not be read is an error.
fn choose(found: Vec<Result<Option<FetchedKey>, CommandError>>) -> Result<Option<FetchedKey>, CommandError> {
    let all: Vec<_> = found.into_iter().collect::<Result<_, _>>()?;
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    if all.len() > 1 { Err(ambiguous(&all)) } else { Ok(all.pop()) }
}

fn ambiguous(all: &[FetchedKey]) -> CommandError {
    let join = |each: &dyn Fn(&FetchedKey) -> String, by| all.iter().map(each).collect::<Vec<_>>().join(by);
    CommandError::Usage(format!(
        "namespace {} has {}: write {}",
        all.first().map(FetchedKey::namespace).unwrap_or_default(),
        join(&FetchedKey::titled, " and "),
        join(&|fetched| explicit(fetched.kind(), &fetched.name()), " or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{pair, ready};

    fn unanswered() -> Result<Option<FetchedKey>, CommandError> {
        Err(CommandError::Unanswered("away".to_owned()))
    }

    #[test]
    fn bare_name_is_that_of_one_object() {
        let (key, other) = (|| Ok(Some(ready(&[1]))), || Ok(Some(pair(&[1]))));
        let name = |found: Vec<_>| choose(found).map(|found| found.map(|found| found.titled()));
        assert_eq!(name(vec![key(), Ok(None)]), Ok(Some("DataKey orders".to_owned())));
        assert_eq!(name(vec![Ok(None), other()]), Ok(Some("DataKeyPair orders".to_owned())));
        assert_eq!(name(vec![Ok(None), Ok(None)]), Ok(None));
        assert_eq!(
            name(vec![key(), other()]).unwrap_err().to_string(),
            "namespace shop has DataKey orders and DataKeyPair orders: write datakey/orders or datakeypair/orders"
        );
    }

    #[test]
    fn bare_name_means_nothing_while_a_kind_is_not_read() {
        for found in [Some(ready(&[1])), None] {
            assert!(choose(vec![Ok(found), unanswered()]).is_err());
        }
        assert!(choose(vec![unanswered(), Ok(Some(pair(&[1])))]).is_err());
    }
}
