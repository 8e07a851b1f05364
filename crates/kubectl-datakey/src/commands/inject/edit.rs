//! Edits of the text of a manifest. All else stays byte for byte: comments, order, quotes, numbers as they are written.

use std::ops::Range;

use super::{
    tree::{Kind, Node},
    value::{Value, quoted},
};

/// Edits that are not made yet.
#[derive(Debug)]
pub struct Edits<'a> {
    text: &'a str,
    all: Vec<Edit>,
    /// The columns of each level of JSON.
    step: usize,
    /// How far the items of a list in lines are to the right of their key.
    offset: usize,
}

#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    /// Of several texts at one place, that of the deepest collection is first: it belongs to what ends there.
    depth: usize,
    text: String,
    /// Whether the text is whole lines.
    is_lines: bool,
}

/// Where new items of a list go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the others; a list that is not there yet, before the list of this key.
    First { before: &'static str },
    /// After the others.
    Last,
}

/// Why a text cannot be edited.
type Result<T> = std::result::Result<T, String>;

// === impl Edits ===

impl<'a> Edits<'a> {
    /// Edits of this text.
    pub fn of(text: &'a str) -> Self {
        Self { text, all: Vec::new(), step: 2, offset: 0 }
    }

    /// Writes as this document is written: its first level of JSON, and a list of it.
    pub fn like(&mut self, root: &Node, list: Option<(&Node, &Node)>) {
        let first = root.entries().first().filter(|_| root.is_flow());
        self.step = first.and_then(|(key, _)| self.own_line(key)).filter(|step| *step > 0).unwrap_or(2);
        let dash =
            |list: &Node| list.items().first().and_then(|item| self.dash(item).ok()).map(|dash| self.column(dash));
        let offset = list.and_then(|(key, list)| dash(list)?.checked_sub(self.column(key.span.start)));
        self.offset = offset.unwrap_or(0);
    }

