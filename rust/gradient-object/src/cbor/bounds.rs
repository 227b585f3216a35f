//! Limits that the reader and the writer keep alike.

use crate::error::ObjectError;
use crate::value::Value;
use crate::{ELEMENTS_MAX, NAME_BYTES_MAX, NESTING_MAX};

/// Where a value stands; it decides what may be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anywhere.
    Value,
    /// A component tree: no subtrees.
    ComponentTree,
    /// A commit: nothing that names content elsewhere.
    Commit,
}

/// What an object has used of its limits.
pub(crate) struct Bounds {
    place: Place,
    nesting: usize,
    num_elements: usize,
}

impl Bounds {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, nesting: 0, num_elements: 0 }
    }

    /// Opens a container of this many values and keys.
    ///
    /// Counts before the elements are read, so that claims of nested containers add up before any of them is allocated.
    pub(crate) fn open(&mut self, num_elements: usize) -> Result<(), ObjectError> {
        if self.nesting == NESTING_MAX {
            return Err(ObjectError::TooDeep { max: NESTING_MAX });
        }
        self.nesting += 1;
        self.count(num_elements)
    }

    /// Closes the container that was opened last.
    pub(crate) fn close(&mut self) {
        self.nesting -= 1;
    }

    /// Counts values and keys.
    pub(crate) fn count(&mut self, num_elements: usize) -> Result<(), ObjectError> {
        self.num_elements = self.num_elements.saturating_add(num_elements);
        if self.num_elements <= ELEMENTS_MAX {
            return Ok(());
        }
        Err(ObjectError::TooLarge {
            what: "elements of an object",
            actual: self.num_elements as u64,
            max: ELEMENTS_MAX as u64,
        })
    }

    pub(crate) fn admit_tensor(&self) -> Result<(), ObjectError> {
        self.admit("a tensor", &[Place::Value, Place::ComponentTree])
    }

    pub(crate) fn admit_alias(&self) -> Result<(), ObjectError> {
        self.admit("an alias", &[Place::Value, Place::ComponentTree])
    }

    pub(crate) fn admit_subtree(&self) -> Result<(), ObjectError> {
        self.admit("a subtree", &[Place::Value])
    }

    fn admit(&self, what: &'static str, places: &[Place]) -> Result<(), ObjectError> {
        if places.contains(&self.place) {
            return Ok(());
        }
        let place = match self.place {
            Place::Value => "a value",
            Place::ComponentTree => "a component tree",
            Place::Commit => "a commit",
        };
        Err(ObjectError::Misplaced { what, place })
    }
}

/// Checks that a value can be in a set: what can be a key, a frozen set, or a tuple of these.
pub(crate) fn check_element(value: &Value) -> Result<(), ObjectError> {
    let what = match value {
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Complex(..)
        | Value::Text(_)
        | Value::Bytes(_)
        // Its own elements are checked as those of a set.
        | Value::Set { frozen: true, .. } => return Ok(()),
        Value::Tuple(items) => return items.iter().try_for_each(check_element),
        Value::List(_) => "a list",
        Value::Set { frozen: false, .. } => "a set",
        Value::Map(_) => "a mapping",
        Value::Tensor(_) => "a tensor",
        Value::Alias(_) => "an alias",
        Value::Named { .. } => "a named value",
        Value::Subtree(_) => "a subtree",
    };
    Err(ObjectError::Misplaced { what, place: "a set" })
}

/// Checks the length of the name of a branch, section or component.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), ObjectError> {
    if name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(ObjectError::TooLarge { what, actual: name.len() as u64, max: NAME_BYTES_MAX as u64 })
}
