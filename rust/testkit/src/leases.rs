//! Makes the leases on a disk those of the dead.
//!
//! All processes of a test are one process of the system, which lives. After a crash the machine has been booted again
//! or the process is gone: a lease then names another boot than this one.

use std::path::Path;

use gradient_storage::sim::SimFs;

use crate::process::DIR;

const HASH_LEN: usize = 32;

/// Lets every lease name another boot; returns the names of those that can not be read, which only time can tell dead.
pub fn bury(disk: &SimFs) -> Vec<String> {
    bury_some(disk, |_| true)
}

/// Lets one lease name another boot, if it can be read.
pub(crate) fn bury_one(disk: &SimFs, lease: &str) {
    bury_some(disk, |name| name == lease);
}

fn bury_some(disk: &SimFs, is_dead: impl Fn(&str) -> bool) -> Vec<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim().as_bytes();
    let folder = Path::new(DIR).join("leases");
    let mut unreadable = Vec::new();
    for (name, bytes) in disk.files(&folder).into_iter().filter(|(name, _)| is_dead(name)) {
        let Some(body) = readable(&bytes) else {
            unreadable.push(name);
            continue;
        };
        let Some(at) = body.windows(boot.len().max(1)).position(|window| window == boot) else { continue };
        let mut body = body.to_vec();
        body[at..at + boot.len()].fill(b'0');
        let hash = blake3::hash(&body);
        body.extend_from_slice(hash.as_bytes());
        disk.tamper(&folder, &name, Some(&body));
    }
    unreadable
}

/// Says whether the bytes of a lease are as somebody wrote them.
pub(crate) fn is_readable(bytes: &[u8]) -> bool {
    readable(bytes).is_some()
}

fn readable(bytes: &[u8]) -> Option<&[u8]> {
    let (body, hash) = bytes.split_last_chunk::<HASH_LEN>()?;
    (blake3::hash(body).as_bytes() == hash).then_some(body)
}
