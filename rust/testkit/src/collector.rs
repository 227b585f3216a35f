//! A collector, for tests only: marks what operations name, condemns packs that nothing live needs, deletes them.
//!
//! It keeps to rule G2 but for the patience: it waits for no lease, so that what is tested is the operation protocol
//! alone. What it may condemn is decided on the head that its operation follows; if somebody else was first, it marks
//! what that one added and decides again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gradient_object::{CommitId, TensorData, TreeId, Value};
use gradient_odb::{ObjectName, Odb, PackId};
use gradient_repo::{Head, OperationKind, OperationLog, Published, Refs, Subject};
use gradient_storage::{Folder, Key, Storage, StorageError};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Which packs a collector condemns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greed {
    /// Those of which nothing is needed.
    Unneeded,
    /// Also those of which all that is needed lies in packs that stay.
    Redundant,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs that it condemned and deleted.
    pub packs: Vec<PackId>,
    /// Operations that it tried to publish.
    pub num_attempts: usize,
    /// Commits that it marked with each attempt.
    pub marked: Vec<usize>,
}

struct Collector {
    storage: Arc<dyn Storage>,
    odb: Odb,
    marked: HashSet<CommitId>,
    trees: HashSet<TreeId>,
    needed: HashSet<ObjectName>,
    /// Objects by pack.
    packs: BTreeMap<PackId, Vec<ObjectName>>,
}

/// Collects once.
///
/// # Errors
/// What the repository says; the collection stops there.
pub fn collect(storage: &Arc<dyn Storage>, greed: Greed) -> Result<Collected, Failed> {
    let log = OperationLog::new(Arc::clone(storage));
    let mut head = log.head()?.ok_or("there is no operation")?;
    let mut collector = Collector {
        storage: Arc::clone(storage),
        odb: Odb::open(Arc::clone(storage))?,
        marked: HashSet::new(),
        trees: HashSet::new(),
        needed: HashSet::new(),
        packs: BTreeMap::new(),
    };
    let mut collected = Collected::default();
    loop {
        let before = collector.marked.len();
        let mut roots = Vec::new();
        log.replay(head.operation.n, |step| {
            roots.extend(step.table.values().map(|target| target.commit()));
            if let Head::Commit(id) = step.operation.head {
                roots.push(id);
            }
            Ok(())
        })?;
        for root in roots {
            collector.mark(root)?;
        }
        collected.marked.push(collector.marked.len() - before);
        let present = collector.list()?;
        let mut condemned = head.operation.condemned.clone();
        condemned.retain(|pack| present.contains(pack));
        let dead = collector.dead(&present, &condemned, greed);
        if dead.is_empty() {
            return Ok(collected);
        }
        condemned.extend(&dead);
        condemned.sort_unstable();
        let mut operation = head.operation.clone();
        (operation.n, operation.previous) = (head.operation.n + 1, Some(head.id));
        (operation.kind, operation.subject) = (OperationKind::Condemn, Subject::None);
        operation.why = format!("{} packs are needed by nothing", dead.len());
        operation.refs = Refs::Whole(head.table.clone());
        operation.condemned = condemned;
        collected.num_attempts += 1;
        if let Published::Done(_) = log.publish(Some(&head), operation)? {
            collector.delete(&dead)?;
            collected.packs = dead;
            return Ok(collected);
        }
        log.advance(&mut head)?;
        collector.odb.refresh()?;
    }
}

impl Collector {
    /// Marks a commit, its parents, and all that they need.
    fn mark(&mut self, id: CommitId) -> Result<(), Failed> {
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            if !self.marked.insert(id) {
                continue;
            }
            self.needed.insert(id.into());
            let commit = self.odb.read_commit(&id)?;
            self.mark_root(commit.tree)?;
            self.mark_tree(commit.environment)?;
            left.extend(commit.parents);
        }
        Ok(())
    }

    fn mark_root(&mut self, id: TreeId) -> Result<(), Failed> {
        if self.trees.insert(id) {
            self.needed.insert(id.into());
            for component in self.odb.read_root(&id)?.sections.into_values().flat_map(BTreeMap::into_values) {
                self.mark_tree(component)?;
            }
        }
        Ok(())
    }

    fn mark_tree(&mut self, id: TreeId) -> Result<(), Failed> {
        if self.trees.insert(id) {
            self.needed.insert(id.into());
            Value::Map(self.odb.read_tree(&id)?.0).for_each_tensor(&mut |tensor| {
                if let TensorData::Chunks(chunks) = &tensor.data {
                    self.needed.extend(chunks.iter().map(|chunk| ObjectName::from(*chunk)));
                }
            });
        }
        Ok(())
    }

    /// Lists the packs, and learns what those hold that came since.
    fn list(&mut self) -> Result<HashSet<PackId>, Failed> {
        let listed = self.storage.list(Folder::Packs)?;
        let present: HashSet<PackId> = listed.iter().filter_map(|file| PackId::from_file_name(&file.name)).collect();
        for pack in &present {
            if !self.packs.contains_key(pack) {
                match self.odb.pack_objects(pack) {
                    Ok(objects) => drop(self.packs.insert(*pack, objects)),
                    Err(gradient_odb::OdbError::Storage(StorageError::NotFound { .. })) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(present)
    }

    fn dead(&self, present: &HashSet<PackId>, condemned: &[PackId], greed: Greed) -> Vec<PackId> {
        let mut staying: BTreeMap<PackId, &[ObjectName]> = BTreeMap::new();
        for (pack, objects) in self.packs.iter().filter(|(pack, _)| present.contains(*pack)) {
            if !condemned.contains(pack) {
                staying.insert(*pack, objects);
            }
        }
        let mut dead = Vec::new();
        for pack in staying.keys().copied().collect::<Vec<_>>() {
            let objects = staying.remove(&pack).unwrap_or_default();
            let elsewhere =
                |name: &ObjectName| greed == Greed::Redundant && staying.values().any(|objects| objects.contains(name));
            if objects.iter().filter(|name| self.needed.contains(name)).all(elsewhere) {
                dead.push(pack);
            } else {
                staying.insert(pack, objects);
            }
        }
        dead
    }

    fn delete(&self, packs: &[PackId]) -> Result<(), StorageError> {
        for pack in packs {
            let steps = [
                self.storage.move_to_trash(&Key::pack(pack.as_bytes())),
                self.storage.delete(&Key::trash_pack(pack.as_bytes())),
            ];
            for step in steps {
                match step {
                    // Somebody's upkeep was here.
                    Ok(()) | Err(StorageError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
