//! Every command of kubectl that needs the API alone, with what it prints against a real cluster.

mod access;
mod apply;
mod batch;
mod change;
mod create;
mod every_version;
mod read;

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, Ran, VERSIONS};
use std::time::{Duration, Instant};

/// One kubectl in a namespace of its own.
struct Session {
    kubectl: Kubectl,
    namespace: String,
    /// The minor version: 27 of 1.27.
    minor: u32,
}

/// Runs `test` with each kubectl of `versions` on one server.
fn sessions(versions: &[&str], test: impl Fn(&Session)) {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in versions {
        let session = Session {
            kubectl: krust.kubectl(version),
            namespace: format!("v{}", version.replace('.', "-")),
            minor: version
                .split('.')
                .nth(1)
                .and_then(|minor| minor.parse().ok())
                .expect("a version"),
        };
        session.prints(
            &format!("create namespace {}", session.namespace),
            &format!("namespace/{} created", session.namespace),
        );
        test(&session);
    }
}

fn each(test: impl Fn(&Session)) {
    sessions(VERSIONS, test);
}

/// Words as a shell would split them, with single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), false, false);
    for letter in command.chars() {
        match letter {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' | '\n' if !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            letter => {
                word.push(letter);
                begun = true;
            }
        }
    }
    assert!(!quoted, "an open quote: {command}");
    if begun {
        words.push(word);
    }
    words
}

impl Session {
    fn run(&self, command: &str, input: &str) -> Ran {
        let words = words(command);
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(words.iter().map(String::as_str));
        self.kubectl.run_with(&all, input)
    }

    /// What a command that must succeed prints, without the last line break.
    #[track_caller]
    fn out_with(&self, input: &str, command: &str) -> String {
        let ran = self.run(command, input);
        assert_eq!(
            ran.code,
            Some(0),
            "1.{}: kubectl {command}\nstdout: {}\nstderr: {}",
            self.minor,
            ran.stdout,
            ran.stderr
        );
        ran.stdout.trim_end_matches('\n').to_owned()
    }

    #[track_caller]
    fn out(&self, command: &str) -> String {
        self.out_with("", command)
    }

    #[track_caller]
    fn prints_with(&self, input: &str, command: &str, expected: &str) {
        let printed = self.out_with(input, command);
        assert_eq!(printed, expected, "1.{}: kubectl {command}", self.minor);
    }

    /// The command succeeds and prints this.
    #[track_caller]
    fn prints(&self, command: &str, expected: &str) {
        self.prints_with("", command, expected);
    }

    /// The command fails with this on stderr.
    #[track_caller]
    fn fails_with(&self, input: &str, command: &str, expected: &str) {
        let ran = self.run(command, input);
        assert_ne!(
            ran.code,
            Some(0),
            "1.{}: kubectl {command} succeeded: {}",
            self.minor,
            ran.stdout
        );
        assert_eq!(
            ran.stderr.trim_end_matches('\n'),
            expected,
            "1.{}: kubectl {command}",
            self.minor
        );
    }

    #[track_caller]
    fn fails(&self, command: &str, expected: &str) {
        self.fails_with("", command, expected);
    }

    /// The lines that a command prints, squeezed, once all that are wanted are among them.
    fn until(&self, command: &str, wanted: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let printed = self.out(command);
            let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let lines: Vec<String> = printed.lines().map(squeezed).filter(|line| !line.is_empty()).collect();
            if wanted
                .iter()
                .all(|wanted| lines.iter().any(|line| line.contains(wanted)))
            {
                return lines;
            }
            assert!(
                Instant::now() < deadline,
                "1.{}: kubectl {command}: not all of {wanted:#?} in {printed}",
                self.minor
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What stands at a JSON path of an object.
    #[track_caller]
    fn at(&self, object: &str, path: &str) -> String {
        self.out(&format!("get {object} -o 'jsonpath={{{path}}}'"))
    }
}

#[test]
fn commands_are_split_as_by_a_shell() {
    assert_eq!(words("a  b 'c d' --e='f g'h ''"), ["a", "b", "c d", "--e=f gh", ""]);
}
