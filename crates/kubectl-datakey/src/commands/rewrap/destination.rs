//! Where a move goes to: the KMS key, as the spec names it, and the encryption context. Pure.

use datakey::{
    api::{EncryptionContext, IssuedVersion, RequestView},
    arn::{self, KmsArn},
};

/// What a move goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The ARN of the KMS key.
    pub key_arn: String,
    /// The KMS key as the spec names it.
    pub key_id: String,
    /// The encryption context of the spec; `None` if each version keeps its own.
    pub context: Option<EncryptionContext>,
}

// === impl Destination ===

impl Destination {
    /// Whether a version is under this KMS key, or a replica of it, with this encryption context.
    pub fn has(&self, issued: &IssuedVersion) -> bool {
        let is_changed =
            |context| changed_context(issued, context).is_ok_and(|wanted| wanted == *issued.request.context());
        let has_context = self.context.as_ref().is_none_or(is_changed);
        arn::decrypts_for(&self.key_arn, &issued.key_id) && has_context
    }

    /// The Region that the spec names beside the KMS key, where it names this one now. An ARN has its own, and a multi-Region key is one in
    /// each Region.
    pub fn region_of_spec<'a>(&'a self, present: Option<&'a str>) -> Option<&'a str> {
        match KmsArn::parse(&self.key_arn) {
            _ if self.key_id.starts_with("arn:") => None,
            _ if self.key_id.starts_with("mrk-") => present,
            arn => arn.map(|arn| arn.region),
        }
    }

    /// Whether a spec asks for this destination.
    pub fn is_asked_by(&self, request: RequestView<'_>) -> bool {
        let names_key = request.key_id.is_some_and(|key_id| key_id == self.key_id || key_id == self.key_arn);
        let is_here =
            request.region.is_none_or(|region| self.region_of_spec(Some(region)).is_none_or(|here| here == region));
        names_key && is_here && self.context.as_ref().is_none_or(|context| request.context() == context)
    }
}

/// The encryption context that a version gets for this one of the spec: with what a class added when the version was issued, as a
/// new version gets it.
///
/// # Errors
/// The record contradicts itself, so it cannot be said what the class added.
pub fn changed_context(source: &IssuedVersion, to: &EncryptionContext) -> Result<EncryptionContext, String> {
    let (own, whole) = (source.written().context(), source.request.context());
    let failed = |why: &str| Err(format!("version {}: {why}", source.version));
    // A class adds pairs, and changes none. A pin can say anything.
    if own.iter().any(|(key, value)| whole.get(key) != Some(value)) {
        return failed(
            "asWritten of its record has pairs that its encryption context does not have: do not move it to another one",
        );
    }
    let added = || whole.iter().filter(|(key, _)| !own.contains_key(*key));
    if let Some((key, _)) = added().find(|(key, _)| to.contains_key(*key)) {
        return failed(&format!(
            "its class added the pair {key} to the encryption context: leave it out of --to-context"
        ));
    }
    let added = added().map(|(key, value)| (key.clone(), value.clone()));
    Ok(to.clone().into_iter().chain(added).collect())
}

/// The ARN by which a KMS key unwraps in the Region of the destination.
///
/// # Errors
/// KMS cannot use both in one call, and what to do.
pub fn source_key(source: &str, destination: &str) -> Result<String, String> {
    let (Some(from), Some(to)) = (KmsArn::parse(source), KmsArn::parse(destination)) else {
        return Err(format!("{source} and {destination} are not the ARNs of two KMS keys"));
    };
    if from.partition != to.partition {
        return Err(format!(
            "its KMS key {source} is in the partition {}, the destination in {}, and AWS KMS rewraps within one partition only",
            from.partition, to.partition
        ));
    }
    arn::in_region_of(source, destination).ok_or_else(|| {
        format!(
            "its KMS key {source} is no multi-Region key and not in {}, the Region of the destination, and ReEncrypt works within one \
             Region. To move to {}, name a multi-Region key in {} by --to-key-id, and replicate that one to {}",
            to.region, to.region, from.region, to.region
        )
    })
}
