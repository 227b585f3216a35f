//! Which names a branch, a tag or a component may have (`docs/format/operations.md`).

use unicode_normalization::is_nfc;

use crate::error::{RepoError, Result};

/// Longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Checks that `name` can name a `what` (`branch`, `tag`).
///
/// # Errors
/// [`RepoError::BadName`] with the rule that it breaks.
pub fn check_name(name: &str, what: &str) -> Result<()> {
    match broken_rule(name) {
        Some(reason) => Err(RepoError::BadName { name: name.to_owned(), what: what.to_owned(), reason }),
        None => Ok(()),
    }
}

fn broken_rule(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Some("it is longer than 255 bytes");
    }
    if name.contains('@') {
        return Some("@ separates a branch from a step");
    }
    if name == "HEAD" || name == "latest" {
        return Some("it means something already");
    }
    if name.len() >= 8 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some("it could be the id of a commit");
    }
    if let Some(reason) = name.chars().find_map(bad_character) {
        return Some(reason);
    }
    if !is_nfc(name) {
        return Some("it is not in Unicode normal form C");
    }
    name.split('/').find_map(bad_component)
}

fn bad_character(c: char) -> Option<&'static str> {
    if c.is_control() || c.is_whitespace() {
        Some("it has blanks or control characters")
    } else if matches!(c, '\\' | ':' | '~' | '^' | '?' | '*' | '[') {
        Some("it has one of \\ : ~ ^ ? * [")
    } else {
        None
    }
}

fn bad_component(part: &str) -> Option<&'static str> {
    let stem = part.split('.').next().unwrap_or(part).to_ascii_lowercase();
    if part.is_empty() {
        Some("it has an empty component")
    } else if part.starts_with('.') || part.starts_with('-') {
        Some("a component starts with . or -")
    } else if part.ends_with('.') || part.to_ascii_lowercase().ends_with(".lock") {
        Some("a component ends with . or .lock")
    } else if part.contains("..") {
        Some("it has ..")
    } else if RESERVED.contains(&stem.as_str()) || is_numbered_device(&stem) {
        Some("it is the name of a device on Windows")
    } else {
        None
    }
}

fn is_numbered_device(stem: &str) -> bool {
    matches!(stem.as_bytes(), [b'c', b'o', b'm', b'1'..=b'9'] | [b'l', b'p', b't', b'1'..=b'9'])
}

/// Names of `candidates` that are close enough to `name` to be what was meant, best first, at most three.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let allowed = (name.chars().count() / 3).max(2);
    let mut close: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed || (name.len() > 2 && candidate.starts_with(name)))
        .collect();
    close.sort_unstable();
    close.into_iter().take(3).map(|(_, candidate)| candidate.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in ["main", "exp/lr-3e4", "v1.0", "main.1", "a", "caf\u{e9}", "deadbee", "x_y+z"] {
            assert!(check_name(name, "branch").is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_are_paths_refs_or_devices_are_refused() {
        for name in [
            "", "../x", "a/../b", "/a", "a/", "a//b", ".a", "a/.b", "-a", "a.lock", "a/b.LOCK", "a.", "a\rb", "a\0b",
            "a b", "a\\b", "a:b", "a~1", "a^", "a?", "a*", "a[", "a@1", "HEAD", "latest", "deadbeef", "con", "NUL.txt",
            "com1", "a/lpt9.x", "e\u{301}", "a..b",
        ] {
            assert!(check_name(name, "branch").is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(256), "tag").is_err());
    }

    #[test]
    fn the_nearest_name_comes_first() {
        assert_eq!(nearest("mian", ["main", "mail", "experiment"]), ["main", "mail"]);
        assert!(nearest("zzz", ["main"]).is_empty());
    }
}
