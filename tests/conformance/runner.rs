//! Runs the tests on one server, several at a time, and prints results as cargo's own harness does.

use crate::cluster::Cluster;
use crate::list::{List, Outcome, check_the_list};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// No test takes longer.
const TEST_MAX: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 6;

type Run = Box<dyn Fn(Cluster) -> LocalBoxFuture<'static, ()>>;

pub struct Test {
    /// Upstream's name without the tags at its end.
    pub name: &'static str,
    needs_kubectl: bool,
    /// What krust lacks for it to pass.
    waits_for: Option<&'static str>,
    run: Run,
}

/// A test of ours for the conformance test `name`.
pub fn test<F>(name: &'static str, run: impl Fn(Cluster) -> F + 'static) -> Test
where
    F: Future<Output = ()> + 'static,
{
    Test {
        name,
        needs_kubectl: false,
        waits_for: None,
        run: Box::new(move |cluster| run(cluster).boxed_local()),
    }
}

impl Test {
    /// It runs kubectl: ignored unless asked for.
    pub fn needs_kubectl(mut self) -> Self {
        self.needs_kubectl = true;
        self
    }

    /// It fails until krust has this. Once it passes, that is a failure: the mark must go.
    pub fn waits_for(mut self, part: &'static str) -> Self {
        self.waits_for = Some(part);
        self
    }
}

/// What cargo passes on.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
    include_ignored: bool,
    test_threads: Option<usize>,
}

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Self {
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

    fn selects(&self, test: &Test) -> bool {
        let matches = |pattern: &String| match self.exact {
            true => test.name == pattern,
            false => test.name.contains(pattern.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }

    fn ignores(&self, test: &Test) -> bool {
        !self.include_ignored && self.ignored != test.needs_kubectl
    }
}

pub fn main(tests: Vec<Test>) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    check_the_list();
    let list = List::read();
    let problems = list.problems(tests.iter().map(|test| test.name));
    if !problems.is_empty() {
        eprintln!("{}", problems.join("\n"));
        return ExitCode::FAILURE;
    }
    if arguments.list {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let total = tests.len();
    let names: Vec<&'static str> = tests.iter().map(|test| test.name).collect();
    let (selected, filtered): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| arguments.selects(test));
    println!("\nrunning {} tests", selected.len());
    let (ignored, to_run): (Vec<Test>, Vec<Test>) = selected.into_iter().partition(|test| arguments.ignores(test));
    ignored
        .iter()
        .for_each(|test| println!("test {} ... ignored", test.name));
    let mut outcomes: Vec<(&'static str, Outcome)> = filtered
        .iter()
        .chain(&ignored)
        .map(|test| (test.name, Outcome::NotRun))
        .collect();
    let filtered_out = total - to_run.len() - ignored.len();
    let ran = if to_run.is_empty() {
        Vec::new()
    } else {
        run_all(to_run, arguments.test_threads.unwrap_or(AT_ONCE))
    };
    let failures: Vec<&(&str, Outcome, String)> = ran.iter().filter(|(_, o, _)| *o == Outcome::Failed).collect();
    if !failures.is_empty() {
        println!("\nfailures:");
        failures
            .iter()
            .for_each(|(name, _, why)| println!("\n---- {name} ----\n{why}"));
    }
    outcomes.extend(ran.iter().map(|(name, outcome, _)| (*name, *outcome)));
    println!("\n{}", list.count(outcomes.iter().copied()));
    let missing = list.missing(&names, false);
    if !missing.is_empty() && filtered_out == 0 {
        println!("without a test of ours, though no pod is needed: {}", missing.len());
        missing.iter().for_each(|name| println!("  {name}"));
    }
    let of = |wanted: Outcome| outcomes.iter().filter(|(_, outcome)| *outcome == wanted).count();
    let (passed, failed) = (of(Outcome::Passed) + of(Outcome::Waits), of(Outcome::Failed));
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; {} ignored; 0 measured; {filtered_out} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        ignored.len(),
        begin.elapsed().as_secs_f64()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Where panics came from, by their message: the message alone survives the way here.
static PANICS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

fn run_all(tests: Vec<Test>, at_once: usize) -> Vec<(&'static str, Outcome, String)> {
    *PANICS.lock().unwrap() = Some(HashMap::new());
    std::panic::set_hook(Box::new(|panic| {
        if let Some(panics) = PANICS.lock().unwrap().as_mut() {
            panics.insert(message(panic.payload()), panic.to_string());
        }
    }));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // One thread for all: they wait for the server most of the time.
    let results = tokio::task::LocalSet::new().block_on(&runtime, async {
        let cluster = Cluster::start().await;
        let runs = futures_util::stream::iter(tests).map(|test| {
            let cluster = cluster.clone();
            async move {
                let name = test.name;
                let (outcome, why) = run_one(test, cluster).await;
                (name, outcome, why)
            }
        });
        runs.buffer_unordered(at_once.max(1)).collect().await
    });
    let _ = std::panic::take_hook();
    results
}

async fn run_one(test: Test, cluster: Cluster) -> (Outcome, String) {
    let run = AssertUnwindSafe((test.run)(cluster)).catch_unwind();
    let result = match tokio::time::timeout(TEST_MAX, run).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => {
            let message = message(panic.as_ref());
            let known = PANICS
                .lock()
                .unwrap()
                .as_ref()
                .and_then(|panics| panics.get(&message).cloned());
            Err(known.unwrap_or(message))
        }
        Err(_) => Err(format!("took longer than {TEST_MAX:?}")),
    };
    let (outcome, why) = match (result, test.waits_for) {
        (Ok(()), None) => (Outcome::Passed, String::new()),
        (Err(why), None) => (Outcome::Failed, why),
        (Ok(()), Some(part)) => (
            Outcome::Failed,
            format!("passes: it need not wait for {part:?} any more"),
        ),
        (Err(_), Some(_)) => (Outcome::Waits, String::new()),
    };
    match outcome {
        Outcome::Waits => println!(
            "test {} ... waits for {}",
            test.name,
            test.waits_for.unwrap_or_default()
        ),
        Outcome::Passed => println!("test {} ... ok", test.name),
        _ => println!("test {} ... FAILED", test.name),
    }
    (outcome, why)
}
