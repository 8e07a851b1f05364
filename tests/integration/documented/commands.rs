//! Finds the commands of a Markdown file, in order.

/// How commands in the text begin.
const PROGRAMS: [&str; 10] =
    ["kubectl", "helm", "aws", "make", "velero", "docker", "podman", "flux", "eval", "install"];

/// One command of the documentation.
pub struct Command {
    /// The command as a reader types it: with all its lines, without a prompt.
    pub text: String,
    /// The text between the command before and this one.
    pub before: String,
    /// What the documentation shows as its output.
    pub shown: String,
}

/// What a block of `bash` that is a whole script begins with: in a terminal, `set -e` without the parentheses would end the shell
/// of the reader with the first command that fails. Other blocks of `bash` are parts of files.
const SCRIPT: &str = "( set -euo pipefail\n";

/// All of them: those of `sh` and `console` blocks, scripts of `bash`, and those in the text.
pub fn commands(markdown: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut before = String::new();
    for (number, part) in markdown.split("\n```").enumerate() {
        let texts = if number % 2 == 0 {
            let mut pieces = part.split('`');
            before.push_str(pieces.next().unwrap_or_default());
            while let Some(code) = pieces.next() {
                let code = code.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\|", "|");
                if is_a_command(&code) {
                    found.push(Command { text: code, before: std::mem::take(&mut before), shown: String::new() });
                } else {
                    before.push_str(&code);
                }
                before.push_str(pieces.next().unwrap_or_default());
            }
            continue;
        } else {
            match part.split_once('\n') {
                Some(("sh", body)) => typed(body.lines()),
                Some(("bash", body)) if body.starts_with(SCRIPT) => vec![body.to_owned()],
                Some(("console", body)) => {
                    found.extend(console(body).into_iter().map(|(text, shown)| Command {
                        text,
                        before: std::mem::take(&mut before),
                        shown,
                    }));
                    continue;
                }
                _ => continue,
            }
        };
        found.extend(texts.into_iter().map(|text| Command {
            text,
            before: std::mem::take(&mut before),
            shown: String::new(),
        }));
    }
    found
}

/// The commands of a terminal, each with the lines that it shows.
fn console(body: &str) -> Vec<(String, String)> {
    let mut commands = Vec::<(String, String)>::new();
    for line in body.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, shown))) => shown.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    commands
}

fn is_a_command(code: &str) -> bool {
    code.split_once(' ').is_some_and(|(program, _)| PROGRAMS.contains(&program))
}

/// The commands in these lines: a backslash continues one, and a here document belongs to one.
fn typed<'a>(mut lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut commands = Vec::new();
    while let Some(line) = lines.next() {
        let mut command = line.to_owned();
        let mut goes_on = line.ends_with('\\');
        let until = line.split_once("<<'").and_then(|(_, rest)| rest.split_once('\'')).map(|(word, _)| word);
        while goes_on || until.is_some_and(|word| !command.ends_with(&format!("\n{word}"))) {
            let next = lines.next().unwrap_or_else(|| panic!("no end:\n{command}"));
            command = format!("{command}\n{next}");
            goes_on = next.ends_with('\\') && until.is_none();
        }
        if !line.is_empty() && !line.starts_with('#') {
            commands.push(command);
        }
    }
    commands
}

#[test]
fn commands_are_found_in_blocks_and_in_the_text() {
    let markdown = "Say `kubectl get\ndk` or `kubectl`:\n\n```sh\n# why\nhelm a \\\n  b\ncat > f <<'END'\nx\\\nEND\n```\n\n\
                    ```console\n$ kubectl get dk\nNAME\n```\n\n```yaml\nkubectl: no\n```\nSo `spec.version` is.\n\n\
                    ```bash\n( set -euo pipefail\na=$(aws b)\necho \"$a\" )\n```\n\n```bash\naws part\n```\n";
    let found: Vec<_> = commands(markdown).into_iter().map(|command| (command.text, command.before)).collect();
    let expected = [
        ("kubectl get dk", "Say "),
        ("helm a \\\n  b", " or kubectl:\n"),
        ("cat > f <<'END'\nx\\\nEND", ""),
        ("kubectl get dk", "\n"),
        ("( set -euo pipefail\na=$(aws b)\necho \"$a\" )", "\n\nSo spec.version is.\n"),
    ];
    let expected: Vec<_> = expected.map(|(text, before)| (text.to_owned(), before.to_owned())).into();
    assert_eq!(found, expected);
}
