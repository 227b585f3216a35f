//! Fused kernels on compressed optimizer state.
#![forbid(unsafe_code)]