    /// Makes the edits.
    pub fn apply(mut self) -> String {
        self.all.sort_by(|a, b| a.range.start.cmp(&b.range.start).then(b.depth.cmp(&a.depth)));
        let line_feed =
            if self.text.split('\n').next().is_some_and(|line| line.ends_with('\r')) { "\r\n" } else { "\n" };
        let (mut out, mut at) = (String::with_capacity(self.text.len()), 0);
        for edit in self.all {
            out.push_str(self.text.get(at..edit.range.start).unwrap_or_default());
            if edit.is_lines && !edit.text.is_empty() && !out.is_empty() && !out.ends_with('\n') {
                out.push_str(line_feed);
            }
            out.push_str(&edit.text.replace('\n', line_feed));
            at = edit.range.end.max(at);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }

    /// Sets a key of a map.
    pub fn set(&mut self, map: &Node, key: &str, value: &Value) -> Result<()> {
        let depth = map.depth + 1;
        if map.is_flow() {
            if let Some((name, old)) = map.entry(key) {
                let text = value.json(self.own_line(name).map(|column| (column, self.step)));
                self.push(old.span.clone(), depth, text);
            } else {
                self.add_flow_entry(map, key, value);
            }
            return Ok(());
        }
        if let Some((name, old)) = map.entry(key) {
            let column = self.column(name.span.start);
            let text = value.entry(key, column, self.offset).split_off(column);
            self.push(name.span.start..self.line_end(old.span.end), depth, text);
            return Ok(());
        }
        let (Some((first, _)), Some((_, last))) = (map.entries().first(), map.entries().last()) else {
            return Err(self.unusual(map));
        };
        let text = value.entry(key, self.column(first.span.start), self.offset);
        let end = self.line_end(last.span.end);
        self.push_lines(end..end, depth, text);
        Ok(())
    }

    /// Sets a key of a map. A new one in lines goes before this entry.
    fn set_before(&mut self, map: &Node, before: Option<&(Node, Node)>, key: &str, value: &Value) -> Result<()> {
        if let (Some((next, _)), None, false) = (before, map.entry(key), map.is_flow()) {
            let start = self.line_start(next.span.start);
            let above = self.text.get(..start).unwrap_or_default().lines().next_back().unwrap_or_default();
            // A comment above belongs to it.
            if self.is_blank(start..next.span.start) && !above.trim_start().starts_with('#') {
                let text = value.entry(key, self.column(next.span.start), self.offset);
                self.push_lines(start..start, map.depth + 1, text);
                return Ok(());
            }
        }
        self.set(map, key, value)
    }

    fn add_flow_entry(&mut self, map: &Node, key: &str, value: &Value) {
        let entry = |lines| format!("{}: {}", quoted(key), value.json(lines));
        let depth = map.depth + 1;
        if let Some((name, last)) = map.entries().last() {
            let column = self.own_line(name);
            let text = format!("{}{}", comma(column), entry(column.map(|column| (column, self.step))));
            self.push(last.span.end..last.span.end, depth, text);
        } else {
            let after = map.span.start + 1;
            self.push(after..after, depth, entry(None));
        }
    }

    /// Removes a key of a map with its value.
    pub fn remove(&mut self, map: &Node, key: &str) {
        let Some(index) = map.entries().iter().position(|(name, _)| name.text() == Some(key)) else { return };
        let entries = map.entries();
        let (name, value) = &entries[index];
        let depth = map.depth + 1;
        if map.is_flow() {
            let range = match (index.checked_sub(1).map(|before| &entries[before].1), entries.get(index + 1)) {
                (_, Some((next, _))) => name.span.start..next.span.start,
                (Some(before), None) => before.span.end..value.span.end,
                (None, None) => name.span.start..value.span.end,
            };
            return self.push(range, depth, String::new());
        }
        let (start, end) = (self.line_start(name.span.start), self.line_end(value.span.end));
        if self.is_blank(start..name.span.start) {
            self.push_lines(start..end, depth, String::new());
        } else {
            // A list item begins on this line.
            self.push(name.span.end..end, depth, ": []\n".to_owned());
        }
    }

    /// Makes those items of the list of a key that `is_ours` the wanted ones, and leaves the others. An item that is there is
    /// replaced in its place.
    pub fn sync(
        &mut self,
        map: &Node,
        key: &str,
        is_ours: impl Fn(&Node) -> bool,
        wanted: &[Value],
        place: Place,
    ) -> Result<()> {
        let list = match map.get(key) {
            Some(list) if !list.items().is_empty() => list,
            Some(list) if !list.is_list() => return Err(self.unusual(list)),
            _ if wanted.is_empty() => return Ok(()),
            _ => {
                let before = if let Place::First { before } = place { map.entry(before) } else { None };
                return self.set_before(map, before, key, &Value::List(wanted.to_vec()));
            }
        };
        let items = list.items();
        let mut ours: Vec<usize> = (0..items.len()).filter(|index| is_ours(&items[*index])).collect();
        let mut new: Vec<&Value> = wanted.iter().collect();
        // What an earlier run added gives its place, also that of another mode: so the order is that of a first run.
        let reused = ours.len().min(new.len());
        for (index, value) in ours.drain(..reused).zip(new.drain(..reused)) {
            self.replace_item(&items[index], list.is_flow(), value)?;
        }
        if ours.len() == items.len() {
            self.remove(map, key);
            return Ok(());
        }
        if list.is_flow() {
            self.remove_flow_items(items, &ours);
        } else {
            self.remove_lines_of(items, &ours)?;
        }
        match (place, list.is_flow()) {
            _ if new.is_empty() => Ok(()),
            (Place::First { .. }, false) => {
                let key_end = map.entry(key).map_or(list.span.start, |(name, _)| name.span.end);
                self.insert_lines(list, &new, self.line_end(key_end))
            }
            (Place::Last, false) => self.insert_lines(list, &new, self.line_end(list.span.end)),
            (_, true) => {
                self.insert_in_brackets(items, &new, place);
                Ok(())
            }
        }
    }

    /// Replaces the first `count` items of a list of texts, which may be none, by others. At least one item stays.
    pub fn replace_head(&mut self, list: &Node, count: usize, texts: &[String]) -> Result<()> {
        let items = list.items();
        let (Some(first), Some(rest)) = (items.first(), items.get(count)) else { return Err(self.unusual(list)) };
        let depth = list.depth + 1;
        if list.is_flow() {
            let column = self.own_line(first);
            let text = texts.iter().map(|text| quoted(text) + &comma(column)).collect();
            self.push(first.span.start..rest.span.start, depth, text);
            return Ok(());
        }
        let (from, to) = (self.dash_line(first)?, self.dash_line(rest)?);
        let column = self.column(self.dash(first)?);
        let text = texts.iter().map(|text| Value::text(text.clone()).item(column, self.offset)).collect();
        self.push_lines(from..to, depth, text);
        Ok(())
    }

    fn replace_item(&mut self, item: &Node, is_flow: bool, value: &Value) -> Result<()> {
        if is_flow {
            let text = value.json(self.own_line(item).map(|column| (column, self.step)));
            self.push(item.span.clone(), item.depth, text);
            return Ok(());
        }
        let column = self.column(self.dash(item)?);
        let range = self.dash_line(item)?..self.line_end(item.span.end);
        self.push_lines(range, item.depth, value.item(column, self.offset));
        Ok(())
    }

    fn insert_lines(&mut self, list: &Node, new: &[&Value], at: usize) -> Result<()> {
        let first = list.items().first().ok_or_else(|| self.unusual(list))?;
        self.dash_line(first)?;
        let column = self.column(self.dash(first)?);
        let text = new.iter().map(|value| value.item(column, self.offset)).collect();
        self.push_lines(at..at, list.depth + 1, text);
        Ok(())
    }

    fn insert_in_brackets(&mut self, items: &[Node], new: &[&Value], place: Place) {
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return };
        let column = self.own_line(first);
        let texts: Vec<_> = new.iter().map(|value| value.json(column.map(|column| (column, self.step)))).collect();
        let comma = comma(column);
        let text = texts.join(&comma);
        let (at, text) = match place {
            Place::First { .. } => (first.span.start, text + &comma),
            Place::Last => (last.span.end, comma + &text),
        };
        self.push(at..at, first.depth, text);
    }

