//! Loops that are compiled once more for processors that do them better; which one this is, it is asked. And how it
//! computes with floats, which is not always as IEEE says.
//!
//! All of these loops work on integers: what is compiled for one processor gives the same bytes as what is compiled for
//! all.

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

/// Does `work` with floats as IEEE has them, on this thread: rounded to the nearest, and nothing is flushed to zero.
///
/// A thread may have another mode: `torch.set_flush_denormal(True)` gives it to the caller's, and not to others'.
#[inline]
pub fn with_ieee_floats<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    let _restored = {
        let before = mxcsr();
        set_mxcsr(MXCSR);
        Restore(before)
    };
    work()
}

/// All exceptions masked, rounded to the nearest, denormals as they are: how every process begins.
#[cfg(target_arch = "x86_64")]
const MXCSR: u32 = 0x1f80;

/// Sets the mode that was, also when something panics.
#[cfg(target_arch = "x86_64")]
struct Restore(u32);

#[cfg(target_arch = "x86_64")]
impl Drop for Restore {
    fn drop(&mut self) {
        set_mxcsr(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
fn mxcsr() -> u32 {
    let mut word = 0_u32;
    #[expect(unsafe_code, reason = "a register of the processor is read")]
    // SAFETY: it writes four bytes, and these are there.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags));
    }
    word
}

#[cfg(target_arch = "x86_64")]
fn set_mxcsr(word: u32) {
    #[expect(unsafe_code, reason = "a register of the processor is written")]
    // SAFETY: it reads four bytes, and these are there; what is written was read from it, or is what the compiler expects.
    unsafe {
        std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags));
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Half of the smallest normal number, which is zero where such are flushed.
    fn half_of_the_smallest() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn another_mode_is_left_outside_and_comes_back() {
        const FLUSHED: u32 = MXCSR | 0x8040;
        let before = mxcsr();
        set_mxcsr(FLUSHED);
        let outside = half_of_the_smallest();
        let inside = with_ieee_floats(half_of_the_smallest);
        let panicked = std::panic::catch_unwind(|| with_ieee_floats(|| panic!("as it should"))).is_err();
        let after = mxcsr();
        set_mxcsr(before);
        assert_eq!((outside, inside.to_bits(), panicked), (0.0, 0x0040_0000, true));
        assert_eq!(after & 0x8040, 0x8040);
    }
}
