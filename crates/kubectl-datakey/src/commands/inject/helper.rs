//! What is added to a pod: containers, volumes and mounts of `datakey-unwrap`.

use datakey::secret::sha256;

use super::{unwrapping::Unwrapping, value::Value};
use crate::cli::inject::{Inject, InjectMode};

/// The name of the image where the user names none.
pub const IMAGE: &str = "datakey-unwrap";

/// The program in the image, and where `install` puts it.
pub const PROGRAM: &str = "/datakey-unwrap";
pub const PROGRAM_FOLDER: &str = "/datakey";
pub const INSTALLED: &str = "/datakey/datakey-unwrap";

/// Those of the helper's image, which `install` copies, too: the image of the application may have none.
const CERTIFICATES: &str = "/datakey/ca-certificates.crt";

/// Where the wrapped keys and the token are mounted.
pub const KEYS_FOLDER: &str = "/keys";
pub const TOKEN_FOLDER: &str = "/aws-token";
pub const TOKEN_FILE: &str = "/aws-token/token";

/// The user and group of the image.
pub const USER: i64 = 65532;

/// The longest name of a container or volume (RFC 1123 label).
const MAX_NAME: usize = 63;

/// The names of what is added for one Secret: several data keys of a pod do not disturb each other.
#[derive(Clone, Debug)]
pub struct Names {
    pub unwrap: String,
    pub install: String,
    pub wrapped: String,
    pub plaintext: String,
    pub token: String,
    pub program: String,
}

/// Under which user the helper runs, and what of the security context the pod does not set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runtime {
    /// `runAsUser`, unless that of the pod is right.
    pub user: Option<i64>,
    /// Whether the pod leaves out `runAsNonRoot`.
    pub sets_non_root: bool,
    /// Whether the pod leaves out `seccompProfile`.
    pub sets_seccomp: bool,
}

/// What is added to a pod.
#[derive(Debug)]
pub struct Helper<'a> {
    pub args: &'a Inject,
    pub names: Names,
    pub unwrapping: &'a Unwrapping,
}

// === impl Names ===

impl Names {
    /// The names for a Secret.
    pub fn of(secret: &str) -> Self {
        let name = |what: &str| {
            let plain = secret.replace('.', "-");
            let whole = format!("datakey-{what}-{plain}");
            if whole.len() <= MAX_NAME && plain == secret {
                return whole;
            }
            // Another Secret could have the same name without the dots, or the same beginning.
            let digest: String = sha256(secret.as_bytes()).chars().take(8).collect();
            let room = MAX_NAME - digest.len() - 1;
            let begin: String = whole.chars().take(room).collect();
            format!("{}-{digest}", begin.trim_end_matches('-'))
        };
        Self {
            unwrap: name("unwrap"),
            install: name("install"),
            wrapped: name("wrapped"),
            plaintext: name("plaintext"),
            token: name("token"),
            program: name("program"),
        }
    }

    /// The volumes that any mode adds, each with the type of volume that it has.
    pub fn volumes(&self) -> [(&str, &'static str); 4] {
        [
            (&self.wrapped, "secret"),
            (&self.plaintext, "emptyDir"),
            (&self.token, "projected"),
            (&self.program, "emptyDir"),
        ]
    }

    /// Whether a container of this name is one that a mode adds.
    pub fn is_container(&self, name: &str) -> bool {
        [&self.unwrap, &self.install].iter().any(|own| *own == name)
    }
}

// === impl Helper ===

impl Helper<'_> {
    fn is_exec(&self) -> bool {
        self.args.mode == InjectMode::Exec
    }

    /// The init containers; for `watch` one that stays.
    pub fn init_containers(&self, runtime: Runtime, mode: Option<&str>) -> Vec<Value> {
        let image = || Value::text(self.args.image.as_deref().unwrap_or(IMAGE));
        let mut container = Vec::new();
        if self.is_exec() {
            container.push(("name", Value::text(&self.names.install)));
            container.push(("image", image()));
            container.push(("args", Value::texts(["install", PROGRAM_FOLDER])));
            container.push(("resources", resources()));
            container.push(("securityContext", security_context(runtime)));
            container.push(("volumeMounts", Value::List(vec![mount(&self.names.program, PROGRAM_FOLDER, false)])));
            return vec![Value::Map(container)];
        }
        let is_sidecar = self.args.mode == InjectMode::Watch;
        let to = format!("--to={}", self.args.mount_path);
        let mut args = vec![if is_sidecar { "watch" } else { "file" }.to_owned()];
        args.extend(self.unwrap_args());
        args.push(to.clone());
        args.extend(mode.map(|bits| format!("--mode={bits}")));
        container.push(("name", Value::text(&self.names.unwrap)));
        container.push(("image", image()));
        if is_sidecar {
            container.push(("restartPolicy", Value::text("Always")));
        }
        container.push(("args", Value::texts(args.iter().map(|arg| escaped(arg)))));
        let env = self.env();
        if !env.is_empty() {
            container.push(("env", Value::List(env)));
        }
        if is_sidecar {
            let command = Value::Map(vec![("command", Value::texts([PROGRAM, "ready", &to]))]);
            // Two minutes, then the kubelet starts the sidecar again.
            let probe =
                [("exec", command), ("periodSeconds", Value::Number(1)), ("failureThreshold", Value::Number(120))];
            container.push(("startupProbe", Value::Map(probe.to_vec())));
        }
        container.push(("resources", resources()));
        container.push(("securityContext", security_context(runtime)));
        let mut mounts = vec![mount(&self.names.wrapped, KEYS_FOLDER, true)];
        mounts.extend(self.token_mount());
        mounts.push(mount(&self.names.plaintext, &self.args.mount_path, false));
        container.push(("volumeMounts", Value::List(mounts)));
        vec![Value::Map(container)]
    }