    fn remove_lines_of(&mut self, items: &[Node], indexes: &[usize]) -> Result<()> {
        for index in indexes {
            let range = self.dash_line(&items[*index])?..self.line_end(items[*index].span.end);
            self.push_lines(range, items[*index].depth, String::new());
        }
        Ok(())
    }

    fn remove_flow_items(&mut self, items: &[Node], indexes: &[usize]) {
        let last_kept = (0..items.len()).rev().find(|index| !indexes.contains(index));
        for index in indexes {
            match items.get(index + 1) {
                Some(next) if last_kept.is_some_and(|kept| kept > *index) => {
                    self.push(items[*index].span.start..next.span.start, items[*index].depth, String::new());
                }
                _ => {}
            }
        }
        // The comma before those at the end goes with them.
        if let (Some(kept), Some(last)) = (last_kept.and_then(|kept| items.get(kept)), items.last())
            && last.span.end > kept.span.end
        {
            self.push(kept.span.end..last.span.end, last.depth, String::new());
        }
    }

    fn push(&mut self, range: Range<usize>, depth: usize, text: String) {
        self.all.push(Edit { range, depth, text, is_lines: false });
    }

    fn push_lines(&mut self, range: Range<usize>, depth: usize, text: String) {
        self.all.push(Edit { range, depth, text, is_lines: true });
    }

    /// The start of the line of a place.
    fn line_start(&self, at: usize) -> usize {
        self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |feed| feed + 1)
    }

    /// The start of the line after the value that ends at a place.
    fn line_end(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        if before.ends_with(b"\n") {
            return at;
        }
        let rest = self.text.get(at..).unwrap_or_default();
        rest.find('\n').map_or(self.text.len(), |feed| at + feed + 1)
    }

    fn column(&self, at: usize) -> usize {
        self.text.get(self.line_start(at)..at).unwrap_or_default().chars().count()
    }

    fn is_blank(&self, range: Range<usize>) -> bool {
        self.text.get(range).is_some_and(|text| text.trim().is_empty())
    }

    /// The column of a value if nothing is before it on its line.
    fn own_line(&self, node: &Node) -> Option<usize> {
        let start = self.line_start(node.span.start);
        let is_later = start > 0;
        (is_later && self.is_blank(start..node.span.start)).then(|| self.column(node.span.start))
    }

    /// Where the dash of an item of a list in lines is.
    fn dash(&self, item: &Node) -> Result<usize> {
        let before = self.text.get(..item.span.start).unwrap_or_default().trim_end();
        before.ends_with('-').then(|| before.len() - 1).ok_or_else(|| self.unusual(item))
    }

    /// The start of the line of the dash, if nothing is before the dash.
    fn dash_line(&self, item: &Node) -> Result<usize> {
        let dash = self.dash(item)?;
        let start = self.line_start(dash);
        if self.is_blank(start..dash) { Ok(start) } else { Err(self.unusual(item)) }
    }

    /// The message about a node that has another form than expected.
    pub fn unusual(&self, node: &Node) -> String {
        let before = self.text.get(..node.span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let what = match node.kind {
            Kind::Alias => "is an alias: write it out",
            _ if node.anchored => {
                "has an anchor, so that a change could be one of another place, too: write it without"
            }
            _ => {
                "is not written as inject can extend it: write lists with one dash on a line, and maps with one key on a line"
            }
        };
        format!("what is on line {line} {what}")
    }
}

/// A comma before the next value, which begins in this column of a new line, or on the same line.
fn comma(column: Option<usize>) -> String {
    column.map_or_else(|| ", ".to_owned(), |column| format!(",\n{:column$}", ""))
}

#[cfg(test)]
mod tests {
    use super::{super::tree::parse, *};

    const FIRST: Place = Place::First { before: "z" };

    fn named(name: &str) -> Value {
        Value::Map(vec![("name", Value::text(name)), ("n", Value::Number(1))])
    }

