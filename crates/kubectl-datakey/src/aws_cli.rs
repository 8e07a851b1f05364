//! What users know from the AWS CLI: parameters as it reads them, and `--cli-input-json`.

pub mod cli_input;

pub use datakey_aws::parameters::{
    encryption_context, encryption_context_without_files, grant_tokens, key_id, key_spec, param_file, region,
};
