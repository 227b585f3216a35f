//! Packs, to the level that was asked for; which objects are well in at least one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use gradient_odb::{Kind, ObjectName, Odb, OdbError, PackId, PackReport, Progress, VerifyLevel};

use super::{FsckLevel, FsckOptions, FsckReport, Severity};
use crate::error::{RepoError, Result};

/// What packs hold.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Objects with the packs that hold a copy which was found good.
    pub(crate) good: HashMap<ObjectName, Vec<PackId>>,
    /// What each good copy of a chunk that is a delta is coded against.
    pub(crate) bases: HashMap<ObjectName, Vec<Vec<ObjectName>>>,
    /// Damaged packs, with the objects that their indexes name; those that could be found without it where the index can
    /// not be read.
    pub(crate) damaged: BTreeMap<PackId, Vec<ObjectName>>,
    /// Those of the damaged packs whose header, index or footer can not be read.
    pub(crate) walked: HashSet<PackId>,
}

pub(super) fn check(odb: &Odb, options: FsckOptions, progress: &Progress, report: &mut FsckReport) -> Result<Stored> {
    let mut stored = Stored::default();
    let mut seen: BTreeSet<PackId> = BTreeSet::new();
    progress.add_total(odb.disk_bytes());
    while let Some(pack) = next(odb, &seen)? {
        progress.check()?;
        seen.insert(pack);
        let is_drawn = is_drawn(options.sample_percent)?;
        let level = match options.level {
            FsckLevel::Quick if !is_drawn => VerifyLevel::Structure,
            FsckLevel::Metadata if !is_drawn => VerifyLevel::Metadata,
            FsckLevel::Quick | FsckLevel::Metadata | FsckLevel::Full => VerifyLevel::Full,
        };
        match odb.verify_pack(&pack, level, progress) {
            Ok(checked) => {
                report.num_packs += 1;
                report.num_packs_full += u64::from(level == VerifyLevel::Full);
                take(pack, &checked, &mut stored, report);
            }
            // Merged or collected meanwhile: what it held is in a pack that came since, or needed by none.
            Err(OdbError::Storage(error)) if error.is_not_found() => odb.refresh()?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stored)
}

/// Finds a pack that was not looked at; lists them again before it says that there is none.
fn next(odb: &Odb, seen: &BTreeSet<PackId>) -> Result<Option<PackId>> {
    let look = || {
        let damaged = odb.damaged().into_iter().map(|damage| damage.pack);
        odb.packs().into_iter().chain(damaged).find(|pack| !seen.contains(pack))
    };
    if let Some(pack) = look() {
        return Ok(Some(pack));
    }
    odb.refresh()?;
    Ok(look())
}

fn take(pack: PackId, checked: &PackReport, stored: &mut Stored, report: &mut FsckReport) {
    let bad: HashSet<ObjectName> = checked.damage.iter().filter_map(|damage| damage.object).collect();
    // Damage of no one object is that of a block, or of the pack: no tree or commit in it counts.
    // What a walk found was read, each on its own.
    let has_bad_blocks = !checked.is_walked && checked.damage.iter().any(|damage| damage.object.is_none());
    let is_good = |name: &ObjectName| !(bad.contains(name) || (has_bad_blocks && name.kind != Kind::Chunk));
    for damage in &checked.damage {
        report.add_damage(damage);
    }
    if checked.is_walked {
        stored.walked.insert(pack);
        if !checked.objects.is_empty() {
            let what = format!(
                "{} objects in it were found without its index, are well and are read; no new commit relies on them. Put \
                 the pack back from a copy of the repository, or keep it: gradient repair --apply moves it aside only \
                 once other packs hold all of it that is needed",
                checked.objects.len()
            );
            report.add(Severity::Note, pack.key().to_string(), what);
        }
    }
    if !checked.damage.is_empty() {
        stored.damaged.insert(pack, checked.objects.iter().map(|(name, _)| *name).collect());
    }
    for (name, bases) in checked.bases.iter().filter(|(name, _)| is_good(name)) {
        stored.bases.entry(*name).or_default().push(bases.clone());
    }
    for (name, raw_len) in checked.objects.iter().filter(|(name, _)| is_good(name)) {
        let copies = stored.good.entry(*name).or_default();
        copies.push(pack);
        if copies.len() > 1 {
            continue;
        }
        match name.kind {
            Kind::Chunk => {
                report.num_chunks += 1;
                report.raw_len += raw_len;
            }
            Kind::Tree => report.num_trees += 1,
            Kind::Commit => report.num_commits += 1,
        }
    }
}

/// Draws whether a pack is read in full.
fn is_drawn(percent: f64) -> Result<bool> {
    if percent <= 0.0 {
        return Ok(false);
    }
    let random = getrandom::u32()
        .map_err(|source| RepoError::invalid(format!("the system gives no random numbers: {source}"), ""))?;
    Ok(f64::from(random) < percent / 100.0 * f64::from(u32::MAX))
}
