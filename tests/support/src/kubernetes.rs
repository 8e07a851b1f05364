//! Which Kubernetes the tests run on, and what has to be said to one version and not to another.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{repository, tools};

/// The versions that `make` builds, and between which all are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// `make servers-oldest`.
    Oldest,
    /// Everything else.
    Newest,
}

/// A release of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

// === impl Built ===

impl Built {
    /// The version that the tests run on: `DATAKEY_KUBERNETES` chooses it. `None` where `KUBEBUILDER_ASSETS` names
    /// programs that were not built here.
    pub fn chosen() -> Option<Self> {
        match std::env::var("DATAKEY_KUBERNETES").as_deref() {
            Ok("oldest") => Some(Self::Oldest),
            Ok("newest") => Some(Self::Newest),
            Ok(other) => panic!("DATAKEY_KUBERNETES is oldest or newest, not {other:?}"),
            Err(_) if std::env::var_os("KUBEBUILDER_ASSETS").is_some() => None,
            Err(_) => Some(Self::Newest),
        }
    }

    /// The folder of its programs.
    pub fn programs(self) -> PathBuf {
        tools().join(match self {
            Self::Oldest => "oldest",
            Self::Newest => "bin",
        })
    }

    /// The text of its `go.mod`, the one place that has the version.
    pub fn go_mod(self) -> String {
        let path = match self {
            Self::Oldest => "tests/tools/oldest/go.mod",
            Self::Newest => "tests/tools/go.mod",
        };
        fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The release that its `go.mod` requires.
    pub fn release(self) -> Release {
        let text = self.go_mod();
        let version = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
        version.and_then(Release::parse).expect("go.mod requires a release of k8s.io/kubernetes")
    }
}

/// The folder of kube-apiserver, etcd and kubectl.
pub(crate) fn programs() -> PathBuf {
    let given = || std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).expect("KUBEBUILDER_ASSETS");
    Built::chosen().map_or_else(given, Built::programs)
}

// === impl Release ===

impl Release {
    /// Reads `v1.37.2`; what a vendor adds, as in `v1.33.13-eks-1234567`, is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().strip_prefix('v')?.split(|other: char| !other.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        Some(Self { major: number()?, minor: number()?, patch: number()? })
    }

    /// The release that kube-apiserver says it is.
    pub(crate) fn of(apiserver: &Path) -> Self {
        let output = Command::new(apiserver).arg("--version").output().expect("run kube-apiserver");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().strip_prefix("Kubernetes ").and_then(Self::parse).unwrap_or_else(|| panic!("no version: {text:?}"))
    }

    /// The release of the module that a Go program was built from, which Go writes into the program.
    pub fn linked(program: &Path) -> Option<Self> {
        let mut lines = BufReader::new(File::open(program).expect("a program")).split(b'\n').map_while(Result::ok);
        lines.find_map(|line| {
            let version = line.strip_prefix(b"mod\tk8s.io/kubernetes\t")?;
            Self::parse(&String::from_utf8_lossy(version))
        })
    }

    /// `1.37`, as users call it.
    pub fn minor(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// The version of `admissionregistration.k8s.io` that has `MutatingAdmissionPolicy`.
    pub fn mutating_policies(self) -> &'static str {
        match (self.major, self.minor) {
            (1, ..=33) => "v1alpha1",
            (1, 34 | 35) => "v1beta1",
            _ => "v1",
        }
    }

    /// Whether the API server streams lists by default (`WatchList`).
    pub fn streams_lists(self) -> bool {
        (self.major, self.minor) >= (1, 34)
    }

    /// The flags that turn on what the tests use and this kube-apiserver has off by default.
    pub(crate) fn flags(self) -> Vec<String> {
        match self.mutating_policies() {
            "v1" => vec![],
            early => vec![
                "--feature-gates=MutatingAdmissionPolicy=true".to_owned(),
                format!("--runtime-config=admissionregistration.k8s.io/{early}=true"),
            ],
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}
