//! Rules that are broken on purpose, to see whether the tests notice.

use std::cell::Cell;

thread_local! {
    static SKIP_LOOK_AGAIN: Cell<bool> = const { Cell::new(false) };
    static FOLLOW_ANY_CHAIN: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread follows delta chains however long they are.
pub fn follow_any_chain(follow: bool) {
    FOLLOW_ANY_CHAIN.set(follow);
}

pub(crate) fn follows_any_chain() -> bool {
    FOLLOW_ANY_CHAIN.get()
}

/// From now on this thread believes, after a condemnation, that everything it relied on is there.
pub fn skip_look_again(skip: bool) {
    SKIP_LOOK_AGAIN.set(skip);
}

pub(crate) fn skips_look_again() -> bool {
    SKIP_LOOK_AGAIN.get()
}
