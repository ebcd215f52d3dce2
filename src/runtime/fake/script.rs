//! The small language that fake containers "run": the few shell words that tests use, so that one set of
//! contract tests drives the fake and the real engines alike. No upstream counterpart.

use super::super::LogStream;
use bytes::Bytes;
use std::time::Duration;

/// One step of a fake process.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Print(LogStream, Bytes),
    /// Writes to a file in the container; only the termination message file is kept.
    WriteFile {
        path: String,
        text: Bytes,
    },
    Sleep(Duration),
    /// Copies stdin to stdout until stdin ends.
    Cat,
    /// From here on the stop signal ends the process with this code; None: it is ignored.
    OnStop(Option<i32>),
    Exit(i32),
}

/// What a fake process does from its start; after the last step it exits with 0, or never if `forever`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    pub steps: Vec<Step>,
    pub forever: bool,
}

impl Script {
    /// A process that runs until it is stopped.
    pub fn forever() -> Self {
        Script {
            steps: Vec::new(),
            forever: true,
        }
    }

    /// A process that ends after `delay` with `code`.
    pub fn exits_after(delay: Duration, code: i32) -> Self {
        Script {
            steps: vec![Step::Sleep(delay), Step::Exit(code)],
            forever: false,
        }
    }

    /// Reads a command line; None if it is beyond this language. An empty one is the image's own and runs forever.
    pub fn parse(command: &[String]) -> Option<Script> {
        let program = match command.first() {
            None => return Some(Script::forever()),
            Some(program) => program.rsplit('/').next().unwrap_or(program),
        };
        if program == "sh" && command.get(1).map(String::as_str) == Some("-c") {
            let mut script = Script::default();
            for statement in split_statements(command.get(2)?) {
                let words = split_words(&statement)?;
                if words.is_empty() || words == ["wait"] || words == [":"] {
                    continue;
                }
                script.push(words)?;
            }
            return Some(script);
        }
        let mut script = Script::default();
        script.push(command.iter().map(|word| word.to_string()).collect())?;
        Some(script)
    }

    fn push(&mut self, mut words: Vec<String>) -> Option<()> {
        if words.last().map(String::as_str) == Some("&") {
            words.pop();
        }
        let mut target = Target::Stdout;
        if words.last().map(String::as_str) == Some(">&2") {
            words.pop();
            target = Target::Stderr;
        } else if words.len() >= 2 && words[words.len() - 2] == ">" {
            target = Target::File(words.pop()?);
            words.pop();
        }
        let program = words.first()?.rsplit('/').next()?.to_string();
        match program.as_str() {
            "echo" | "printf" => {
                let mut text = words[1..].join(" ");
                if program == "echo" {
                    text.push('\n');
                } else {
                    text = text.replace("\\n", "\n");
                }
                let text = Bytes::from(text);
                self.steps.push(match target {
                    Target::Stdout => Step::Print(LogStream::Stdout, text),
                    Target::Stderr => Step::Print(LogStream::Stderr, text),
                    Target::File(path) => Step::WriteFile { path, text },
                });
            }
            "sleep" => {
                let seconds: f64 = words.get(1)?.parse().ok()?;
                self.steps.push(Step::Sleep(Duration::try_from_secs_f64(seconds).ok()?));
            }
            "cat" if words.len() == 1 => self.steps.push(Step::Cat),
            "true" => {}
            "false" => self.steps.push(Step::Exit(1)),
            "exit" => self
                .steps
                .push(Step::Exit(words.get(1).map_or(Some(0), |code| code.parse().ok())?)),
            "trap" => {
                let code = match words.get(1)?.as_str() {
                    "" => None,
                    action => Some(action.strip_prefix("exit")?.trim().parse().ok()?),
                };
                self.steps.push(Step::OnStop(code));
            }
            _ => return None,
        }
        Some(())
    }
}

enum Target {
    Stdout,
    Stderr,
    File(String),
}

/// Splits at `;`, newlines and `&&` outside quotes; a lone `&` ends a statement and stays on it.
fn split_statements(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let current = statements.last_mut().expect("never empty");
        match (quote, c) {
            (Some(q), _) => {
                if c == q {
                    quote = None;
                }
                current.push(c);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                current.push(c);
            }
            (None, ';' | '\n') => statements.push(String::new()),
            (None, '&') if chars.peek() == Some(&'&') => {
                chars.next();
                statements.push(String::new());
            }
            (None, '&') if !current.ends_with('>') => {
                current.push_str(" &");
                statements.push(String::new());
            }
            (None, _) => current.push(c),
        }
    }
    statements
}

/// Splits at blanks outside quotes; None on an open quote.
fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Option<Script> {
        Script::parse(&["/bin/sh".to_string(), "-c".to_string(), script.to_string()])
    }

    #[test]
    fn reads_the_words_that_tests_use() {
        let script = shell(
            "echo 'a b'; echo err >&2 && printf x > /dev/termination-log; trap 'exit 7' TERM; sleep 0.5 & wait; exit 3",
        );
        assert_eq!(
            script.unwrap().steps,
            vec![
                Step::Print(LogStream::Stdout, "a b\n".into()),
                Step::Print(LogStream::Stderr, "err\n".into()),
                Step::WriteFile {
                    path: "/dev/termination-log".into(),
                    text: "x".into()
                },
                Step::OnStop(Some(7)),
                Step::Sleep(Duration::from_millis(500)),
                Step::Exit(3),
            ]
        );
        assert_eq!(shell("trap '' TERM").unwrap().steps, vec![Step::OnStop(None)]);
        assert!(Script::parse(&[]).unwrap().forever);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(shell("rm -rf /"), None);
        assert_eq!(shell("echo 'open"), None);
        assert_eq!(shell("sleep soon"), None);
        assert_eq!(shell("sleep -1"), None);
        assert_eq!(Script::parse(&["/no/such/program".to_string()]), None);
    }
}
