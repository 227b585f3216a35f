//! Why bytes could not be encoded or decoded. Which chunk it was, the caller knows.

/// What went wrong in a codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A pipeline names a codec that is not in the table.
    #[error("codec {id} is unknown")]
    UnknownCodec {
        /// Its number.
        id: u8,
    },
    /// A stage carries parameters that its codec does not understand.
    #[error("{codec} does not take these {len} bytes of parameters")]
    BadParams {
        /// The codec.
        codec: &'static str,
        /// How many bytes there were.
        len: usize,
    },
    /// Bases were handed to a pipeline without a stage that wants any.
    #[error("no stage of the pipeline takes the {num_bases} bases")]
    UnwantedBases {
        /// How many there were.
        num_bases: usize,
    },
    /// A codec that takes bases was handed another number of them.
    #[error("{actual} bases where there must be {expected}")]
    WrongNumberOfBases {
        /// How many it takes.
        expected: usize,
        /// How many there were.
        actual: usize,
    },
    /// A payload is not what the codec writes.
    #[error("the {codec} payload is damaged: {what}")]
    Damaged {
        /// The codec.
        codec: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Bytes that must have a certain length have another.
    #[error("{actual} bytes where there must be {expected}")]
    WrongLength {
        /// The length that was declared.
        expected: u64,
        /// The length that was found.
        actual: u64,
    },
    /// Something would become larger than it may be; nothing was allocated for it.
    #[error("{len} bytes, at most {max}")]
    TooLarge {
        /// How large it says it is.
        len: u64,
        /// How large it may be.
        max: u64,
    },
    /// Memory is used up.
    #[error("no memory for {len} bytes")]
    OutOfMemory {
        /// How many bytes were needed.
        len: usize,
    },
    /// A codec could not encode; no bytes should make that happen.
    #[error("{codec} could not encode: {what}")]
    NotEncoded {
        /// The codec.
        codec: &'static str,
        /// What it said.
        what: &'static str,
    },
}

impl CodecError {
    /// Says whether memory was short, which says nothing about the bytes.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. })
    }
}
