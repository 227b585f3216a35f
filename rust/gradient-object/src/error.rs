//! Everything that can be wrong with an object, whether it is about to be written or was read.

/// Why a value can not be encoded, or why bytes are not an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The bytes are no well-formed object: cut short, or of another shape than the format gives.
    #[error("malformed at byte {offset}: {what}")]
    Malformed {
        /// What is wrong there.
        what: &'static str,
        /// Where, from the start of the object.
        offset: usize,
    },
    /// The bytes say something valid, but not in the one way that is allowed.
    #[error("not canonical at byte {offset}: {what}")]
    NotCanonical {
        /// Which rule is broken.
        what: &'static str,
        /// Where, from the start of the object.
        offset: usize,
    },
    /// A length or a count is over its limit.
    #[error("{what}: {actual} is over the limit of {max}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The length or count.
        actual: u64,
        /// The limit.
        max: u64,
    },
    /// More containers lie in one another than allowed.
    #[error("values are nested deeper than {max}")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// No dtype of the closed table.
    #[error("unknown dtype {dtype:?}")]
    BadDtype {
        /// The dtype as given.
        dtype: String,
    },
    /// The number of bytes of the shape does not fit in 64 bits.
    #[error("a tensor of shape {shape:?} and dtype {dtype:?} is too large to count")]
    BadShape {
        /// The dtype.
        dtype: String,
        /// The shape.
        shape: Vec<u64>,
    },
    /// The order of dimensions is no permutation of them, or it is row-major, which is written as none.
    #[error("{order:?} is not an order of {rank} dimensions other than row-major")]
    BadOrder {
        /// The order as given.
        order: Vec<u32>,
        /// Dimensions of the tensor.
        rank: usize,
    },
    /// A tensor of at most `INLINE_BYTES_MAX` bytes in chunks, or a longer one inlined.
    #[error("a tensor of {raw_len} bytes is inlined: {inlined}, against the rule")]
    BadInline {
        /// Bytes of the tensor, by its shape and dtype.
        raw_len: u64,
        /// Whether it was given inlined.
        inlined: bool,
    },
    /// Inlined bytes, or the number of chunks, do not fit the shape and dtype.
    #[error("{what}: expected {expected}, found {actual}")]
    LengthMismatch {
        /// What was counted.
        what: &'static str,
        /// By shape and dtype.
        expected: u64,
        /// As given.
        actual: u64,
    },
    /// A named value whose name is not in the closed table.
    #[error("unknown named value {name:?}")]
    UnknownName {
        /// The name as given.
        name: String,
    },
    /// The value or extra of a named value is not what the table asks for.
    #[error("named value {name}: {what}")]
    BadNamed {
        /// The name.
        name: &'static str,
        /// What the table asks for.
        what: &'static str,
    },
    /// A key stands twice in a mapping, or an element twice in a set.
    #[error("duplicate {what} {key}")]
    Duplicate {
        /// Of what it is a duplicate.
        what: &'static str,
        /// The key, for people.
        key: String,
    },
    /// A value stands where its kind may not.
    #[error("{what} can not be part of {place}")]
    Misplaced {
        /// The kind of value.
        what: &'static str,
        /// Where it stood.
        place: &'static str,
    },
    /// An alias with an empty path.
    #[error("an alias needs a path")]
    EmptyAlias,
    /// A section of a root tree that is not in the table.
    #[error("unknown section {section:?}")]
    UnknownSection {
        /// The section as given.
        section: String,
    },
    /// A section of a root tree that holds no component.
    #[error("section {section:?} is empty")]
    EmptySection {
        /// The section.
        section: String,
    },
}
