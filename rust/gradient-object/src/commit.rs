//! Commits: one root tree, where it came from, and what to say about it.

use crate::cbor::{Place, Reader, Token, Writer, check_canonical, check_name};
use crate::error::ObjectError;
use crate::id::{CommitId, TreeId};
use crate::int::Int;
use crate::mapping::Mapping;

/// Number of keys of a commit.
const NUM_KEYS: usize = 11;

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The root tree.
    pub tree: TreeId,
    /// The commits before, the line's own first.
    pub parents: Vec<CommitId>,
    /// The branch that the writer worked on.
    pub branch: String,
    /// The step of the training loop.
    pub step: u64,
    /// What its author says.
    pub message: String,
    /// What its author measured, in the order given.
    pub metrics: Vec<(String, Metric)>,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time_ns: i64,
    /// The tree that describes versions, devices and flags.
    pub environment: TreeId,
    /// How it was first written.
    pub kind: CommitKind,
    /// `exact`, or the name of a lossy transform.
    pub mode: String,
    /// The measured error of a lossy commit; holds no tensor, alias or subtree.
    pub error: Option<Mapping>,
}

/// How a commit was first written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitKind {
    /// None of its own chunks is a delta.
    Anchor,
    /// Some of its own chunks are deltas.
    Delta,
}

/// A measured number. Floats compare by bits.
#[derive(Debug, Clone, Copy)]
pub enum Metric {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
}

impl CommitKind {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Delta => "delta",
        }
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Int(_), Self::Float(_)) | (Self::Float(_), Self::Int(_)) => false,
        }
    }
}

impl Eq for Metric {}

impl Commit {
    /// Canonical bytes.
    ///
    /// # Errors
    /// A metric that stands twice, a name or an error mapping that breaks a limit.
    pub fn encode(&self) -> Result<Vec<u8>, ObjectError> {
        let mut writer = Writer::new(Place::Commit);
        writer.count_root()?;
        writer.map_head(NUM_KEYS);
        writer.text("kind");
        writer.text(self.kind.as_str());
        writer.text("mode");
        writer.text(&self.mode);
        writer.text("step");
        writer.unsigned(self.step);
        writer.text("time");
        writer.int(&Int::from(self.time_ns));
        writer.text("tree");
        writer.bytes(self.tree.as_bytes());
        writer.text("error");
        match &self.error {
            None => writer.none(),
            Some(mapping) => writer.mapping(mapping)?,
        }
        writer.text("branch");
        check_name("bytes of the name of a branch", &self.branch)?;
        writer.text(&self.branch);
        writer.text("message");
        writer.text(&self.message);
        writer.text("metrics");
        write_metrics(&mut writer, &self.metrics)?;
        writer.text("parents");
        writer.array(self.parents.len());
        for id in &self.parents {
            writer.bytes(id.as_bytes());
        }
        writer.text("environment");
        writer.bytes(self.environment.as_bytes());
        writer.finish()
    }

    /// The commit of these canonical bytes.
    ///
    /// # Errors
    /// Bytes that are no canonical commit.
    pub fn decode(bytes: &[u8]) -> Result<Self, ObjectError> {
        let commit = Self::decode_trusted(bytes)?;
        check_canonical(bytes, &commit.encode()?)?;
        Ok(commit)
    }

    /// [`Self::decode`] without encoding again.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self, ObjectError> {
        let mut reader = Reader::new(bytes, Place::Commit)?;
        reader.count_root()?;
        let start = reader.offset();
        if !matches!(reader.next()?, Token::Map(NUM_KEYS)) {
            return Err(malformed("not a mapping of the keys of a commit", start));
        }
        // Fields in the order of their keys.
        let kind = read_kind(&mut reader)?;
        let mode = read_text(&mut reader, "mode")?;
        expect_key(&mut reader, "step")?;
        let step = reader.unsigned("a step")?;
        let time_ns = read_time(&mut reader)?;
        expect_key(&mut reader, "tree")?;
        let tree = TreeId::from_bytes(reader.id("a tree id")?);
        let error = read_error(&mut reader)?;
        let branch = read_text(&mut reader, "branch")?;
        check_name("bytes of the name of a branch", &branch)?;
        let message = read_text(&mut reader, "message")?;
        let metrics = read_metrics(&mut reader)?;
        let parents = read_parents(&mut reader)?;
        expect_key(&mut reader, "environment")?;
        let environment = TreeId::from_bytes(reader.id("a tree id")?);
        reader.finish()?;
        Ok(Self { tree, parents, branch, step, message, metrics, time_ns, environment, kind, mode, error })
    }

    /// The id; encodes to hash.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn id(&self) -> Result<CommitId, ObjectError> {
        Ok(CommitId::of(&self.encode()?))
    }
}

