//! Loops that are compiled once more for processors that do them better; which one this is, it is asked.
//!
//! All of them work on integers: what is compiled for one processor gives the same bytes as what is compiled for all.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;
#[cfg(target_arch = "x86_64")]
use std::mem;

/// Makes a function that calls `$better`, compiled with `$features`, on processors that have them all, else `$plain`.
///
/// `$better`, and all that its loops call, is always inlined: what is not is compiled without the features.
macro_rules! for_processor {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $returned:ty)?
            = [$($feature:tt),+] => $better:path, else $plain:path;
    ) => {
        $(#[$doc])*
        #[inline]
        $vis fn $name($($arg: $type),*) $(-> $returned)? {
            #[cfg(target_arch = "x86_64")]
            {
                $(#[target_feature(enable = $feature)])+
                fn better($($arg: $type),*) $(-> $returned)? {
                    $better($($arg),*)
                }

                if $(is_x86_feature_detected!($feature))&&+ {
                    #[expect(unsafe_code, reason = "what the processor was asked a line above is not known to the compiler")]
                    // SAFETY: it has every feature that the function is compiled with.
                    return unsafe { better($($arg),*) };
                }
            }
            $plain($($arg),*)
        }
    };
}

pub(crate) use for_processor;

/// Bytes as a vector.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn to_vector(bytes: &[u8; 64]) -> __m512i {
    #[expect(unsafe_code, reason = "what lies in memory may be read as a vector")]
    // SAFETY: both have 64 bytes, and any of them are a vector.
    unsafe {
        mem::transmute(*bytes)
    }
}

/// The lanes of a vector.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn from_vector(vector: __m512i) -> [u64; 8] {
    #[expect(unsafe_code, reason = "a vector may be read as numbers")]
    // SAFETY: both have 64 bytes, and any of them are numbers.
    unsafe {
        mem::transmute(vector)
    }
}
