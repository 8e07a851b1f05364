//! An object as the watch delivers it. It is decoded only where it is news.

use std::{borrow::Cow, marker::PhantomData};

use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};

use datakey::{api::KeyKind, decode::Encoded};

/// An object of the watch over a kind.
#[derive(Debug)]
pub struct WatchedKey<K>(pub Encoded, pub PhantomData<fn() -> K>);

impl<K> Clone for WatchedKey<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<'de, K> Deserialize<'de> for WatchedKey<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Encoded::deserialize(deserializer)?, PhantomData))
    }
}

impl<K: KeyKind> Resource for WatchedKey<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}
