//! The custom resources `DataKey` and `DataKeyPair`, and what both have in common ([`KeyKind`]). Doc comments on these types are
//! what `kubectl explain` prints: they are written for users.

mod bounds;
mod conditions;
mod crd;
mod data_key;
mod data_key_class;
mod data_key_pair;
pub(crate) mod flaws;
mod key_pair_spec;
mod kind;
mod lenient;
mod material;
mod request;
mod rules;
mod schema;
mod status;
mod template;

pub use bounds::{FIRST_VERSION, MAX_BLOB, MAX_VERSIONS, has_blob_length};
pub use conditions::{Conditions, KEY_USABLE, PENDING, READY, STALLED};
pub use crd::{KINDS, class_crd, crd, crds};
pub use data_key::{DataKey, DataKeySpec};
pub use data_key_class::{
    ACCEPTED, ClassAws, ClassContext, ClassDefaults, ClassLimits, ContextPair, DataKeyClass, DataKeyClassSpec,
    DataKeyClassStatus, Mode, NumberRange, Others, ROLE_ASSUMED, SessionTag, TagSource, ValueFrom,
};
pub use data_key_pair::{DataKeyPair, DataKeyPairSpec};
pub use flaws::{RequestFlaw, flaw};
pub use key_pair_spec::{KeyPairSpec, QuotaClass};
pub use kind::{KeyKind, Kind, KindId, Object, SpecView, ToJson, with_adopted, with_recorded};
pub use lenient::Rest;
pub use material::{KeySpec, Material};
pub use request::{EncryptionContext, KeyRequest, RequestView, WrittenRequest};
pub(crate) use rules::issued::a_key_or_a_class;
pub use status::{ClassRef, IssuedVersion, KeyStatus, RewrapOf, VerifiedSecret, initial_status, truncate_to_seconds};
pub use template::{DeletionPolicy, SecretTemplate, TemplateMetadata};
