//! Finds where to read an object: in the index, in packs that came since, elsewhere when a copy is damaged.

use crate::index::Found;
use crate::pack::tail::Tail;
use crate::{ObjectName, Odb, OdbError, PackId};

impl Odb {
    /// Finds an object and calls `read` with where it lies; looks again if the pack is gone, and elsewhere if the
    /// object is damaged there.
    pub(crate) fn find_and<T>(
        &self,
        name: &ObjectName,
        mut read: impl FnMut(&Found) -> Result<T, OdbError>,
    ) -> Result<(T, PackId), OdbError> {
        let (mut found, generation) = self.locate(name)?;
        let mut result = read(&found);
        if result.as_ref().is_err_and(OdbError::is_missing_file) {
            self.refresh_since(generation)?;
            (found, _) = self.locate(name)?;
            result = read(&found);
        }
        if result.as_ref().is_err_and(OdbError::is_damage) && !self.check_pack(&found.pack).unwrap_or(true) {
            // Its header, index or footer is damaged, which the index did not know.
            (found, _) = self.locate(name)?;
            result = read(&found);
        }
        match result {
            Ok(value) => Ok((value, found.pack)),
            // What is not found is a base: a copy that needs another one, or none, may be elsewhere.
            Err(error) if error.is_damage() || matches!(error, OdbError::NotFound { .. }) => {
                for other in self.find_elsewhere(name, &found) {
                    if let Ok(value) = read(&other) {
                        self.prefer(name, &other);
                        return Ok((value, other.pack));
                    }
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Finds an object, listing the packs again if it is not known.
    pub(crate) fn locate(&self, name: &ObjectName) -> Result<(Found, u64), OdbError> {
        let look = || {
            let index = self.index();
            (index.find(name), index.generation)
        };
        let (found, generation) = look();
        if let Some(found) = found {
            return Ok((found, generation));
        }
        self.refresh_since(generation)?;
        let (found, generation) = look();
        match found {
            Some(found) => Ok((found, generation)),
            None => Err(self.missing(name)),
        }
    }

    /// Says that an object is in no pack that can be opened.
    fn missing(&self, name: &ObjectName) -> OdbError {
        let index = self.index();
        match index.damaged().next() {
            None => OdbError::NotFound { object: *name },
            Some((_, damage)) => OdbError::ObjectDamaged {
                object: *name,
                pack: damage.pack,
                offset: damage.offset,
                what: format!("no intact pack holds it, and this pack can not be opened: {}", damage.what),
            },
        }
    }

    /// Finds an object at other places than one, by the packs' own indexes. Slow; for what is damaged there.
    pub(crate) fn find_elsewhere(&self, name: &ObjectName, tried: &Found) -> Vec<Found> {
        let (packs, walked) = {
            let index = self.index();
            (index.packs(), index.find_walked(name).collect::<Vec<_>>())
        };
        let mut elsewhere: Vec<Found> = packs
            .into_iter()
            .filter_map(|(pack, len)| {
                // Also the pack itself: the merged index may be wrong where the pack is right.
                let tail = Tail::read(&*self.storage, pack, len).ok()?;
                let row = tail.index.find(name)?;
                let found = Found::in_tail(&tail, row);
                let is_tried = found.pack == tried.pack && found.row.is_same_place(&tried.row);
                (!is_tried).then_some(found)
            })
            .collect();
        elsewhere.extend(walked.into_iter().filter(|found| found.pack != tried.pack));
        elsewhere
    }

    /// Names another place of an object from now on, because what lies where the index said is damaged.
    pub(crate) fn prefer(&self, name: &ObjectName, found: &Found) {
        self.index_mut().prefer(name, found);
    }

    /// Finds a good copy of an object that is damaged at one place, in a pack that may be relied on.
    pub(crate) fn find_good_copy(
        &self,
        name: &ObjectName,
        damaged: &Found,
        mut is_good: impl FnMut(&Found) -> bool,
    ) -> Option<Found> {
        let others = self.find_elsewhere(name, damaged);
        let good = others.into_iter().find(|other| !self.index().is_unfit(&other.pack) && is_good(other))?;
        self.prefer(name, &good);
        Some(good)
    }
}
