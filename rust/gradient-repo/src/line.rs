//! The line that a handle commits on: which tensors of the commit before the next one's may be coded against.

use gradient_object::{CommitId, Key, Tensor, TensorData, Value};
use gradient_odb::{Coding, Deltas, Line, Updates};

use crate::render::size;
use crate::repository::Repository;

/// How a commit is stored; nothing of it enters an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storing {
    /// Whether chunks are coded, and when against others.
    pub coding: Coding,
    /// Bytes of bases that are kept in memory at most.
    pub resident_max: u64,
    /// Commits with deltas that may follow one without; none for no limit.
    pub reanchor_interval: Option<u32>,
}

impl Default for Storing {
    fn default() -> Self {
        Self { coding: Coding::default(), resident_max: u64::MAX, reanchor_interval: None }
    }
}

/// What a handle keeps of the commit that it made or came from last.
#[derive(Debug, Default)]
pub(crate) struct LineState {
    line: Line,
    at: Option<CommitId>,
    num_since_anchor: u32,
    has_told: bool,
}

impl LineState {
    /// Returns the line for a commit on `base`, and how its chunks are coded.
    pub(crate) fn before(&mut self, repo: &Repository, base: Option<CommitId>, storing: Storing) -> Coding {
        let Storing { mut coding, resident_max, reanchor_interval } = storing;
        if self.at != base {
            *self = Self { has_told: self.has_told, ..Self::default() };
            if let Some(base) = base.filter(|_| coding.deltas != Deltas::Off) {
                self.seed(repo, &base);
            }
            self.at = base;
        }
        self.line.set_resident_max(if coding.deltas == Deltas::Off { 0 } else { resident_max });
        if reanchor_interval.is_some_and(|most| self.num_since_anchor >= most) {
            coding.deltas = Deltas::Off;
        }
        coding
    }

    /// Returns what chunks may be coded against.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Stays at the commit that the state was found to be.
    pub(crate) fn stay(&mut self, updates: Updates) {
        self.line.advance(updates);
    }

    /// Goes on to a commit that is published. Returns what is worth saying, once.
    pub(crate) fn advance(
        &mut self,
        to: CommitId,
        updates: Updates,
        has_deltas: bool,
        storing: Storing,
    ) -> Option<String> {
        self.line.advance(updates);
        self.at = Some(to);
        self.num_since_anchor = if has_deltas { self.num_since_anchor + 1 } else { 0 };
        let had_no_room = self.line.take_had_no_room() && storing.coding.deltas != Deltas::Off;
        if !had_no_room || self.has_told {
            return None;
        }
        self.has_told = true;
        Some(format!(
            "deltas need the bytes they are taken against in memory, and those of this state do not fit into \
             staging_bytes_max, {}: what does not fit is stored without deltas. Set it to the state's size or more, or \
             deltas=\"off\"",
            size(storing.resident_max)
        ))
    }

    /// Makes the tensors of a commit what the next one's may be coded against. What can not be read is left out: it
    /// is stored without a base then.
    fn seed(&mut self, repo: &Repository, base: &CommitId) {
        // What can not be read is no reason to keep anybody from their commit.
        let Ok(sections) = repo.components(base) else { return };
        for (section, components) in sections {
            for (name, root) in components {
                let Ok(tree) = repo.odb.read_tree(&root).map(|tree| Value::Map(tree.0)) else { continue };
                for_each_tensor(&tree, &mut format!("{section}/{name}"), &mut |path, tensor| {
                    if let TensorData::Chunks(chunks) = &tensor.data {
                        self.line.seed(key_of(path, tensor), chunks);
                    }
                });
            }
        }
    }
}

/// What a tensor is called in the line. With its dtype: bits of another kind are nothing to take a difference to.
pub(crate) fn key_of<D>(path: &str, tensor: &Tensor<D>) -> String {
    format!("{:?} {} {path}", tensor.flavor, tensor.dtype)
}

/// Shows every tensor with its path.
pub(crate) fn for_each_tensor<D>(value: &Value<D>, path: &mut String, f: &mut impl FnMut(&str, &Tensor<D>)) {
    let len = path.len();
    match value {
        Value::None
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Complex(..)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Alias(_)
        | Value::Subtree(_) => {}
        Value::List(items) | Value::Tuple(items) | Value::Set { items, .. } => {
            for (number, item) in items.iter().enumerate() {
                path.extend(["/", &number.to_string()]);
                for_each_tensor(item, path, f);
                path.truncate(len);
            }
        }
        Value::Map(mapping) => {
            for (key, item) in mapping.iter() {
                match key {
                    Key::Text(text) => path.extend(["/", text]),
                    other => path.extend(["/", &format!("{other:?}")]),
                }
                for_each_tensor(item, path, f);
                path.truncate(len);
            }
        }
        Value::Tensor(tensor) => f(path, tensor),
        Value::Named { value, extra, .. } => {
            for (name, item) in [("/value", value), ("/extra", extra)] {
                path.push_str(name);
                for_each_tensor(item, path, f);
                path.truncate(len);
            }
        }
    }
}
