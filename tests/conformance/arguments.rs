//! What cargo passes on to the runner, as its own harness understands it.

#[derive(Default)]
pub struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    pub list: bool,
    ignored: bool,
    include_ignored: bool,
    pub test_threads: Option<usize>,
}

impl Arguments {
    pub fn parse(words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        let mut words = words.flat_map(|word| match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => vec![flag.to_owned(), value.to_owned()],
            _ => vec![word],
        });
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--skip" => arguments.skip.push(value()),
                "--test-threads" => arguments.test_threads = Some(value().parse().expect("a number")),
                "--exact" => arguments.exact = true,
                "--list" => arguments.list = true,
                "--ignored" => arguments.ignored = true,
                "--include-ignored" => arguments.include_ignored = true,
                "--nocapture" | "--no-capture" | "--show-output" | "-q" | "--quiet" => {}
                "--color" | "--format" => drop(value()),
                flag if flag.starts_with('-') => panic!("{flag} is not understood here"),
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    pub fn selects(&self, name: &str) -> bool {
        let matches = |pattern: &String| match self.exact {
            true => name == pattern,
            false => name.contains(pattern.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }

    /// Whether a test stays out that is marked as ignored, or is not.
    pub fn ignores(&self, marked: bool) -> bool {
        !self.include_ignored && self.ignored != marked
    }
}
