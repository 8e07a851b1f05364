//! Refuses environment variables that have the operator's prefix but no flag. Pure.
//!
//! They are refused, as unknown flags are: with DATAKEY_NAMESPACE in place of DATAKEY_NAMESPACES the operator would watch
//! the whole cluster, with DATAKEY_ISSUING=false it would issue data keys while a backup is restored. A warning would
//! come too late.

use std::ffi::OsString;

/// What the names of the operator's variables begin with.
const PREFIX: &str = "DATAKEY_";

/// The smallest similarity at which a known name is suggested for an unknown one; clap uses the same value for flags.
const ALIKE: f64 = 0.7;

/// Refuses the first variable that has the operator's prefix and is unknown.
pub fn refuse_unknown(known: &[&str], variables: &[(OsString, OsString)]) -> Result<(), String> {
    for (name, value) in variables {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let is_ours = name.to_ascii_uppercase().starts_with(PREFIX);
        if !is_ours || known.contains(&&*name) || is_service_link(&name, &value) {
            continue;
        }
        let proposal = nearest(known, &name).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
        return Err(format!(
            "the operator has no variable {name}{proposal}: correct its name or remove it; `datakey-operator run \
             --help` lists the variables"
        ));
    }
    Ok(())
}

/// The known name that is most like this one, if any is.
fn nearest<'a>(known: &[&'a str], name: &str) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    let likeness = |known: &str| strsim::jaro(known.trim_start_matches(PREFIX), name.trim_start_matches(PREFIX));
    let nearest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(nearest) > ALIKE).then_some(nearest)
}

/// Whether Kubernetes made a variable for a Service whose name begins with `datakey`. It gives them to every container of the
/// namespace unless the pod has `enableServiceLinks: false`.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = || value.parse::<u16>().is_ok();
    let is_url = || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let has_protocol = |(at, separator): (usize, &str)| {
        let mut parts = name[at + separator.len()..].split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT") && is_port()
        || name.ends_with("_PORT") && is_url()
        || name.match_indices("_PORT_").any(has_protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["DATAKEY_NAMESPACES", "DATAKEY_ISSUE", "DATAKEY_KMS_RATE", "DATAKEY_LEADER_ELECT"];

    fn refused(name: &str, value: &str) -> Option<String> {
        refuse_unknown(&KNOWN, &[(name.into(), value.into())]).err()
    }

    #[test]
    fn unknown_variable_is_refused_with_the_nearest_name() {
        for (name, near) in [
            ("DATAKEY_NAMESPACE", "DATAKEY_NAMESPACES"),
            ("DATAKEY_WATCH_NAMESPACES", "DATAKEY_NAMESPACES"),
            ("datakey_namespaces", "DATAKEY_NAMESPACES"),
            ("DATAKEY_ISSUING", "DATAKEY_ISSUE"),
            ("DATAKEY_KMSRATE", "DATAKEY_KMS_RATE"),
            ("DATAKEY_LEADER_ELECTION", "DATAKEY_LEADER_ELECT"),
        ] {
            let message = refused(name, "x").unwrap();
            assert!(message.contains(name) && message.contains(&format!("did you mean {near}?")), "{message}");
        }
        let message = refused("DATAKEY_TOTALLY_DIFFERENT", "x").unwrap();
        assert!(!message.contains("did you mean") && message.contains("remove it"), "{message}");
    }

    #[test]
    fn known_and_unrelated_variables_are_accepted() {
        for name in ["DATAKEY_NAMESPACES", "DATAKEY_ISSUE", "POD_NAME", "DATAKEYS_NAMESPACE", "DATAKEY", "PATH"] {
            assert_eq!(refused(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn service_links_of_kubernetes_are_accepted() {
        for (name, value) in [
            ("DATAKEY_SERVICE_HOST", "10.0.0.1"),
            ("DATAKEY_SERVICE_PORT", "80"),
            ("DATAKEY_PORT", "tcp://10.0.0.1:80"),
            ("DATAKEY_OPERATOR_SERVICE_HOST", "10.0.0.1"),
            ("DATAKEY_OPERATOR_SERVICE_PORT", "8080"),
            ("DATAKEY_OPERATOR_SERVICE_PORT_METRICS", "8080"),
            ("DATAKEY_OPERATOR_PORT", "tcp://10.0.0.1:8080"),
            ("DATAKEY_OPERATOR_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("DATAKEY_OPERATOR_PORT_8080_TCP_PROTO", "tcp"),
            ("DATAKEY_OPERATOR_PORT_8080_TCP_PORT", "8080"),
            ("DATAKEY_OPERATOR_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("DATAKEY_DNS_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("DATAKEY_PORT_OF_CALL_PORT_53_SCTP", "sctp://10.0.0.1:53"),
        ] {
            assert_eq!(refused(name, value), None, "{name}");
        }
        for (name, value) in
            [("DATAKEY_ADMIN_PORT", "9090"), ("DATAKEY_SERVICE_PORT", "http"), ("DATAKEY_PORT_A_TCP", "x")]
        {
            assert!(refused(name, value).is_some(), "{name}");
        }
    }
}
