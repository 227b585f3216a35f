//! A rule that is broken on purpose, to see whether the crash tests notice.

use std::cell::Cell;

thread_local! {
    static SKIP_LOOK_AGAIN: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread believes, after a condemnation, that everything it relied on is there.
pub fn skip_look_again(skip: bool) {
    SKIP_LOOK_AGAIN.set(skip);
}

pub(crate) fn skips_look_again() -> bool {
    SKIP_LOOK_AGAIN.get()
}
