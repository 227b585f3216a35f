//! A rule that is broken on purpose, to see whether the tests of readers notice.

use std::cell::Cell;

thread_local! {
    static ACCEPT_NON_CANONICAL: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread reads objects that it would write otherwise.
pub fn accept_non_canonical(accept: bool) {
    ACCEPT_NON_CANONICAL.set(accept);
}

pub(crate) fn accepts_non_canonical() -> bool {
    ACCEPT_NON_CANONICAL.get()
}