    /// Makes the items `x...` of the list `l` these.
    fn synced(text: &str, wanted: &[&str], place: Place) -> String {
        let root = parse(text).unwrap().remove(0);
        let mut edits = Edits::of(text);
        edits.like(&root, root.entry("l").map(|(key, list)| (key, list)));
        let wanted: Vec<_> = wanted.iter().map(|name| named(name)).collect();
        let is_ours = |item: &Node| item.text_of("name").is_some_and(|name| name.starts_with('x'));
        edits.sync(&root, "l", is_ours, &wanted, place).unwrap();
        edits.apply()
    }

    /// Every way to write a list with `a` and `b`.
    const LISTS: [&str; 7] = [
        "# head\nl: # l\n# of a\n- name: a # a\n- name: b\n\n# end\nz: 012\n",
        "l:\n  -   name: a\n      t: |\n        x\n\n  -\n    name: b\nz: 012",
        "z: 012\nl:\n- name: a\n- {name: b}",
        "z: 012\nl: [{name: a}, {name: b,}]\n",
        r#"{"l": [{"name": "a"}, {"name": "b"}], "z": "012"}"#,
        "{\n    \"l\": [\n        {\n            \"name\": \"a\"\n        },\n        {\n            \"name\": \"b\"\n        }\n    ],\n    \"z\": 12\n}\n",
        "l:\r\n- name: a\r\n- name: b\r\nz: 012\r\n",
    ];

    fn names(text: &str) -> Vec<String> {
        let root = parse(text).unwrap_or_else(|error| panic!("{error}:\n{text}")).remove(0);
        assert!(["012", "12"].contains(&root.text_of("z").unwrap()), "{text}");
        root.get("l").map_or(&[][..], Node::items).iter().map(|item| item.text_of("name").unwrap().to_owned()).collect()
    }

    #[test]
    fn lists_keep_their_other_items_in_each_notation() {
        for list in LISTS {
            let added = synced(list, &["x", "x2"], Place::Last);
            assert_eq!(names(&added), ["a", "b", "x", "x2"], "{added}");
            let first = synced(list, &["x", "x2"], FIRST);
            assert_eq!(names(&first), ["x", "x2", "a", "b"], "{first}");
            for text in [&added, &first] {
                assert_eq!(&synced(text, &["x", "x2"], Place::Last), text, "it is there already");
                assert_eq!(names(&synced(text, &["x3"], Place::Last)).len(), 3, "{text}");
                let removed = synced(text, &[], Place::Last);
                assert_eq!(removed.trim_end(), list.trim_end(), "{text}");
            }
        }
    }

    #[test]
    fn list_that_is_absent_or_empty_is_written() {
        for text in [
            "a:\n- 1\nz: 012\n",
            "l:\nz: 012\n",
            "l: []\nz: 012\n",
            "z: 012\nl: ~",
            "{\"l\": [], \"z\": 12}",
            "{\"z\": 12}",
        ] {
            let added = synced(text, &["x"], FIRST);
            assert_eq!(names(&added), ["x"], "{added}");
            assert_eq!(names(&synced(&added, &[], FIRST)), [""; 0]);
        }
    }

    #[test]
    fn key_on_the_line_of_a_dash_leaves_the_dash() {
        let text = "- l:\n  - name: x\n  z: 012\n";
        let root = parse(text).unwrap().remove(0);
        let mut edits = Edits::of(text);
        edits.sync(&root.items()[0], "l", |_| true, &[], Place::Last).unwrap();
        assert_eq!(edits.apply(), "- l: []\n  z: 012\n");
    }

    #[test]
    fn head_of_a_command_is_replaced() {
        for (text, after) in [
            ("c: [\"app\", x]\n", "c: [\"p\", \"--\", \"app\", x]\n"),
            ("c:\n  - app # a\n  - x\n", "c:\n  - p\n  - \"--\"\n  - app # a\n  - x\n"),
        ] {
            let replaced = |text: &str, count, head: &[&str]| {
                let root = parse(text).unwrap().remove(0);
                let mut edits = Edits::of(text);
                let head: Vec<_> = head.iter().map(|text| (*text).to_owned()).collect();
                edits.replace_head(root.get("c").unwrap(), count, &head).unwrap();
                edits.apply()
            };
            assert_eq!(replaced(text, 0, &["p", "--"]), after);
            assert_eq!(replaced(after, 2, &["p", "--"]), after);
            assert_eq!(replaced(after, 2, &[]), text);
        }
    }

    #[test]
    fn unusual_layout_is_refused_with_its_line() {
        let text = "l:\n- - name: a\n";
        let root = parse(text).unwrap().remove(0);
        let mut edits = Edits::of(text);
        let inner = root.get("l").unwrap();
        let error = edits.replace_head(&inner.items()[0], 0, &["p".to_owned()]).unwrap_err();
        assert!(error.starts_with("what is on line 2 is not written"), "{error}");
    }
}
