//! One operation: the record in `ops/<n>`, its canonical bytes, the table of refs it carries.
//!
//! Specified in `docs/format/operations.md`. Invariants: a mapping with exactly the keys named there; refs are
//! either a whole table or the changes against an operation at most [`CHANGES_BACK_MAX`] before.

use std::collections::BTreeMap;

use gradient_object::{CommitId, Key, OperationId, Value, cbor};
use gradient_odb::PackId;

use crate::envelope;
use crate::error::Result;
use crate::names::NAME_BYTES_MAX;
use crate::record::{Fields, as_array, as_uint, bytes, int, is_sorted, mapping, text};

/// Magic of `ops/<n>`.
pub(crate) const OPERATION_MAGIC: [u8; 4] = *b"GROP";
/// How far back the whole table may lie that changes refer to.
pub(crate) const CHANGES_BACK_MAX: u64 = 64;
/// More changes than this are written as a whole table.
const CHANGES_MAX: usize = 24;
/// Tables of at most so many refs are always written whole.
const WHOLE_TABLE_MAX: usize = 12;

/// Where a ref points: a branch moves, a tag stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A branch at its newest commit.
    Branch(CommitId),
    /// A tag.
    Tag(CommitId),
}

impl Target {
    /// The commit it points to.
    pub fn commit(self) -> CommitId {
        match self {
            Self::Branch(id) | Self::Tag(id) => id,
        }
    }
}

/// Names to where they point.
pub type RefTable = BTreeMap<String, Target>;

/// Where HEAD stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// On a branch, which may have no commits yet.
    Branch(String),
    /// On a commit and no branch.
    Commit(CommitId),
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of docs/format/operations.md")]
pub enum OperationKind {
    Init,
    Commit,
    Branch,
    Rename,
    Delete,
    Tag,
    Checkout,
    Undo,
    Redo,
    Condemn,
    Repair,
}

impl OperationKind {
    const ALL: [Self; 11] = [
        Self::Init,
        Self::Commit,
        Self::Branch,
        Self::Rename,
        Self::Delete,
        Self::Tag,
        Self::Checkout,
        Self::Undo,
        Self::Redo,
        Self::Condemn,
        Self::Repair,
    ];

    /// The name on disk and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Commit => "commit",
            Self::Branch => "branch",
            Self::Rename => "rename",
            Self::Delete => "delete",
            Self::Tag => "tag",
            Self::Checkout => "checkout",
            Self::Undo => "undo",
            Self::Redo => "redo",
            Self::Condemn => "condemn",
            Self::Repair => "repair",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The table of refs as an operation carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refs {
    /// All of them.
    Whole(RefTable),
    /// What differs from the whole table of operation `since`; none: deleted.
    Changes {
        /// An operation that carries a whole table.
        since: u64,
        /// New targets by name.
        changes: BTreeMap<String, Option<Target>>,
    },
}

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing in particular.
    None,
    /// A ref.
    Name(String),
    /// The operation that `undo` takes back or `redo` makes again.
    Operation(u64),
}

impl Subject {
    // Undo and redo are about an operation, all others about a ref.
    fn fits(&self, kind: OperationKind) -> bool {
        let is_of_operation = matches!(kind, OperationKind::Undo | OperationKind::Redo);
        match self {
            Self::None => true,
            Self::Name(_) => !is_of_operation,
            Self::Operation(_) => is_of_operation,
        }
    }
}

/// Who published an operation; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u64,
    /// Name of the user.
    pub user: String,
    /// Version of the writer.
    pub version: String,
}

/// One published change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub n: u64,
    /// The operation before it.
    pub previous: Option<OperationId>,
    /// What it does.
    pub kind: OperationKind,
    /// Why, in one line.
    pub why: String,
    /// What it is about.
    pub subject: Subject,
    /// When, in nanoseconds since 1970; for people.
    pub time_ns: i64,
    /// By whom.
    pub by: By,
    /// HEAD afterwards.
    pub head: Head,
    /// The refs afterwards.
    pub refs: Refs,
    /// Packs that may no longer be relied on, sorted.
    pub condemned: Vec<PackId>,
}

