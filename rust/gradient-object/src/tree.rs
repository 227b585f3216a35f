//! Trees: one mapping each, named by the hash of its canonical bytes.

use std::collections::BTreeMap;

use crate::cbor::{Place, Reader, Writer, check_canonical, check_name};
use crate::error::ObjectError;
use crate::id::TreeId;
use crate::key::cmp_strings;
use crate::mapping::Mapping;

/// Sections that a root tree may have.
pub const SECTIONS: [&str; 8] = ["model", "optim", "scheduler", "scaler", "rng", "data", "grads", "extra"];

/// A component tree: one mapping, with everything below it inlined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub Mapping);

/// The root tree of a commit: sections, their components, and the tree of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootTree {
    /// Section to component to tree. No section is empty.
    pub sections: BTreeMap<String, BTreeMap<String, TreeId>>,
}

impl Tree {
    /// Canonical bytes.
    ///
    /// # Errors
    /// What [`crate::encode`] refuses, and a subtree anywhere.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        let mut writer = Writer::new(Place::ComponentTree);
        writer.root_mapping(&self.0)?;
        writer.finish()
    }

    /// The tree of these canonical bytes.
    ///
    /// # Errors
    /// What [`crate::decode`] refuses, what is no mapping, and a subtree anywhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let object = Self::decode_trusted(bytes)?;
        check_canonical(bytes, &object.encode()?)?;
        Ok(object)
    }

    /// [`Self::decode`] without encoding again.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes, Place::ComponentTree)?;
        let mapping = reader.root_mapping()?;
        reader.finish()?;
        Ok(Self(mapping))
    }

    /// The id; encodes to hash.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn id(&self) -> Result<TreeId, ObjectError> {
        Ok(TreeId::of(&self.encode()?))
    }
}

impl RootTree {
    /// Canonical bytes.
    ///
    /// # Errors
    /// An unknown or empty section, a name that is too long.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        for (section, components) in &self.sections {
            check_section(section, components)?;
        }
        let mut writer = Writer::new(Place::Value);
        writer.count_root()?;
        writer.text_entries(&sorted(&self.sections), |writer, components| {
            writer.text_entries(&sorted(components), |writer, id| writer.subtree(id))
        })?;
        writer.finish()
    }

    /// The root tree of these canonical bytes.
    ///
    /// # Errors
    /// Bytes that are no canonical root tree.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let object = Self::decode_trusted(bytes)?;
        check_canonical(bytes, &object.encode()?)?;
        Ok(object)
    }

    /// [`Self::decode`] without encoding again.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes, Place::Value)?;
        reader.count_root()?;
        let sections = reader.sorted_entries(read_name, |reader| {
            let components = reader.sorted_entries(read_name, Reader::subtree)?;
            Ok(components.into_iter().collect())
        })?;
        reader.finish()?;
        let sections: BTreeMap<String, BTreeMap<String, TreeId>> = sections.into_iter().collect();
        for (section, components) in &sections {
            check_section(section, components)?;
        }
        Ok(Self { sections })
    }

    /// The id; encodes to hash.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn id(&self) -> Result<TreeId, ObjectError> {
        Ok(TreeId::of(&self.encode()?))
    }

    /// The tree of a component.
    pub fn get(&self, section: &str, component: &str) -> Option<&TreeId> {
        self.sections.get(section)?.get(component)
    }
}

fn check_section(section: &str, components: &BTreeMap<String, TreeId>) -> Result<(), ObjectError> {
    if !SECTIONS.contains(&section) {
        return Err(ObjectError::UnknownSection { section: section.chars().take(64).collect() });
    }
    if components.is_empty() {
        return Err(ObjectError::EmptySection { section: section.to_owned() });
    }
    components.keys().try_for_each(|name| check_name("bytes of the name of a component", name))
}

/// Entries in canonical order, which differs from the map's: shorter names come first.
fn sorted<V>(map: &BTreeMap<String, V>) -> Vec<(&str, &V)> {
    let mut entries: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value)).collect();
    entries.sort_unstable_by(|a, b| cmp_strings(&a.0, &b.0));
    entries
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, ObjectError> {
    reader.text("the name of a section or component").map(str::to_owned)
}
