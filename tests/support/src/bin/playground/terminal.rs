//! A terminal: commands run as they are shown.

use std::{collections::BTreeMap, fs, path::PathBuf};

use testbed::{
    asset, commands,
    control_plane::ControlPlane,
    kms::{self, KmsServer},
    tools,
};

/// The folder of a mounted Secret, which the demo alone has.
const KEYS: &str = "KEYS";

/// A shell with kubectl, its plugin and the AWS CLI, set up for the servers.
pub struct Terminal {
    environment: Vec<(&'static str, String)>,
    folders: Vec<PathBuf>,
    keys: PathBuf,
}

// === impl Terminal ===

impl Terminal {
    pub fn of(plane: &ControlPlane, kms: &KmsServer) -> Self {
        let keys = plane.workdir().file("keys");
        let mut environment: Vec<_> = kms::environment(&format!("http://{}", kms.address())).into();
        environment.extend([
            ("KUBECONFIG", plane.admin_kubeconfig().display().to_string()),
            (KEYS, keys.display().to_string()),
            // The first version of the AWS CLI reads no other variable.
            ("AWS_DEFAULT_REGION", kms::REGION.to_owned()),
            // The user's own settings are for another account.
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ]);
        // The plugin is built beside this program.
        let built = std::env::current_exe().ok().and_then(|program| program.parent().map(PathBuf::from));
        let kubectl = asset("kubectl").and_then(|path| path.parent().map(PathBuf::from));
        Self { environment, folders: kubectl.into_iter().chain([tools().join("kms/bin")]).chain(built).collect(), keys }
    }

    /// The lines that set up another shell in the same way.
    pub fn exports(&self) -> Vec<String> {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let path = format!("export PATH={}:$PATH", folders.join(":"));
        // The reader's own profile and session are for another account.
        let unset = "unset AWS_PROFILE AWS_SESSION_TOKEN".to_owned();
        let variables = self.environment.iter().filter(|(name, _)| *name != KEYS);
        variables.map(|(name, value)| format!("export {name}={value}")).chain([unset, path]).collect()
    }

    /// Shows a command and what it prints.
    pub async fn run(&self, line: &str) -> Result<String, String> {
        println!("$ {line}");
        let ended = commands::shell(&self.folders, &self.environment, line).await;
        let out = String::from_utf8_lossy(&ended.out).into_owned();
        print!("{out}");
        for line in ended.err.lines() {
            fold(line);
        }
        if ended.code == 0 { Ok(out) } else { Err(ended.err) }
    }

    /// The same for a command that must fail: what it says is wrong.
    pub async fn fails(&self, line: &str) -> Result<String, String> {
        self.run(line).await.err().ok_or_else(|| format!("this did not fail: {line}"))
    }

    /// Writes the entries of a Secret to files, as the kubelet mounts them.
    pub fn mount(&self, entries: &BTreeMap<String, Vec<u8>>) {
        fs::create_dir_all(&self.keys).unwrap();
        for (name, value) in entries {
            fs::write(self.keys.join(name), value).unwrap();
        }
    }
}

/// Prints a message in lines of 80 columns at most, where its words allow it.
fn fold(message: &str) {
    let mut line = String::new();
    for word in message.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > 80 {
            println!("{line}");
            line.clear();
        }
        line = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
    }
    if !line.is_empty() {
        println!("{line}");
    }
}
