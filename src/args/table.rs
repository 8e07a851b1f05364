//! What each flag of `run`, its variable and its value in the chart accept and refuse. The unit tests read it for the
//! flags, tests/binary.rs for the variables of the real process, tests/chart.rs for the chart.

/// One flag.
#[allow(dead_code, reason = "each of the tests reads a part")]
pub struct Row {
    pub flag: &'static str,
    pub variable: &'static str,
    /// The value of the chart that it is made from.
    pub chart: Option<&'static str>,
    /// A value, and how the field of `Run` looks then.
    pub accepted: &'static [(&'static str, &'static str)],
    pub refused: &'static [&'static str],
    /// What the message of each refused value says.
    pub write: &'static str,
}

/// What no duration may be.
macro_rules! no_durations {
    ($($more:literal),*) => {
        &["", "soon", "10", "0", "0s", "1ns", "-1s", "10M", "1y", "5000000000y", "99999999999999999999h", $($more),*]
    };
}

const SWITCH: &[&str] = &["", "no", "0", "1", "TRUE", "true,false"];
const NUMBERS: &[&str] = &["", "0", "-1", "1.5", "10k", "many", "5000000000", "99999999999999999999"];
const DURATION: &str = "write a duration from ";

pub const ROWS: &[Row] = &[
    Row {
        flag: "--namespace",
        variable: "DATAKEY_NAMESPACES",
        chart: Some("watchNamespaces"),
        accepted: &[
            ("shop", r#"namespaces: ["shop"]"#),
            ("shop, demo", r#"namespaces: ["shop", "demo"]"#),
            (" shop ,\tdemo\n", r#"namespaces: ["shop", "demo"]"#),
            ("b,a,b, a", r#"namespaces: ["b", "a"]"#),
            ("0-a", r#"namespaces: ["0-a"]"#),
        ],
        refused: &[
            "",
            " ",
            ",",
            "shop,",
            ",shop",
            "shop,,demo",
            "shop, ,demo",
            "Foo_Bar",
            "Shop",
            "a.b",
            "-a",
            "a-",
            "*",
            "shop;demo",
            "shop demo",
            "shop\u{1b}[2J",
            "a123456789-123456789-123456789-123456789-123456789-123456789-123",
        ],
        write: "write the name of a namespace",
    },
    Row {
        flag: "--concurrency",
        variable: "DATAKEY_CONCURRENCY",
        chart: Some("config.concurrency"),
        accepted: &[("1", "concurrency: 1,"), ("65535", "concurrency: 65535,")],
        refused: NUMBERS,
        write: "write a whole number from 1 to 65535",
    },
    Row {
        flag: "--issue",
        variable: "DATAKEY_ISSUE",
        chart: Some("config.issue"),
        accepted: &[("true", "issue: true"), ("false", "issue: false")],
        refused: SWITCH,
        write: "write true or false",
    },
    Row {
        flag: "--kms-rate",
        variable: "DATAKEY_KMS_RATE",
        chart: Some("config.kmsRate"),
        accepted: &[("1", "kms_rate: 1,"), ("1000000", "kms_rate: 1000000,")],
        refused: NUMBERS,
        write: "write a whole number from 1 to 1000000",
    },
    Row {
        flag: "--extra-regions",
        variable: "DATAKEY_EXTRA_REGIONS",
        chart: Some("aws.extraRegions"),
        accepted: &[
            ("xx-new-1", r#"extra_regions: ["xx-new-1"]"#),
            ("xx-new-1, xx-a-2,xx-new-1", r#"extra_regions: ["xx-new-1", "xx-a-2"]"#),
        ],
        refused: &[
            "",
            " ",
            "xx-new-1,",
            "xx-new-1,,xx-a-2",
            "Mars",
            "EU-WEST-1",
            "eu_west_1",
            "eu-west-1a",
            "xx-new-1;xx-a-2",
            "xx-abcdefghijklmnopqrstuvwxyzabc-1",
        ],
        write: "write the code of an AWS Region",
    },
    Row {
        flag: "--kms-timeout",
        variable: "DATAKEY_KMS_TIMEOUT",
        chart: Some("config.kmsTimeout"),
        accepted: &[("100ms", "kms_timeout: 100ms"), ("1m30s", "kms_timeout: 90s"), ("1h", "kms_timeout: 3600s")],
        refused: no_durations!["99ms", "3601s", "61m"],
        write: DURATION,
    },
    Row {
        flag: "--kube-timeout",
        variable: "DATAKEY_KUBE_TIMEOUT",
        chart: Some("config.kubeTimeout"),
        accepted: &[("100ms", "kube_timeout: 100ms"), ("1h", "kube_timeout: 3600s")],
        refused: no_durations!["99ms", "3601s", "61m"],
        write: DURATION,
    },
    Row {
        flag: "--retry-min",
        variable: "DATAKEY_RETRY_MIN",
        chart: Some("config.retryMin"),
        accepted: &[("1ms", "retry_min: 1ms"), ("10m", "retry_min: 600s")],
        // 11m is longer than the default of --retry-max.
        refused: no_durations!["11m", "25h"],
        write: "write ",
    },
    Row {
        flag: "--retry-max",
        variable: "DATAKEY_RETRY_MAX",
        chart: Some("config.retryMax"),
        accepted: &[("1s", "retry_max: 1s"), ("24h", "retry_max: 86400s")],
        refused: no_durations!["25h", "24h1ms"],
        write: DURATION,
    },
    Row {
        flag: "--resync",
        variable: "DATAKEY_RESYNC",
        chart: Some("config.resync"),
        accepted: &[("100ms", "resync: 100ms"), ("720h", "resync: 2592000s")],
        refused: no_durations!["99ms", "721h"],
        write: DURATION,
    },
    Row {
        flag: "--shutdown-grace",
        variable: "DATAKEY_SHUTDOWN_GRACE",
        chart: Some("config.shutdownGrace"),
        accepted: &[("1ms", "shutdown_grace: 1ms"), ("1h", "shutdown_grace: 3600s")],
        refused: no_durations!["61m"],
        write: DURATION,
    },
    Row {
        flag: "--leader-elect",
        variable: "DATAKEY_LEADER_ELECT",
        chart: Some("leaderElection.enabled"),
        accepted: &[("true", "leader_elect: true"), ("false", "leader_elect: false")],
        refused: SWITCH,
        write: "write true or false",
    },
    Row {
        flag: "--lease-namespace",
        variable: "DATAKEY_LEASE_NAMESPACE",
        chart: None,
        accepted: &[("shop", r#"lease_namespace: Some("shop")"#), (" shop\n", r#"lease_namespace: Some("shop")"#)],
        refused: &["", " ", "Foo_Bar", "a.b", "a,b", "-a", "kube system"],
        write: "write the name of a namespace",
    },
    Row {
        flag: "--lease-name",
        variable: "DATAKEY_LEASE_NAME",
        chart: None,
        accepted: &[("keys", r#"lease_name: "keys""#), ("a.b-c", r#"lease_name: "a.b-c""#)],
        refused: &["", " ", "Foo_Bar", "a..b", "a,b", ".a", "a-", "a/b"],
        write: "write the name of a Lease",
    },
    Row {
        flag: "--lease-duration",
        variable: "DATAKEY_LEASE_DURATION",
        chart: Some("leaderElection.duration"),
        accepted: &[("1s", "lease_duration: 1s"), ("1m", "lease_duration: 60s"), ("1h", "lease_duration: 3600s")],
        refused: no_durations!["500ms", "1500ms", "1m1ms", "61m"],
        write: "write whole seconds from 1s to 1h",
    },
    Row {
        flag: "--admin-address",
        variable: "DATAKEY_ADMIN_ADDRESS",
        chart: None,
        accepted: &[("127.0.0.1:0", "admin_address: 127.0.0.1:0"), ("0.0.0.0:0", "admin_address: 0.0.0.0:0")],
        refused: &["", "here", "8080", ":8080", "0.0.0.0", "0.0.0.0:65536", "localhost:8080"],
        write: "write ADDRESS:PORT",
    },
    Row {
        flag: "--log-level",
        variable: "DATAKEY_LOG_LEVEL",
        chart: Some("config.logLevel"),
        accepted: &[
            ("error", r#"log_level: "error""#),
            ("warn", r#"log_level: "warn""#),
            ("info", r#"log_level: "info""#),
            ("debug", r#"log_level: "debug""#),
            ("trace", r#"log_level: "trace""#),
            ("INFO", r#"log_level: "INFO""#),
            ("info, kube=off", r#"log_level: "info,kube=off""#),
            ("kube=debug,warn", r#"log_level: "kube=debug,warn""#),
            ("datakey_operator=debug", r#"log_level: "datakey_operator=debug""#),
            ("info,kube[{name=orders}]=trace", r#"log_level: "info,kube[{name=orders}]=trace""#),
        ],
        refused: &[
            "",
            " ",
            "loud",
            "3",
            "off",
            "info,loud",
            "info,",
            "info,,kube=debug",
            "info;kube=debug",
            "info kube=debug",
            "=debug",
            "kube=",
            "datakey_operator",
            "datakey_operator=loud",
            "kube=debug",
            "kube[{name=orders}]=trace",
            "info,datakey_operator=off",
        ],
        write: "write ",
    },
    Row {
        flag: "--log-format",
        variable: "DATAKEY_LOG_FORMAT",
        chart: Some("config.logFormat"),
        accepted: &[("text", "log_format: Text"), ("json", "log_format: Json")],
        refused: &["", "xml", "JSON", "text,json"],
        write: "write text or json",
    },
];