fn write_metrics(writer: &mut Writer, metrics: &[(String, Metric)]) -> Result<(), ObjectError> {
    let entries: Vec<_> = metrics.iter().map(|(name, metric)| (name.as_str(), metric)).collect();
    writer.text_entries(&entries, |writer, metric| {
        match metric {
            Metric::Int(int) => writer.int(&Int::from(*int)),
            Metric::Float(float) => writer.float(*float),
        }
        Ok(())
    })
}

fn read_metrics(reader: &mut Reader<'_>) -> Result<Vec<(String, Metric)>, ObjectError> {
    expect_key(reader, "metrics")?;
    let start = reader.offset();
    let token = reader.next()?;
    reader.entries(
        token,
        start,
        |reader| reader.text("the name of a metric").map(str::to_owned),
        |reader| {
            let start = reader.offset();
            let token = reader.next()?;
            if let Token::Float(float) = token {
                return Ok(Metric::Float(float));
            }
            let int = as_i64(token).ok_or_else(|| malformed("not a metric", start))?;
            Ok(Metric::Int(int))
        },
    )
}

fn read_kind(reader: &mut Reader<'_>) -> Result<CommitKind, ObjectError> {
    expect_key(reader, "kind")?;
    let start = reader.offset();
    match reader.text("a kind")? {
        "anchor" => Ok(CommitKind::Anchor),
        "delta" => Ok(CommitKind::Delta),
        _ => Err(malformed("neither anchor nor delta", start)),
    }
}

fn read_time(reader: &mut Reader<'_>) -> Result<i64, ObjectError> {
    expect_key(reader, "time")?;
    let start = reader.offset();
    as_i64(reader.next()?).ok_or_else(|| malformed("not a time", start))
}

fn read_error(reader: &mut Reader<'_>) -> Result<Option<Mapping>, ObjectError> {
    expect_key(reader, "error")?;
    let start = reader.offset();
    match reader.next()? {
        Token::Null => Ok(None),
        token => reader.mapping(token, start).map(Some),
    }
}

fn read_parents(reader: &mut Reader<'_>) -> Result<Vec<CommitId>, ObjectError> {
    expect_key(reader, "parents")?;
    let num_parents = reader.array("a list of parents")?;
    // No allocation by the number: it is checked against single bytes only, and most commits have one parent.
    let mut parents = Vec::new();
    for _ in 0..num_parents {
        parents.push(CommitId::from_bytes(reader.id("a commit id")?));
    }
    Ok(parents)
}

fn read_text(reader: &mut Reader<'_>, key: &str) -> Result<String, ObjectError> {
    expect_key(reader, key)?;
    reader.text("not text").map(str::to_owned)
}

fn expect_key(reader: &mut Reader<'_>, key: &str) -> Result<(), ObjectError> {
    let start = reader.offset();
    if reader.text("not a key of a commit")? == key {
        return Ok(());
    }
    Err(malformed("not the key of a commit that comes here", start))
}

fn as_i64(token: Token<'_>) -> Option<i64> {
    match token {
        Token::Unsigned(n) => i64::try_from(n).ok(),
        Token::Negative(n) => i64::try_from(n).ok().map(|n| -1 - n),
        _ => None,
    }
}

fn malformed(what: &'static str, offset: usize) -> ObjectError {
    ObjectError::Malformed { what, offset }
}
