//! The requests that read `DataKeyClass`es.

use datakey::{
    api::{ACCEPTED, DataKeyClass, DataKeyClassStatus, ROLE_ASSUMED},
    class::Class,
    decode::Encoded,
    text::clause,
};
use kube::{
    Resource,
    api::{GetParams, ListParams},
    core::request::Request,
};

use super::{
    Cluster, answer,
    errors::{explain, is_missing},
    require_names,
};
use crate::output::CommandError;

/// The name of the resource.
pub const CLASSES: &str = "datakeyclasses";

/// A class as the API server has it.
#[derive(Clone, Debug)]
pub struct FetchedClass {
    /// The class, as the operator judges by it.
    pub class: Class,
    /// What the operator wrote about it.
    status: DataKeyClassStatus,
}

// === impl FetchedClass ===

impl FetchedClass {
    /// Decodes the JSON of a class. One whose spec cannot be decoded is a class with a flaw, as for the operator.
    ///
    /// # Errors
    /// It is no object.
    pub fn decode(json: &str) -> Result<Self, CommandError> {
        let encoded: Encoded = serde_json::from_str(json).map_err(|error| {
            CommandError::Failed(format!(
                "the API server's answer is no DataKeyClass that this plugin can read: {error}"
            ))
        })?;
        Ok(Self { class: Class::of(&encoded), status: encoded.decode_status().unwrap_or_default() })
    }

    /// Whether the operator accepts the class as it is now, and its message; `None` if it has not said so.
    pub fn accepted(&self) -> Option<(bool, &str)> {
        self.condition(ACCEPTED)
    }

    /// Whether the operator can assume the role of the class as it is now, and its message; `None` if it has not said so.
    pub fn role_assumed(&self) -> Option<(bool, &str)> {
        self.condition(ROLE_ASSUMED)
    }

    fn condition(&self, name: &str) -> Option<(bool, &str)> {
        let (_, generation) = self.class.state();
        let mut conditions = self.status.conditions.iter().flatten();
        let found = conditions.find(|condition| condition.type_ == name)?;
        let is_current = found.observed_generation == Some(generation);
        is_current.then_some((found.status == "True", found.message.as_str()))
    }

    /// How many objects of the cluster use it, by the operator.
    pub fn in_use(&self) -> Option<i64> {
        self.status.in_use
    }
}

// === impl Cluster ===

impl Cluster {
    /// Lists the classes; `None` if the cluster has no definition of them.
    ///
    /// # Errors
    /// Returns [`CommandError::Forbidden`] if the user may not.
    pub async fn classes(&self) -> Result<Option<Vec<FetchedClass>>, CommandError> {
        let request = Request::new(DataKeyClass::url_path(&(), None)).list(&ListParams::default());
        let list = match self.send(request).await {
            Ok(list) => list,
            // Without the definition the answer is plain text.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(explain_classes(&error, "DataKeyClasses")),
        };
        let items = answer::items(&list).map_err(|error| explain(&error, "DataKeyClasses"))?;
        items.iter().map(|item| FetchedClass::decode(item.get())).collect::<Result<_, _>>().map(Some)
    }

    /// Gets the classes of these names; `None` if the cluster has no definition of them. A user can have the right on some alone.
    ///
    /// # Errors
    /// Returns an error if one does not exist.
    pub async fn named_classes<T: AsRef<str>>(&self, names: &[T]) -> Result<Option<Vec<FetchedClass>>, CommandError> {
        let mut found = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            let what = format!("DataKeyClass {name}");
            // The name can come from the spec of an object, and becomes a part of a path.
            require_names(&[name], &what)?;
            let request = Request::new(DataKeyClass::url_path(&(), None)).get(name, &GetParams::default());
            match self.send(request).await {
                Ok(json) => found.push(FetchedClass::decode(&json)?),
                Err(kube::Error::Api(status)) if is_missing(&status) => {
                    return Err(CommandError::Failed(format!(
                        "there is no {what}; kubectl datakey classes lists those that there are"
                    )));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(error) => return Err(explain_classes(&error, &what)),
            }
        }
        Ok(Some(found))
    }

    /// The names of the classes, by their metadata.
    pub async fn class_names(&self) -> Result<Vec<String>, CommandError> {
        self.names(DataKeyClass::url_path(&(), None), "DataKeyClasses").await
    }
}

/// Explains why classes could not be read. No role of a namespace has the right.
fn explain_classes(error: &kube::Error, what: &str) -> CommandError {
    match error {
        kube::Error::Api(status) if status.code == 403 => CommandError::Forbidden(format!(
            "{what}: you may not: {}; ask the platform team for a ClusterRoleBinding to the ClusterRole RELEASE:classes-reader of the \
             chart, or for get on the classes of your namespace (then name them: kubectl datakey classes NAME). A RoleBinding does \
             not grant it, because classes are in no namespace",
            clause(&status.message)
        )),
        error => explain(error, what),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::{Value, json};

    use super::*;

    fn class(status: &Value) -> FetchedClass {
        let object = json!({
            "metadata": { "name": "shop", "uid": "u", "generation": 3 },
            "spec": { "namespaces": ["shop"], "allow": [{ "keyIds": ["alias/shop"] }] },
            "status": status,
        });
        FetchedClass::decode(&object.to_string()).unwrap()
    }

    #[test]
    fn resource_is_that_of_the_definition() {
        assert_eq!(CLASSES, DataKeyClass::plural(&()));
    }

    #[test]
    fn only_a_condition_of_the_present_spec_counts() {
        let says = |name: &str, status: &str, generation: i64| {
            json!({ "inUse": 2, "conditions": [{
                "type": name, "status": status, "reason": "x", "message": "why", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] })
        };
        let accepted = |status: &str, generation| says("Accepted", status, generation);
        assert_eq!(class(&accepted("True", 3)).accepted(), Some((true, "why")));
        assert_eq!(class(&accepted("False", 3)).accepted(), Some((false, "why")));
        assert_eq!(class(&accepted("False", 2)).accepted(), None);
        let assumed = |status: &str, generation| says("RoleAssumed", status, generation);
        assert_eq!(class(&assumed("False", 3)).role_assumed(), Some((false, "why")));
        assert_eq!((class(&assumed("False", 2)).role_assumed(), class(&assumed("True", 3)).accepted()), (None, None));
        assert_eq!((class(&json!({})).accepted(), class(&accepted("True", 3)).in_use()), (None, Some(2)));
    }

    #[test]
    fn class_that_cannot_be_decoded_has_a_flaw() {
        let odd = json!({ "metadata": { "name": "odd" }, "spec": { "namespaces": 7 } });
        let odd = FetchedClass::decode(&odd.to_string()).unwrap();
        assert!(odd.class.flaw().unwrap().contains("spec.namespaces"), "{:?}", odd.class.flaw());
        assert!(!odd.class.admits("shop") && FetchedClass::decode("[]").is_err());
    }

    #[test]
    fn refusal_says_what_to_ask_for() {
        let status = Status { code: 403, message: "datakeyclasses is forbidden\n".to_owned(), ..Status::default() };
        let why = explain_classes(&kube::Error::Api(Box::new(status)), "DataKeyClasses");
        assert!(matches!(&why, CommandError::Forbidden(why) if why.contains("RELEASE:classes-reader")), "{why}");
        let away = explain_classes(&kube::Error::Service("reset".into()), "DataKeyClasses");
        assert!(matches!(away, CommandError::Unanswered(_)), "{away}");
    }
}
