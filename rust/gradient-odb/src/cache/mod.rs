//! What can be rebuilt from the packs and is kept because that would take time (`docs/format/caches.md`).

pub(crate) mod commits;
pub(crate) mod merged;