    /// The volumes of the pod.
    pub fn volumes(&self) -> Vec<Value> {
        // No defaultMode: what is wrapped may be read by every user of the container, and the pod may have no fsGroup.
        let secret = Value::Map(vec![("secretName", Value::text(&self.unwrapping.secret))]);
        let mut volumes = vec![volume(&self.names.wrapped, "secret", secret)];
        if self.args.role_arn.is_some() {
            let token = Value::Map(vec![
                ("path", Value::text("token")),
                ("audience", Value::text("sts.amazonaws.com")),
                ("expirationSeconds", Value::Number(3600)),
            ]);
            let sources = Value::List(vec![Value::Map(vec![("serviceAccountToken", token)])]);
            volumes.push(volume(&self.names.token, "projected", Value::Map(vec![("sources", sources)])));
        }
        volumes.push(if self.is_exec() {
            volume(&self.names.program, "emptyDir", Value::Map(vec![("sizeLimit", Value::text("64Mi"))]))
        } else {
            let limit = ("sizeLimit", Value::text("1Mi"));
            volume(&self.names.plaintext, "emptyDir", Value::Map(vec![("medium", Value::text("Memory")), limit]))
        });
        volumes
    }

    /// The mounts of a container that gets the plaintext.
    pub fn mounts(&self) -> Vec<Value> {
        if !self.is_exec() {
            return vec![mount(&self.names.plaintext, &self.args.mount_path, true)];
        }
        let mut mounts = vec![mount(&self.names.wrapped, KEYS_FOLDER, true)];
        mounts.extend(self.token_mount());
        mounts.push(mount(&self.names.program, PROGRAM_FOLDER, true));
        mounts
    }

    /// What is put before the command of a container, in the mode `exec`.
    pub fn command(&self) -> Vec<String> {
        let mut command = vec![INSTALLED.to_owned(), "exec".to_owned()];
        command.extend(self.unwrap_args());
        command.extend([format!("--ca-bundle={CERTIFICATES}"), "--".to_owned()]);
        command.iter().map(|arg| escaped(arg)).collect()
    }

    /// The environment of the container that calls AWS.
    pub fn env(&self) -> Vec<Value> {
        let variable = |name, value: &str| Value::Map(vec![("name", Value::text(name)), ("value", Value::text(value))]);
        let role = self.args.role_arn.iter();
        role.flat_map(|role| [variable("AWS_ROLE_ARN", role), variable("AWS_WEB_IDENTITY_TOKEN_FILE", TOKEN_FILE)])
            .collect()
    }

    fn token_mount(&self) -> Option<Value> {
        self.args.role_arn.as_ref().map(|_| mount(&self.names.token, TOKEN_FOLDER, true))
    }

    fn unwrap_args(&self) -> Vec<String> {
        let mut args = vec![format!("--from={KEYS_FOLDER}")];
        args.extend(self.unwrapping.args.iter().cloned());
        args
    }
}

/// A dollar sign as Kubernetes takes it: it expands `$(NAME)` in commands and arguments.
fn escaped(arg: &str) -> String {
    arg.replace('$', "$$")
}

fn mount(volume: &str, path: &str, is_read_only: bool) -> Value {
    let mut mount = vec![("name", Value::text(volume)), ("mountPath", Value::text(path))];
    if is_read_only {
        mount.push(("readOnly", Value::Bool(true)));
    }
    Value::Map(mount)
}

fn volume(name: &str, kind: &'static str, source: Value) -> Value {
    Value::Map(vec![("name", Value::text(name)), (kind, source)])
}

fn resources() -> Value {
    let requests = Value::Map(vec![("cpu", Value::text("10m")), ("memory", Value::text("16Mi"))]);
    Value::Map(vec![("requests", requests), ("limits", Value::Map(vec![("memory", Value::text("64Mi"))]))])
}

/// What the profile `restricted` of Pod Security demands.
fn security_context(runtime: Runtime) -> Value {
    let mut context = Vec::new();
    if runtime.sets_non_root {
        context.push(("runAsNonRoot", Value::Bool(true)));
    }
    context.extend(runtime.user.map(|user| ("runAsUser", Value::Number(user))));
    context.push(("allowPrivilegeEscalation", Value::Bool(false)));
    context.push(("readOnlyRootFilesystem", Value::Bool(true)));
    context.push(("capabilities", Value::Map(vec![("drop", Value::texts(["ALL"]))])));
    if runtime.sets_seccomp {
        context.push(("seccompProfile", Value::Map(vec![("type", Value::text("RuntimeDefault"))])));
    }
    Value::Map(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_for_each_secret_and_are_labels() {
        let long = "s".repeat(200);
        let names: Vec<_> = ["orders", "orders.v2", "orders-v2", &long, &format!("{long}2")]
            .into_iter()
            .map(|secret| Names::of(secret).plaintext)
            .collect();
        assert_eq!(names[0], "datakey-plaintext-orders");
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= MAX_NAME && !name.contains('.'), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }

    #[test]
    fn kubernetes_expands_no_argument() {
        assert_eq!(escaped("a=$(B)$$"), "a=$$(B)$$$$");
    }
}
