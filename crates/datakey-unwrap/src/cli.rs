//! The arguments. No environment variable of this program decides anything: a Secret or a ConfigMap can be in the environment of a
//! container, and what is accepted must come from the manifest of the workload alone. Those of AWS do (docs/datakey-unwrap.md). The doc comment of a flag is its documentation.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use datakey::{
    api::{KeyPairSpec, KeySpec, Material},
    key_format::KeyFormat,
    selection::Versions,
    text::on_one_line,
};
use datakey_aws::parameters;

use crate::ended::Failure;
use crate::folder::Access;
use values::{BlobPin, FileName, Trusted};

pub mod values;

/// Unwraps the data keys of a mounted Secret for a program that does not call AWS KMS.
///
/// It accepts only what its arguments name: the KMS keys, each with its encryption context, and the kind of the data key. It
/// needs kms:Decrypt under the identity of the workload, and prints no key.
///
/// Exit codes: 0 done; 2 the Secret is not what the arguments say (it may have been tampered with); 3 access denied; 4 the
/// KMS key cannot be used; 64 an argument is wrong, or a folder, file or mount cannot be used; 75 try again; 126 the command of
/// exec cannot be run; 127 it does not exist.
#[derive(Debug, Parser)]
#[command(name = "datakey-unwrap", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the keys into files in memory, and end: for an init container.
    ///
    /// The folder gets a file for each version (v1, v2, ...), `current`, which links to the file of the current version, and
    /// `version`, its number. All of them are replaced at once.
    File(FileArgs),
    /// The same, and again after each rotation, until SIGTERM: for a native sidecar.
    ///
    /// While AWS KMS cannot be reached, the files stay as they are. If the Secret is not what the arguments say, it ends with 2, and the
    /// files stay as they are. It calls AWS KMS only if the files do not belong to the wrapped keys.
    Watch(FileArgs),
    /// Run a command with the keys in its open files, which have no name.
    ///
    /// The command gets DATAKEY_V1_FILE, DATAKEY_V2_FILE, ... with the path of each key (/proc/self/fd/N), DATAKEY_CURRENT_FILE and
    /// DATAKEY_CURRENT_VERSION. In its arguments, {DATAKEY_CURRENT_FILE} and the like are replaced by their values. The files are
    /// sealed: they cannot be changed or executed. Processes of the same user and child processes can read them.
    Exec(ExecArgs),
    /// Unwrap the keys and forget them: the exit code is the result.
    Check(CheckArgs),
    /// Check that a folder holds a whole set of key files: the startup probe of the sidecar.
    Ready(ReadyArgs),
    /// Copy this program into a folder, for `exec` in a container that has another image.
    ///
    /// The folder gets the CA certificates of this image, too, as ca-certificates.crt: name them in --ca-bundle where the other
    /// image has none.
    Install(InstallArgs),
}

/// Which keys are unwrapped, and what is accepted.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// The mounted Secret of the DataKey or DataKeyPair, or a ConfigMap as `kubectl datakey export -o manifest` prints it; or a file
    /// with the wrapped bytes or with what `kubectl datakey export -o json` prints.
    #[arg(long, value_name = "PATH")]
    pub from: PathBuf,

    /// A KMS key that may have wrapped the keys: its key ARN, a space, and the encryption context, as the AWS CLI reads it
    /// (`purpose=orders,stage=prod`, or JSON), or `none`. Repeat it for several. If the KMS key of a version
    /// cannot be used, or access to it is denied, a rewrap of the version under another one of them is unwrapped.
    #[arg(long, value_name = "ARN CONTEXT", required = true, value_parser = values::trusted)]
    pub trust: Vec<Trusted>,

    #[command(flatten)]
    material: MaterialArgs,

    /// The versions to unwrap: all, current, or numbers, for example 1,3.
    #[arg(long, default_value = "all", value_name = "VERSIONS", help_heading = "Selection")]
    pub versions: Versions,

    /// The current version must be this one or a later one. A user who can write the Secret can still give an earlier wrapped key
    /// another number; only --blob-sha256 prevents that.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..), help_heading = "Selection")]
    pub min_version: Option<i32>,

    /// The SHA-256 of a wrapped key, as 1=HEX for version 1: no other key is accepted. Repeat it for each version that is unwrapped,
    /// and for each rewrap that can be unwrapped in its place: 1=HEX of the rewrap.
    #[arg(long, value_name = "VERSION=HEX", value_parser = values::blob_pin, help_heading = "Selection")]
    pub blob_sha256: Vec<BlobPin>,

    /// Fail if the memory of the process cannot be locked. Otherwise that is tried, and swap can hold a key for a moment.
    #[arg(long)]
    pub require_mlock: bool,

    #[command(flatten)]
    pub aws: AwsArgs,
}

/// What the keys are.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct MaterialArgs {
    /// The kind of the data key: `AES_256` or `AES_128`.
    #[arg(long, value_parser = parameters::key_spec)]
    key_spec: Option<KeySpec>,

    /// The length of the data key, 1 to 1024 bytes.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=1024))]
    number_of_bytes: Option<i32>,

    /// The kind of the key pair, for example `RSA_2048` or `ECC_NIST_P256`.
    #[arg(long, value_parser = values::key_pair_spec)]
    key_pair_spec: Option<KeyPairSpec>,
}

