//! Where settings are found: variables and profile files. A setting that is empty counts as not set.

use std::{collections::BTreeMap, ffi::OsString};

use aws_config::profile::{Profile, ProfileSet};

use crate::forms::Found;

/// Where settings come from.
pub struct Sources<'a> {
    /// The environment.
    pub variables: &'a BTreeMap<String, OsString>,
    /// The profile files.
    pub profiles: &'a ProfileSet,
}

// === impl Sources ===

impl Sources<'_> {
    /// The value of a variable. One that is empty counts as not set.
    pub fn variable(&self, name: &str) -> Option<Found> {
        let value = self.variables.get(name)?.to_str().filter(|value| !value.is_empty())?;
        Some(Found { name: name.to_owned(), value: value.to_owned() })
    }

    /// A property of the profile that is used.
    pub fn property(&self, name: &str) -> Option<Found> {
        found_in(self.profile()?, name)
    }

    /// The profile that is used; `None` if no file has it.
    pub fn profile(&self) -> Option<&Profile> {
        self.profiles.get_profile(self.profiles.selected_profile())
    }

    /// A setting wherever it is given.
    pub fn all(&self, variable: &str, property: &str) -> impl Iterator<Item = Found> {
        self.variable(variable).into_iter().chain(self.property(property))
    }

    /// The setting that counts: the variable goes before the profile.
    pub fn first(&self, variable: &str, property: &str) -> Option<Found> {
        self.all(variable, property).next()
    }
}

/// A property of a profile.
pub fn found_in(profile: &Profile, name: &str) -> Option<Found> {
    let value = profile.get(name).filter(|value| !value.is_empty())?;
    Some(Found { name: format!("{name} of the profile {:?}", profile.name()), value: value.to_owned() })
}
