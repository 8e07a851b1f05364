//! What is printed for people. Pure, and without colours: nothing here depends on a terminal.

use k8s_openapi::jiff::Timestamp;

/// Columns as kubectl draws them: padded by blanks, three between two, none behind the last.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(&headers).chain(rows).map(|row| row.iter().map(|cell| cell_text(cell)).collect()).collect();
    let widths: Vec<_> = (0..headers.len())
        .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width_of_column) in line.iter().zip(&widths) {
            text += cell;
            text.extend(std::iter::repeat_n(' ', width_of_column - width(cell) + 3));
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// Names, versions and ARNs are of one column a character.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// A table has no empty cell: columns stay countable.
fn cell_text(cell: &str) -> String {
    if cell.is_empty() { "<none>".to_owned() } else { printable(cell) }
}

/// Text from a cluster as a terminal may show it, whole.
pub fn printable(text: &str) -> String {
    datakey::text::printable(text, usize::MAX)
}

/// The text with each of its lines moved to the right.
pub fn indented(text: &str, by: usize) -> String {
    let margin = " ".repeat(by);
    text.lines().flat_map(|line| [margin.as_str(), line, "\n"]).collect()
}

/// How long ago, in the two largest units that matter, as kubectl prints ages.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    // A clock that is a little behind the server's.
    let seconds = now.duration_since(since).as_secs().max(0);
    let units = |large: i64, sign: char, small: i64, small_sign: char| {
        let (whole, rest) = (seconds / large, seconds % large / small);
        if rest == 0 { format!("{whole}{sign}") } else { format!("{whole}{sign}{rest}{small_sign}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => units(MINUTE, 'm', 1, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => units(HOUR, 'h', MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => units(DAY, 'd', HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => units(YEAR, 'y', DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// A word that every POSIX shell takes as this text and nothing else.
pub fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = [vec!["orders".to_owned(), "True".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "READY"], &rows), "NAME     READY\norders   True\na        <none>\n");
    }

    #[test]
    fn a_terminal_is_not_led_astray() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\nd\u{9b}ä\u{202e}"), r"a\u{1b}[2Jb\rc\nd\u{9b}ä\u{202e}");
        let drawn = table(&["NAME"], &[vec!["\u{1b}[31m\u{202e}".to_owned()]]);
        assert!(!drawn.contains(['\u{1b}', '\u{202e}']), "{drawn:?}");
    }

    #[test]
    fn ages_read_as_those_of_kubectl() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (601, "10m"),
            (10_799, "179m"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(age(Timestamp::from_second(1_800_000_000 - seconds).unwrap(), now), text);
        }
    }

    #[test]
    fn a_quoted_word_is_one_word_for_a_shell() {
        for text in ["", "a b", "it's", "$(id) `id` \\ \" ! *", "two\nlines", "''"] {
            let script = format!("printf %s {}", shell_quoted(text));
            let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
