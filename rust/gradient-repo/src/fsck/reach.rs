//! That everything which refs need, or needed once, is stored; what is stored and needed by none.

use std::collections::{BTreeMap, HashMap, HashSet};

use gradient_object::{CommitId, Tensor, TensorData, TreeId, Value};
use gradient_odb::{Kind, ObjectName, Odb, PackId, Progress};

use super::log::Roots;
use super::packs::Stored;
use super::{Finding, FsckLevel, FsckReport, Severity};
use crate::error::Result;

/// Returns the objects that are needed.
pub(super) fn check(
    odb: &Odb,
    roots: &Roots,
    stored: &Stored,
    level: FsckLevel,
    progress: &Progress,
    report: &mut FsckReport,
) -> Result<HashSet<ObjectName>> {
    let mut walk = Walk {
        odb,
        stored,
        condemned: &roots.condemned,
        with_trees: level > FsckLevel::Quick,
        needed: HashSet::new(),
        trees: HashMap::new(),
        chunks: HashMap::new(),
        report,
    };
    let mut seen: HashSet<CommitId> = HashSet::new();
    let mut next: Vec<(CommitId, String)> =
        roots.named.iter().map(|(id, name)| (*id, format!("{name} names it"))).collect();
    while let Some((id, why)) = next.pop() {
        progress.check()?;
        if seen.insert(id) {
            let parents = walk.commit(id, &why);
            next.extend(parents.into_iter().map(|parent| (parent, format!("it is a parent of {}", id.short()))));
        }
    }
    if level > FsckLevel::Quick {
        walk.count_orphans();
    }
    Ok(walk.needed)
}

struct Walk<'a> {
    odb: &'a Odb,
    stored: &'a Stored,
    condemned: &'a [PackId],
    with_trees: bool,
    needed: HashSet<ObjectName>,
    /// Trees that were walked: why each is not whole, if it is not.
    trees: HashMap<TreeId, Option<String>>,
    /// Chunks that were walked: what each lacks.
    chunks: HashMap<ObjectName, Option<ObjectName>>,
    report: &'a mut FsckReport,
}