impl Operation {
    /// The canonical payload.
    ///
    /// # Errors
    /// [`RepoError::Object`] if it is larger than the format allows.
    pub fn payload(&self) -> Result<Vec<u8>> {
        let by = mapping([
            ("host", text(&self.by.host)),
            ("pid", int(self.by.pid)),
            ("user", text(&self.by.user)),
            ("version", text(&self.by.version)),
        ])?;
        let head = match &self.head {
            Head::Branch(name) => vec![text("branch"), text(name)],
            Head::Commit(id) => vec![text("commit"), bytes(id.as_bytes())],
        };
        let subject = match &self.subject {
            Subject::None => Value::None,
            Subject::Name(name) => text(name),
            Subject::Operation(n) => int(*n),
        };
        let record = mapping([
            ("by", by),
            ("condemned", Value::List(self.condemned.iter().map(|id| bytes(id.as_bytes())).collect())),
            ("head", Value::List(head)),
            ("kind", text(self.kind.name())),
            ("n", int(self.n)),
            ("previous", self.previous.map_or(Value::None, |id| bytes(id.as_bytes()))),
            ("refs", Value::List(self.refs.values()?)),
            ("subject", subject),
            ("time", Value::Int(self.time_ns.into())),
            ("why", text(&self.why)),
        ])?;
        Ok(cbor::encode(&record)?)
    }

    /// The bytes of `ops/<n>` and the operation's id.
    ///
    /// # Errors
    /// As [`Operation::payload`].
    pub fn encode(&self) -> Result<(Vec<u8>, OperationId)> {
        let payload = self.payload()?;
        // What no reader would take is not published: it would lock everybody out.
        Self::decode(&payload, self.n, "an operation in the making")?;
        Ok((envelope::wrap(OPERATION_MAGIC, &payload), OperationId::of(&payload)))
    }

    /// Reads the payload of operation `n`.
    ///
    /// # Errors
    /// [`RepoError::Damaged`]: not canonical, not this schema, or another number.
    pub fn decode(payload: &[u8], n: u64, file: &str) -> Result<Self> {
        let mut fields = Fields::parse(payload, file)?;
        let mut by = Fields::of(fields.take("by")?, file)?;
        let operation = Self {
            n: fields.uint("n")?,
            previous: match fields.take("previous")? {
                Value::None => None,
                value => {
                    Some(OperationId::from_bytes(as_array(&value).ok_or_else(|| fields.damaged("previous is no id"))?))
                }
            },
            kind: OperationKind::from_name(&fields.text("kind")?)
                .ok_or_else(|| fields.damaged("its kind is unknown"))?,
            why: fields.text("why")?,
            subject: match fields.take("subject")? {
                Value::None => Subject::None,
                Value::Text(name) => Subject::Name(name),
                value => Subject::Operation(as_uint(&value).ok_or_else(|| fields.damaged("subject is malformed"))?),
            },
            time_ns: fields.int("time")?,
            by: By {
                host: by.text("host")?,
                pid: by.uint("pid")?,
                user: by.text("user")?,
                version: by.text("version")?,
            },
            head: match fields.list("head")?.as_slice() {
                [Value::Text(kind), Value::Text(name)] if kind == "branch" && name.len() <= NAME_BYTES_MAX => {
                    Head::Branch(name.clone())
                }
                [Value::Text(kind), id] if kind == "commit" => {
                    Head::Commit(commit_id(id).ok_or_else(|| fields.damaged("head is malformed"))?)
                }
                _ => return Err(fields.damaged("head is malformed")),
            },
            refs: Refs::read(fields.list("refs")?, n).ok_or_else(|| fields.damaged("refs are malformed"))?,
            condemned: condemned(&fields.list("condemned")?).ok_or_else(|| fields.damaged("condemned is malformed"))?,
        };
        by.end()?;
        if !operation.subject.fits(operation.kind) {
            return Err(fields.damaged("subject is malformed"));
        }
        if n == 0 || operation.n != n || (n == 1) != operation.previous.is_none() {
            return Err(fields.damaged("it is another operation than its name says"));
        }
        fields.end()?;
        Ok(operation)
    }
}

