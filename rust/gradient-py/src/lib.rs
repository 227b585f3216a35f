//! The compiled module gradient._core: translates, decides nothing.