impl Walk<'_> {
    /// Checks a commit; returns its parents.
    fn commit(&mut self, id: CommitId, why: &str) -> Vec<CommitId> {
        if !self.needs(id.into(), why) {
            self.report.lost.insert(id, "the commit is lost itself".to_owned());
            return Vec::new();
        }
        let commit = match self.odb.read_commit(&id) {
            Ok(commit) => commit,
            Err(error) => {
                let reason = self.unreadable(id.into(), &error.to_string());
                self.report.lost.insert(id, reason);
                return Vec::new();
            }
        };
        if self.with_trees {
            let why = format!("commit {} needs it", id.short());
            let lost = self.root(commit.tree, &why).or_else(|| self.tree(commit.environment, &why));
            if let Some(reason) = lost {
                self.report.lost.insert(id, reason);
            }
        }
        commit.parents
    }

    /// Says why a root is not whole, if it is not.
    fn root(&mut self, id: TreeId, why: &str) -> Option<String> {
        if let Some(known) = self.trees.get(&id) {
            return known.clone();
        }
        let lost = if self.needs(id.into(), why) {
            match self.odb.read_root(&id) {
                Ok(root) => {
                    let mut lost = None;
                    for component in root.sections.into_values().flat_map(BTreeMap::into_values) {
                        // All of them, so that each missing object is named.
                        let missing = self.tree(component, why);
                        lost = lost.or(missing);
                    }
                    lost
                }
                Err(error) => Some(self.unreadable(id.into(), &error.to_string())),
            }
        } else {
            Some(format!("{} is missing", ObjectName::from(id)))
        };
        self.trees.insert(id, lost.clone());
        lost
    }

    /// Says why a component or an environment is not whole, if it is not.
    fn tree(&mut self, id: TreeId, why: &str) -> Option<String> {
        if let Some(known) = self.trees.get(&id) {
            return known.clone();
        }
        let lost = if self.needs(id.into(), why) {
            match self.odb.read_tree(&id) {
                Ok(tree) => {
                    let value = Value::Map(tree.0);
                    let mut lost = None;
                    value.for_each_tensor(&mut |tensor| {
                        let missing = self.tensor(tensor, why);
                        lost = lost.take().or(missing);
                    });
                    lost
                }
                Err(error) => Some(self.unreadable(id.into(), &error.to_string())),
            }
        } else {
            Some(format!("{} is missing", ObjectName::from(id)))
        };
        self.trees.insert(id, lost.clone());
        lost
    }

    fn tensor(&mut self, tensor: &Tensor, why: &str) -> Option<String> {
        let TensorData::Chunks(chunks) = &tensor.data else { return None };
        let mut lost = None;
        for id in chunks {
            if let Some(missing) = self.chunk((*id).into(), why) {
                lost = lost.or_else(|| Some(format!("{missing} is missing")));
            }
        }
        lost
    }

    /// Notes that a chunk is needed, and all that it is coded against; returns what of that is not stored.
    fn chunk(&mut self, name: ObjectName, why: &str) -> Option<ObjectName> {
        if let Some(known) = self.chunks.get(&name) {
            return *known;
        }
        // Whoever comes back to it goes round: what reads it says so.
        self.chunks.insert(name, None);
        let missing = if self.needs(name, why) { self.bases(name) } else { Some(name) };
        self.chunks.insert(name, missing);
        missing
    }

    fn bases(&mut self, name: ObjectName) -> Option<ObjectName> {
        let stored = self.stored;
        let deltas = stored.bases.get(&name)?;
        let num_copies = stored.good.get(&name).map_or(0, Vec::len);
        let why = format!("{name} is stored as a difference to it");
        if num_copies > deltas.len() {
            // A copy stands by itself; what others are coded against is needed as long as it is there.
            for base in deltas.iter().flatten().filter(|base| stored.good.contains_key(base)) {
                self.chunk(*base, &why);
            }
            return None;
        }
        let missing: Vec<Option<ObjectName>> = deltas
            .iter()
            .map(|bases| bases.iter().map(|base| self.chunk(*base, &why)).fold(None, Option::or))
            .collect();
        if missing.contains(&None) { None } else { missing.into_iter().flatten().next() }
    }

    /// Notes that an object is needed; says whether a good copy of it is stored.
    fn needs(&mut self, name: ObjectName, why: &str) -> bool {
        let is_new = self.needed.insert(name);
        let copies = self.stored.good.get(&name).map(Vec::as_slice).unwrap_or_default();
        let stays = copies.iter().any(|pack| !self.condemned.contains(pack));
        if !stays && is_new {
            let which = if copies.is_empty() { "a good copy" } else { "a good copy but one that was condemned" };
            self.report.findings.push(Finding {
                severity: Severity::Error,
                file: String::new(),
                offset: None,
                object: Some(name.to_string()),
                what: format!("no pack holds {which}, and {why}"),
            });
        }
        !copies.is_empty()
    }

    fn unreadable(&mut self, name: ObjectName, reason: &str) -> String {
        self.report.findings.push(Finding {
            severity: Severity::Error,
            file: String::new(),
            offset: None,
            object: Some(name.to_string()),
            what: reason.to_owned(),
        });
        reason.to_owned()
    }

    fn count_orphans(&mut self) {
        // What a walk finds in a damaged block may never have been stored.
        let is_sure = |copies: &[PackId]| copies.iter().any(|pack| !self.stored.walked.contains(pack));
        let good = self.stored.good.iter().filter(|(_, copies)| is_sure(copies));
        let orphans = good.map(|(name, _)| name).filter(|name| !self.needed.contains(name));
        let (mut num_chunks, mut num_others) = (0_u64, 0_u64);
        for name in orphans {
            *(if name.kind == Kind::Chunk { &mut num_chunks } else { &mut num_others }) += 1;
        }
        self.report.num_orphans = num_chunks + num_others;
        if self.report.num_orphans > 0 {
            let what = format!(
                "{num_chunks} chunks, {num_others} trees and commits are needed by no ref: left by writers that \
                 stopped before they published"
            );
            self.report.add(Severity::Note, "packs", what);
        }
    }
}