impl Refs {
    /// Chooses how to carry `table`: whole, or as changes against the whole table that operation `since` carries.
    pub fn choose(table: &RefTable, n: u64, since: u64, base: &RefTable) -> Self {
        if table.len() > WHOLE_TABLE_MAX && since < n && n - since <= CHANGES_BACK_MAX {
            let changes = differences(base, table);
            if changes.len() <= CHANGES_MAX {
                return Self::Changes { since, changes };
            }
        }
        Self::Whole(table.clone())
    }

    fn values(&self) -> Result<Vec<Value>> {
        Ok(match self {
            Self::Whole(table) => {
                let rows = table.iter().map(|(name, target)| (name.as_str(), target_value(*target)));
                vec![text("whole"), mapping(rows)?]
            }
            Self::Changes { since, changes } => {
                let rows = changes.iter().map(|(name, to)| (name.as_str(), to.map_or(Value::None, target_value)));
                vec![text("changes"), int(*since), mapping(rows)?]
            }
        })
    }

    fn read(values: Vec<Value>, n: u64) -> Option<Self> {
        match <[Value; 2]>::try_from(values) {
            Ok([Value::Text(kind), Value::Map(rows)]) if kind == "whole" && is_sorted(&rows) => {
                let mut table = RefTable::new();
                for (name, value) in rows.into_entries() {
                    table.insert(ref_name(name)?, read_target(&value)?);
                }
                Some(Self::Whole(table))
            }
            Ok(_) => None,
            Err(values) => match <[Value; 3]>::try_from(values).ok()? {
                [Value::Text(kind), since, Value::Map(rows)] if kind == "changes" && is_sorted(&rows) => {
                    let since = as_uint(&since)?;
                    if since == 0 || since >= n || n - since > CHANGES_BACK_MAX {
                        return None;
                    }
                    let mut changes = BTreeMap::new();
                    for (name, value) in rows.into_entries() {
                        let target = if value == Value::None { None } else { Some(read_target(&value)?) };
                        changes.insert(ref_name(name)?, target);
                    }
                    Some(Self::Changes { since, changes })
                }
                _ => None,
            },
        }
    }
}

/// What turns `before` into `after`.
pub(crate) fn differences(before: &RefTable, after: &RefTable) -> BTreeMap<String, Option<Target>> {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let new = after.iter().filter(|(name, target)| before.get(*name) != Some(*target));
    gone.chain(new.map(|(name, target)| (name.clone(), Some(*target)))).collect()
}

/// `table` with `changes` made.
pub(crate) fn changed(table: &RefTable, changes: &BTreeMap<String, Option<Target>>) -> RefTable {
    let mut table = table.clone();
    for (name, target) in changes {
        match target {
            Some(target) => table.insert(name.clone(), *target),
            None => table.remove(name),
        };
    }
    table
}

fn target_value(target: Target) -> Value {
    let (kind, id) = match target {
        Target::Branch(id) => ("branch", id),
        Target::Tag(id) => ("tag", id),
    };
    Value::List(vec![text(kind), bytes(id.as_bytes())])
}

fn read_target(value: &Value) -> Option<Target> {
    let Value::List(items) = value else { return None };
    match items.as_slice() {
        [Value::Text(kind), id] if kind == "branch" => Some(Target::Branch(commit_id(id)?)),
        [Value::Text(kind), id] if kind == "tag" => Some(Target::Tag(commit_id(id)?)),
        _ => None,
    }
}

// A name from disk is data: it is checked when it is made, and shown, never used as a path.
fn ref_name(key: Key) -> Option<String> {
    match key {
        Key::Text(name) if name.len() <= NAME_BYTES_MAX => Some(name),
        _ => None,
    }
}

fn commit_id(value: &Value) -> Option<CommitId> {
    as_array(value).map(CommitId::from_bytes)
}

fn condemned(values: &[Value]) -> Option<Vec<PackId>> {
    let packs: Option<Vec<PackId>> = values.iter().map(|value| as_array(value).map(PackId::from_bytes)).collect();
    packs.filter(|packs| packs.is_sorted_by(|a, b| a < b))
}
