//! The log as text: one line a commit, a graph beside it, or one JSON document (schema `gradient.log/1`).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use gradient_object::{CommitId, CommitKind, Metric};

use crate::clock::{iso8601, relative};
use crate::history::{LogRow, Unreadable};
use crate::operation::{Head, RefTable, Target};

/// The column of places is as wide as the longest of those up to this.
const PLACE_LEN_MAX: usize = 24;

/// How a log is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// Id, branch and step, size, time, message; refs beside them.
    Full,
    /// Id, refs, branch and step, message.
    Oneline,
    /// One JSON document.
    Json,
}

/// Settings of a rendering.
#[derive(Clone, Copy, Debug)]
pub struct LogFormat {
    /// Which rendering.
    pub style: LogStyle,
    /// Draw the graph beside it.
    pub graph: bool,
    /// Use colours.
    pub color: bool,
    /// Show times relative to this moment; ISO 8601 if none.
    pub now_ns: Option<i64>,
    /// Cut lines to so many characters.
    pub width: Option<usize>,
}

/// Renders `rows`; `branches` says on which branch `branch@step` leads to each ([`Repository::branches_of`]). Commits that
/// can not be read have rows too: behind the child that names them, or first.
///
/// [`Repository::branches_of`]: crate::Repository::branches_of
pub fn render(
    rows: &[LogRow],
    branches: &[Option<String>],
    unreadable: &[Unreadable],
    table: &RefTable,
    head: &Head,
    format: LogFormat,
) -> String {
    let names = decorations(table, head);
    if format.style == LogStyle::Json {
        return json(rows, branches, unreadable, &names);
    }
    let places: Vec<String> = rows.iter().zip(branches).map(|(row, branch)| place(row, branch.as_deref())).collect();
    let mut text = String::with_capacity(rows.len() * 96);
    let mut graph = Graph::default();
    // A long name makes its own line long, and no other.
    let step_width =
        places.iter().map(|place| place.chars().count()).filter(|len| *len <= PLACE_LEN_MAX).max().unwrap_or(0);
    let mut holes: HashMap<Option<CommitId>, Vec<&Unreadable>> = HashMap::new();
    for hole in unreadable {
        holes.entry(hole.child).or_default().push(hole);
    }
    let mut put_holes = |text: &mut String, child: Option<CommitId>| {
        for hole in holes.remove(&child).into_iter().flatten() {
            let start = text.len();
            text.push_str(if format.graph { "x " } else { "" });
            put_hole(text, hole, names.get(&hole.id), format);
            end_line(text, start, format);
        }
    };
    put_holes(&mut text, None);
    for (row, place) in rows.iter().zip(&places) {
        let (prefix, joins) = if format.graph { graph.draw(row) } else { (String::new(), None) };
        let start = text.len();
        text.push_str(&prefix);
        line(&mut text, row, place, names.get(&row.id), format, step_width);
        end_line(&mut text, start, format);
        if let Some(joins) = joins {
            text.push_str(&joins);
            text.push('\n');
        }
        put_holes(&mut text, Some(row.id));
    }
    text
}

fn end_line(text: &mut String, start: usize, format: LogFormat) {
    if let Some(width) = format.width.filter(|_| !format.color)
        && let Some((end, _)) = text[start..].char_indices().nth(width)
    {
        text.truncate(start + end);
    }
    text.push('\n');
}

fn put_hole(line: &mut String, hole: &Unreadable, names: Option<&Vec<String>>, format: LogFormat) {
    let id = hole.id.short();
    let _ = if format.color { write!(line, "\x1b[31m{id}\x1b[0m") } else { write!(line, "{id}") };
    put_names(line, names, format);
    line.push_str("  can not be read, nor what it came from");
}

fn put_names(line: &mut String, names: Option<&Vec<String>>, format: LogFormat) {
    if let Some(names) = names {
        let names = printable(&names.join(", "));
        let _ = if format.color { write!(line, "  \x1b[36m({names})\x1b[0m") } else { write!(line, "  ({names})") };
    }
}

// A name that leads to the commit; where there is none, the step alone.
fn place(row: &LogRow, branch: Option<&str>) -> String {
    format!("{}@{}", branch.map(printable).unwrap_or_default(), row.commit.step)
}

// Names and messages may come from a stranger: nothing in them moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn line(
    line: &mut String,
    row: &LogRow,
    place: &str,
    names: Option<&Vec<String>>,
    format: LogFormat,
    step_width: usize,
) {
    let id = row.id.short();
    let _ = if format.color { write!(line, "\x1b[33m{id}\x1b[0m") } else { write!(line, "{id}") };
    match format.style {
        LogStyle::Full => {
            let time = match format.now_ns {
                Some(now) => relative(row.commit.time_ns, now),
                None => iso8601(row.commit.time_ns),
            };
            let _ = write!(line, "  {place:step_width$}  {:>10}  {time:>14}", size(row.added_len));
        }
        LogStyle::Oneline | LogStyle::Json => {
            let _ = write!(line, " {place}");
        }
    }
    put_names(line, names, format);
    let message = row.commit.message.lines().next().unwrap_or_default();
    if !message.is_empty() {
        let _ = write!(line, "  {}", printable(message));
    }
    if row.commit.mode != "exact" {
        let _ = write!(line, "  [{}]", printable(&row.commit.mode));
    }
}

/// IEC units with one decimal, rounded: `1.3 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let name = UNITS.get(unit).unwrap_or(&"EiB");
    if unit == 0 { format!("{bytes} {name}") } else { format!("{value:.1} {name}") }
}

/// `1 file`, `2 files`.
pub(crate) fn count(num: usize, what: &str) -> String {
    format!("{num} {what}{}", if num == 1 { "" } else { "s" })
}

