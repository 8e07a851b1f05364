//! A `DataKey` as the watch delivers it. It is decoded only where it is news.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, core::ObjectMeta};
use serde::Deserialize;

use datakey::{api::DataKey, decode::Encoded};

/// A `DataKey` of the watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct WatchedKey(pub Encoded);

impl Resource for WatchedKey {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        DataKey::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        DataKey::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <DataKey as Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        DataKey::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}
