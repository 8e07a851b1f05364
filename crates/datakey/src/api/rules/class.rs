//! The rules of the fields of a class: early feedback. The operator checks a class again, by itself, before it uses it
//! ([`crate::class`]).

use kube::core::Rule;

use super::{
    ARN, KEY, REGION,
    demand::{Demand, rule_of_new_values, rule_of_values},
    key_id_has_a_known_form, key_is_customer_managed,
};

/// The name of a class in the spec of an object: that of a cluster-scoped object.
pub(in crate::api) fn class_name() -> Rule {
    rule_of_new_values(&[class_name_has_a_valid_form()])
}

pub(super) fn class_name_has_a_valid_form() -> Demand {
    Demand {
        holds: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')".to_owned(),
        message: "className must be the name of a DataKeyClass: lower-case letters, digits, '-' and '.', beginning and ending with \
                  a letter or digit"
            .to_owned(),
    }
}

pub(in crate::api) fn namespaces() -> Rule {
    rule_of_values(&[Demand {
        holds: "self.all(n, n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$|^([a-z0-9][-a-z0-9]*)?[*]$'))".to_owned(),
        message: "each of namespaces must be the name of a namespace, or the beginning of names followed by *, or *"
            .to_owned(),
    }])
}

/// Shorter than the operator's check: the API server estimates the cost of an expression by its length.
pub(in crate::api) fn key_ids() -> Rule {
    rule_of_values(&[Demand {
        holds: format!(
            "self.all(k, k.matches('^(({ARN})?(key/{KEY}|alias/[a-zA-Z0-9/_-]*[*]?)|{KEY})$') && !k.startsWith('key/') && \
             !k.contains('alias/aws/'))"
        ),
        message: "each of keyIds must be a key ID, a key ARN, an alias name or an alias ARN; only an alias may end in *, and \
                  alias/aws/... is never possible"
            .to_owned(),
    }])
}

pub(in crate::api) fn key_arns() -> Rule {
    rule_of_values(&[Demand {
        holds: format!("self.all(k, k.matches('^{ARN}key/{KEY}$'))"),
        message: "each of keyArns must be the ARN of a KMS key (arn:aws:kms:REGION:ACCOUNT:key/KEY-ID): an alias or a * is not \
                  possible here"
            .to_owned(),
    }])
}

pub(in crate::api) fn regions() -> Rule {
    rule_of_values(&[Demand {
        holds: format!("self.all(r, r.matches('^{REGION}$'))"),
        message: "each of regions must be the code of an AWS Region, for example eu-west-1".to_owned(),
    }])
}

pub(in crate::api) fn number_of_bytes() -> Rule {
    Rule::new("self.min <= self.max").message("min must not be greater than max")
}

pub(in crate::api) fn defaults() -> Rule {
    let at = |field: &str, demand: Demand| Demand {
        holds: format!("!has(self.{field}) || [self.{field}].all(value, {})", demand.holds.replace("self", "value")),
        ..demand
    };
    let demands = [
        at("keyId", key_id_has_a_known_form()),
        at("keyId", key_is_customer_managed()),
        at("region", super::region_has_a_known_form()),
        Demand {
            holds: "!has(self.region) || !has(self.keyId) || !self.keyId.startsWith('arn:')".to_owned(),
            message: "remove region: the ARN in keyId names the Region".to_owned(),
        },
    ];
    rule_of_values(&demands)
}

pub(in crate::api) fn pairs() -> Rule {
    rule_of_values(&[
        Demand {
            holds: "self.all(p, !has(p.value) || !has(p.valueFrom))".to_owned(),
            message: "a pair has value and valueFrom: remove one of them".to_owned(),
        },
        Demand {
            holds: "self.all(p, p.mode != 'Inject' || has(p.value) || has(p.valueFrom))".to_owned(),
            message: "a pair with mode Inject needs value or valueFrom".to_owned(),
        },
        Demand {
            holds: "self.all(p, !p.key.matches('^(?i)(aws:|aws-crypto-)'))".to_owned(),
            message: "keys that begin with aws: or aws-crypto- are reserved for AWS services and the AWS Encryption SDK: choose \
                      another key"
                .to_owned(),
        },
        Demand {
            holds: "self.all(a, self.exists_one(b, a.key.lowerAscii() == b.key.lowerAscii()))".to_owned(),
            message: "two pairs have keys that are equal or differ in case only: rename one".to_owned(),
        },
    ])
}

/// The forms are those of AWS (STS API reference, `AssumeRole`; IAM User Guide, "IAM and AWS STS quotas").
pub(in crate::api) fn aws() -> Rule {
    rule_of_values(&[
        Demand {
            holds:
                "self.roleArn.matches('^arn:aws[a-z-]*:iam::[0-9]{12}:role/([!-~]{0,510}/)?[A-Za-z0-9_+=,.@-]{1,64}$')"
                    .to_owned(),
            message: "roleArn must be the ARN of an IAM role: arn:aws:iam::ACCOUNT:role/NAME".to_owned(),
        },
        Demand {
            holds: "!has(self.externalId) || self.externalId.matches('^[A-Za-z0-9_+=,.@:/-]*$')".to_owned(),
            message: "externalId may have letters, digits and _+=,.@:/- only".to_owned(),
        },
    ])
}

/// Shorter than the operator's check, which also counts keys as equal that differ in the case of letters outside ASCII.
pub(in crate::api) fn session_tags() -> Rule {
    rule_of_values(&[
        Demand {
            holds: "self.all(t, has(t.value) != has(t.valueFrom))".to_owned(),
            message: "a session tag needs either value or valueFrom".to_owned(),
        },
        Demand {
            holds: format!("self.all(t, t.key.matches('^{TAG}+$') && (!has(t.value) || t.value.matches('^{TAG}*$')))"),
            message: "keys and values of session tags may have letters, digits, blanks and _.:/=+-@ only".to_owned(),
        },
        Demand {
            holds: "self.all(t, !t.key.matches('^(?i)aws:'))".to_owned(),
            message: "keys that begin with aws: are reserved for AWS: choose another key".to_owned(),
        },
        Demand {
            holds: "self.all(a, self.exists_one(b, a.key.lowerAscii() == b.key.lowerAscii()))".to_owned(),
            message: "two session tags have keys that are equal or differ in case only: rename one".to_owned(),
        },
    ])
}

/// A character of the key or of the value of a session tag.
const TAG: &str = r"[\\p{L}\\p{Z}\\p{N}_.:/=+@-]";