fn decorations(table: &RefTable, head: &Head) -> HashMap<CommitId, Vec<String>> {
    let mut names: HashMap<CommitId, Vec<String>> = HashMap::new();
    if let Head::Commit(id) = head {
        names.entry(*id).or_default().push("HEAD".to_owned());
    }
    for (name, target) in table {
        let label = match target {
            Target::Tag(_) => format!("tag: {name}"),
            Target::Branch(_) if *head == Head::Branch(name.clone()) => format!("HEAD -> {name}"),
            Target::Branch(_) => name.clone(),
        };
        let at = names.entry(target.commit()).or_default();
        if label.starts_with("HEAD") { at.insert(0, label) } else { at.push(label) }
    }
    names
}

fn json(
    rows: &[LogRow],
    branches: &[Option<String>],
    unreadable: &[Unreadable],
    names: &HashMap<CommitId, Vec<String>>,
) -> String {
    let mut text = String::with_capacity(rows.len() * 400);
    text.push_str("{\"schema\":\"gradient.log/1\",\"commits\":[");
    for (at, row) in rows.iter().enumerate() {
        let commit = &row.commit;
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        let _ = write!(text, "{{\"id\":\"{}\",\"root\":\"{}\",\"parents\":[", row.id.to_hex(), commit.tree.to_hex());
        for (at, parent) in commit.parents.iter().enumerate() {
            let _ = write!(text, "{}\"{}\"", if at == 0 { "" } else { "," }, parent.to_hex());
        }
        let kind = match commit.kind {
            CommitKind::Anchor => "anchor",
            CommitKind::Delta => "delta",
        };
        let _ = write!(
            text,
            "],\"ref\":{},\"branch\":{},\"step\":{},\"message\":{},\"time\":\"{}\",\"kind\":\"{kind}\",\"mode\":{},\
             \"added_bytes\":{},\"metrics\":{{",
            branches[at].as_ref().map_or_else(|| "null".to_owned(), |name| string(&format!("{name}@{}", commit.step))),
            string(&commit.branch),
            commit.step,
            string(&commit.message),
            iso8601(commit.time_ns),
            string(&commit.mode),
            row.added_len,
        );
        for (at, (name, metric)) in commit.metrics.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{}:{}", string(name), number(*metric));
        }
        text.push_str("},\"refs\":");
        put_refs(&mut text, names.get(&row.id));
        text.push('}');
    }
    text.push_str("\n],\"unreadable\":[");
    for (at, hole) in unreadable.iter().enumerate() {
        let child = hole.child.map_or_else(|| "null".to_owned(), |child| string(&child.to_hex()));
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        let _ =
            write!(text, "{{\"id\":\"{}\",\"child\":{child},\"why\":{},\"refs\":", hole.id.to_hex(), string(&hole.why));
        put_refs(&mut text, names.get(&hole.id));
        text.push('}');
    }
    text.push_str("\n]}\n");
    text
}

fn put_refs(text: &mut String, names: Option<&Vec<String>>) {
    text.push('[');
    for (at, name) in names.into_iter().flatten().enumerate() {
        let _ = write!(text, "{}{}", if at == 0 { "" } else { "," }, string(name));
    }
    text.push(']');
}

fn string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

// JSON has no NaN and no infinities: they are strings, as `float()` reads them.
fn number(metric: Metric) -> String {
    match metric {
        Metric::Int(value) => value.to_string(),
        Metric::Float(value) if value.is_finite() => serde_json::Value::from(value).to_string(),
        Metric::Float(value) if value.is_nan() => "\"nan\"".to_owned(),
        Metric::Float(value) => if value > 0.0 { "\"inf\"" } else { "\"-inf\"" }.to_owned(),
    }
}

/// Lanes of the graph: the commit that each waits for.
#[derive(Default)]
struct Graph {
    lanes: Vec<CommitId>,
}

impl Graph {
    // The columns before a commit's line, and the line after it where lanes join.
    fn draw(&mut self, row: &LogRow) -> (String, Option<String>) {
        let at = self.lanes.iter().position(|waits| *waits == row.id).unwrap_or_else(|| {
            self.lanes.push(row.id);
            self.lanes.len() - 1
        });
        let mut columns = String::new();
        for lane in 0..self.lanes.len() {
            columns.push_str(if lane == at { "* " } else { "| " });
        }
        match row.commit.parents.split_first() {
            None => {
                self.lanes.remove(at);
            }
            Some((first, others)) => {
                if let Some(lane) = self.lanes.get_mut(at) {
                    *lane = *first;
                }
                let mut waited: HashSet<CommitId> = self.lanes.iter().copied().collect();
                self.lanes.extend(others.iter().copied().filter(|other| waited.insert(*other)));
            }
        }
        (columns, self.join())
    }

    // Lanes that wait for one commit become one: `|/`.
    fn join(&mut self) -> Option<String> {
        let mut waited = HashSet::new();
        let twice = self.lanes.iter().position(|waits| !waited.insert(*waits))?;
        let mut columns: String = (0..twice).map(|_| "| ").collect();
        columns.pop();
        columns.push('/');
        columns.push_str(&" |".repeat(self.lanes.len() - twice - 1));
        self.lanes.remove(twice);
        Some(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_iec_with_one_decimal() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_525, "1.0 MiB"),
            (3_118_900, "3.0 MiB"),
            (1_395_864_371, "1.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        assert_eq!(number(Metric::Float(f64::NAN)), "\"nan\"");
        assert_eq!(number(Metric::Float(f64::NEG_INFINITY)), "\"-inf\"");
        assert_eq!(number(Metric::Float(0.1)), "0.1");
    }
}
