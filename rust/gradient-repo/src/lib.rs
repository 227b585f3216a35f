//! A repository: operations, refs, the commit transaction, history.
#![forbid(unsafe_code)]
