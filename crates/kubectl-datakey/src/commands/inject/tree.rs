//! A manifest as a tree of nodes that know where they are in the text. JSON is YAML here, too.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

/// Deeper documents are refused: no manifest has so many levels.
const MAX_DEPTH: usize = 100;

/// A value, and where it is.
#[derive(Debug)]
pub struct Node {
    /// The bytes of the value: of a collection from its first to its last value, with the brackets if it has them.
    pub span: Range<usize>,
    /// How many collections it is in.
    pub depth: usize,
    /// Whether it has an anchor, so that another place can repeat it.
    pub anchored: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// A text, number, truth value or null.
    Scalar {
        /// The text that it stands for.
        text: String,
        /// Without quotes, so that it can be a number, a truth value or null.
        is_plain: bool,
    },
    /// Keys with values, in `{}` or in lines.
    Map { is_flow: bool, entries: Vec<(Node, Node)> },
    /// A list, in `[]` or in lines.
    List { is_flow: bool, items: Vec<Node> },
    /// A reference to an anchor.
    Alias,
}

/// A collection whose end is not read yet.
struct Open {
    start: usize,
    is_map: bool,
    is_flow: bool,
    anchored: bool,
    nodes: Vec<Node>,
}

/// Reads the documents of a text. An empty document has no root and is left out.
///
/// # Errors
/// Says what is wrong, and where.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let (mut roots, mut open): (Vec<Node>, Vec<Open>) = (Vec::new(), Vec::new());
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        let depth = open.len();
        let bytes = bytes(&span)?;
        let node = |span, anchor, kind| Node { span, depth, anchored: anchor != 0, kind };
        let done = match event {
            Event::Scalar(value, style, anchor, _) => {
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let kind = Kind::Scalar { text: value.into_owned(), is_plain: style == ScalarStyle::Plain };
                node(if is_block { whole_lines(text, bytes) } else { bytes }, anchor, kind)
            }
            Event::Alias(_) => node(bytes, 0, Kind::Alias),
            Event::SequenceStart(style, anchor, _) => {
                open.push(Open::new(bytes.start, false, style == StructureStyle::Flow, anchor));
                continue;
            }
            Event::MappingStart(style, anchor, _) => {
                open.push(Open::new(bytes.start, true, style == StructureStyle::Flow, anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => closed.close(bytes.end, open.len()),
                None => continue,
            },
            _ => continue,
        };
        if open.len() > MAX_DEPTH {
            return Err(format!("it has more than {MAX_DEPTH} levels"));
        }
        match open.last_mut() {
            Some(collection) => collection.nodes.push(done),
            None if done.is_null() => {}
            None => roots.push(done),
        }
    }
    Ok(roots)
}

fn bytes(span: &Span) -> Result<Range<usize>, String> {
    span.byte_range().ok_or_else(|| "the place of a value is not known".to_owned())
}

/// The parser adds the indentation of the next line to a text in lines of its own.
fn whole_lines(text: &str, bytes: Range<usize>) -> Range<usize> {
    let own = text.get(bytes.clone()).unwrap_or_default();
    match own.rfind('\n') {
        Some(last) if own.get(last..).is_some_and(|rest| rest.trim().is_empty()) => bytes.start..bytes.start + last + 1,
        _ => bytes,
    }
}

// === impl Open ===

impl Open {
    fn new(start: usize, is_map: bool, is_flow: bool, anchor: usize) -> Self {
        Self { start, is_map, is_flow, anchored: anchor != 0, nodes: Vec::new() }
    }

    fn close(self, end: usize, depth: usize) -> Node {
        let Self { start, is_map, is_flow, anchored, nodes } = self;
        // In lines, the parser ends a collection where the next value begins, after comments and empty lines.
        let end = if is_flow { end } else { nodes.last().map_or(end, |last| last.span.end) };
        let kind = if is_map {
            let (mut entries, mut nodes) = (Vec::new(), nodes.into_iter());
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                entries.push((key, value));
            }
            Kind::Map { is_flow, entries }
        } else {
            Kind::List { is_flow, items: nodes }
        };
        Node { span: start..end, depth, anchored, kind }
    }
}

// === impl Node ===

impl Node {
    /// The value of a key; `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// A key with its value.
    pub fn entry(&self, key: &str) -> Option<&(Self, Self)> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key))
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a map, else none.
    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.kind {
            Kind::Map { entries, .. } => entries,
            _ => &[],
        }
    }

    /// The items of a list, else none.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List { items, .. } => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text of the scalar that a key has.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    /// Whether it is a map.
    pub fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map { .. })
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List { .. })
    }

    /// Whether it has brackets.
    pub fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Map { is_flow: true, .. } | Kind::List { is_flow: true, .. })
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, is_plain: true, .. } => ["", "~", "null", "Null", "NULL"].contains(&text.as_str()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Node {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn values_have_their_places() {
        let text = "a: 1 # one\nb:\n  - x\n\n  # end\nc: |\n  lines\n\nd: {e: [1, 2]}\n";
        let root = root(text);
        let place = |path: &[&str]| &text[root.at(path).unwrap().span.clone()];
        assert_eq!([place(&["a"]), place(&["b"]), place(&["d", "e"])], ["1", "- x", "[1, 2]"]);
        assert_eq!(place(&["c"]), "lines\n\n");
        assert_eq!((root.at(&["d", "e"]).unwrap().depth, root.get("a").unwrap().depth), (2, 1));
    }

    #[test]
    fn json_is_read_with_its_escapes() {
        let root = root(r#"{"a": {"b": [1, "x\u00e9\ud834\udd1e\/", {"c": {}}]}, "n": null}"#);
        assert_eq!(root.at(&["a", "b"]).unwrap().items()[1].text(), Some("xé𝄞/"));
        assert!(root.get("n").is_none() && root.entry("n").is_some());
    }

    #[test]
    fn empty_documents_have_no_root() {
        assert_eq!(parse("---\n# nothing\n---\na: 1\n---\n").unwrap().len(), 1);
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_yaml_is_an_error() {
        for wrong in ["a: [1", "{{ if .Values.x }}\na: 1\n{{ end }}", "a: *unknown", &"[".repeat(200)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
