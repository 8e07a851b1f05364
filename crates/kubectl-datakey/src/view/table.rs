//! Tables and ages, in the form that kubectl prints them. The text has no colors, so it does not depend on the
//! terminal.

use k8s_openapi::jiff::Timestamp;

use crate::output::printable;

/// Renders a table: columns are padded with blanks and three blanks apart, and no line ends with a blank.
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

/// Returns how many columns a cell takes. The characters of names, versions and ARNs take one each.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// Returns the text of a cell. An empty one is `<none>`, so that scripts can count columns.
fn cell_text(cell: &str) -> String {
    if cell.is_empty() { "<none>".to_owned() } else { printable(cell) }
}

/// Indents each line of a text.
pub fn indented(text: &str, by: usize) -> String {
    let margin = " ".repeat(by);
    text.lines().flat_map(|line| [margin.as_str(), line, "\n"]).collect()
}

/// Formats an age with one or two units, as `kubectl get` does (`HumanDuration` in `k8s.io/apimachinery`).
pub fn age(since: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    // The user's clock can be behind the server's.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_are_trimmed() {
        let rows = [vec!["orders".to_owned(), "True".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "READY"], &rows), "NAME     READY\norders   True\na        <none>\n");
    }

    #[test]
    fn cells_are_escaped() {
        let table = table(&["NAME"], &[vec!["\u{1b}[31m\u{202e}".to_owned()]]);
        assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table:?}");
    }

    #[test]
    fn ages_have_the_form_of_kubectl() {
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
}