/// How AWS KMS is called. What is not given is taken from the AWS environment and the profile files.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// The Region of AWS STS, if the credentials come from there. AWS KMS is called in the Region of the KMS key.
    #[arg(long, value_parser = parameters::region)]
    pub region: Option<String>,

    /// The profile of the AWS configuration. It goes before access keys in the environment.
    #[arg(long)]
    pub profile: Option<String>,

    /// The endpoint of AWS KMS that is called, if it is not that of AWS.
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,

    /// A file of PEM certificates to trust when AWS KMS is called, in place of those of the system.
    #[arg(long, value_name = "FILE")]
    pub ca_bundle: Option<String>,

    /// The longest wait for AWS KMS, with its retries and the time to get credentials.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = values::timeout)]
    pub timeout: Duration,

    /// How often a call is repeated that AWS KMS throttles or does not answer. Without it, `AWS_MAX_ATTEMPTS` and the profile
    /// count, else 2.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(..=100))]
    pub retries: Option<u32>,
}

/// Arguments of `file` and `watch`.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    #[command(flatten)]
    pub keys: KeyArgs,

    /// The folder for the key files. It must be in memory: an emptyDir with medium: Memory.
    #[arg(long, value_name = "FOLDER", help_heading = "Files")]
    pub to: PathBuf,

    /// The name of the file of a version.
    #[arg(long, default_value = "v{version}", value_name = "NAME", value_parser = values::file_name, help_heading = "Files")]
    pub name: FileName,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a key file is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
pub struct OutputArgs {
    /// The format: raw, hex, base64 or jwk for a data key; pem, der or jwk for a key pair, the first two in PKCS #8. [default: raw, pem]
    #[arg(long, value_name = "FORMAT")]
    format: Option<KeyFormat>,

    /// The permissions of the files, in octal digits.
    #[arg(long, default_value = "0400", value_name = "OCTAL", value_parser = values::mode)]
    mode: u32,

    /// The user ID that owns the files. Another one than that of this process needs the capability CHOWN.
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,

    /// The group ID of the files.
    #[arg(long, value_name = "ID")]
    gid: Option<u32>,
}

/// Arguments of `exec`.
#[derive(Clone, Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub keys: KeyArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Two versions that must have the same plaintext. Only these are unwrapped, whatever --versions says.
    #[arg(long, num_args = 2, value_names = ["VERSION", "VERSION"], value_parser = clap::value_parser!(i32).range(1..))]
    pub same: Option<Vec<i32>>,
}

/// Arguments of `ready`.
#[derive(Clone, Debug, Args)]
pub struct ReadyArgs {
    /// The folder with the key files.
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
}

/// Arguments of `install`.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    /// The folder to copy to.
    pub folder: PathBuf,
}

/// Why no command is run.
#[derive(Debug)]
pub enum Refusal {
    /// Help or the version was asked for.
    Help(clap::Error),
    /// An argument is wrong.
    Usage(Failure),
}

/// Reads the arguments, the first of which is the name of the program.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let command = Cli::try_parse_from(arguments)
        .map_err(|error| if error.use_stderr() { Refusal::Usage(one_line(&error)) } else { Refusal::Help(error) });
    let command = command?.command;
    check(&command).map_err(Refusal::Usage)?;
    Ok(command)
}

/// Checks what several arguments say together.
fn check(command: &Command) -> Result<(), Failure> {
    match command {
        Command::File(args) | Command::Watch(args) => {
            args.name.check_for(&args.keys.versions).map_err(|why| Failure::usage(format!("--name: {why}")))?;
            args.output.access_and_format(args.keys.material()?).map(|_| ())
        }
        Command::Exec(args) => args.output.access_and_format(args.keys.material()?).map(|_| ()),
        Command::Check(_) | Command::Ready(_) | Command::Install(_) => Ok(()),
    }
}

/// The error of clap on one line: its first paragraph. The others repeat the usage.
fn one_line(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::usage(
            "there is no command: write file, watch, exec, check, ready or install (datakey-unwrap --help)",
        );
    }
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let first = on_one_line(first.trim_start_matches("error: "));
    Failure::usage(format!("{first}; datakey-unwrap --help has all commands, and COMMAND --help their arguments"))
}

// === impl KeyArgs ===

impl KeyArgs {
    /// What the keys are.
    ///
    /// # Errors
    /// Not exactly one of the three arguments is given; clap refuses that before.
    pub fn material(&self) -> Result<Material, Failure> {
        let MaterialArgs { key_spec, number_of_bytes, key_pair_spec } = self.material;
        let material = Material::new(key_spec, number_of_bytes, key_pair_spec);
        material.ok_or_else(|| Failure::usage("give exactly one of --key-spec, --number-of-bytes and --key-pair-spec"))
    }
}

// === impl OutputArgs ===

impl OutputArgs {
    /// Who may read the files, and their format.
    ///
    /// # Errors
    /// The format is none of the material.
    pub fn access_and_format(&self, material: Material) -> Result<(Access, KeyFormat), Failure> {
        let format = self.format.unwrap_or_else(|| KeyFormat::default_of(material));
        format.check_for(material).map_err(|why| Failure::usage(format!("--format: {why}")))?;
        // With --uid, the files simply have that user's group.
        if self.gid.is_some() && self.uid.is_none() && self.mode & 0o040 == 0 {
            return Err(Failure::usage(format!(
                "--gid: mode {:04o} lets no group read: write --mode 0440, or leave --gid out",
                self.mode
            )));
        }
        Ok((Access { mode: self.mode, uid: self.uid, gid: self.gid }, format))
    }
}

#[cfg(test)]
mod tests;
