//! Runs the tests on their servers, several at a time, and prints results as cargo's own harness does.

use crate::arguments::Arguments;
use crate::cluster::Cluster;
use crate::list::{List, Outcome, check_the_list};
use crate::nodes::Backend;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// No test takes longer.
const TEST_MAX: Duration = Duration::from_secs(60);
/// The same with pods, for which two processors are few.
const POD_TEST_MAX: Duration = Duration::from_secs(240);
const AT_ONCE: usize = 6;
/// On each backend.
const POD_TESTS_AT_ONCE: usize = 5;

type Run = Box<dyn Fn(Cluster) -> LocalBoxFuture<'static, ()>>;

pub struct Test {
    /// Upstream's name without the tags at its end.
    pub name: &'static str,
    /// None: a server without a node.
    backends: Option<&'static [Backend]>,
    alone: bool,
    needs_kubectl: bool,
    /// What krust lacks for it to pass, on all backends or on one.
    waits_for: Vec<(Option<Backend>, &'static str)>,
    run: Run,
}

/// A test of ours for the conformance test `name`, on a server without a node.
pub fn test<F>(name: &'static str, run: impl Fn(Cluster) -> F + 'static) -> Test
where
    F: Future<Output = ()> + 'static,
{
    Test {
        name,
        backends: None,
        alone: false,
        needs_kubectl: false,
        waits_for: Vec::new(),
        run: Box::new(move |cluster| run(cluster).boxed_local()),
    }
}

/// One with running pods: once for each backend, beside other tests. Ignored unless asked for, as it needs engines.
pub fn pod_test<F>(name: &'static str, run: impl Fn(Cluster) -> F + 'static) -> Test
where
    F: Future<Output = ()> + 'static,
{
    Test {
        backends: Some(Backend::ALL),
        ..test(name, run)
    }
}

impl Test {
    /// It runs kubectl: ignored unless asked for.
    pub fn needs_kubectl(mut self) -> Self {
        self.needs_kubectl = true;
        self
    }

    /// It disturbs others on its node (taints, takes all that is free): it runs when they have ended.
    #[allow(dead_code)]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// It fails until krust has this. Once it passes, that is a failure: the mark must go.
    #[allow(dead_code)]
    pub fn waits_for(mut self, part: &'static str) -> Self {
        self.waits_for.push((None, part));
        self
    }

    /// The same on one backend.
    #[allow(dead_code)]
    pub fn waits_on(mut self, backend: Backend, part: &'static str) -> Self {
        self.waits_for.push((Some(backend), part));
        self
    }
}

/// A test on a server.
#[derive(Clone)]
struct Job {
    test: Rc<Test>,
    backend: Option<Backend>,
}

impl Job {
    fn label(&self) -> String {
        match self.backend {
            Some(backend) => format!("{} ({backend})", self.test.name),
            None => self.test.name.to_owned(),
        }
    }

    fn is_marked_ignored(&self) -> bool {
        self.test.needs_kubectl || self.backend.is_some()
    }

    fn waits_for(&self) -> Option<&'static str> {
        let mut marks = self.test.waits_for.iter();
        let here = |on: &Option<Backend>| on.is_none() || *on == self.backend;
        marks.find(|(on, _)| here(on)).map(|(_, part)| *part)
    }
}

/// How it went, and why it failed.
struct Done {
    name: &'static str,
    label: String,
    backend: Option<Backend>,
    outcome: Outcome,
    why: String,
}

fn jobs(tests: Vec<Test>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for test in tests.into_iter().map(Rc::new) {
        let mut add = |backend| {
            let test = test.clone();
            jobs.push(Job { test, backend });
        };
        match test.backends {
            None => add(None),
            Some(backends) => backends.iter().for_each(|backend| add(Some(*backend))),
        }
    }
    jobs
}

pub fn main(tests: Vec<Test>) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    check_the_list();
    let list = List::read();
    let names: Vec<&'static str> = tests.iter().map(|test| test.name).collect();
    let problems = list.problems(names.iter().copied());
    if !problems.is_empty() {
        eprintln!("{}", problems.join("\n"));
        return ExitCode::FAILURE;
    }
    let jobs = jobs(tests);
    if arguments.list {
        jobs.iter().for_each(|job| println!("{}: test", job.label()));
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let (selected, filtered): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| arguments.selects(&job.label()));
    println!("\nrunning {} tests", selected.len());
    let (ignored, to_run): (Vec<Job>, Vec<Job>) = selected
        .into_iter()
        .partition(|job| arguments.ignores(job.is_marked_ignored()));
    ignored
        .iter()
        .for_each(|job| println!("test {} ... ignored", job.label()));
    let mut outcomes: Vec<(&'static str, Option<Backend>, Outcome)> = filtered
        .iter()
        .chain(&ignored)
        .map(|job| (job.test.name, job.backend, Outcome::NotRun))
        .collect();
    let ran = run_all(to_run, arguments.test_threads);
    let failures: Vec<&Done> = ran.iter().filter(|done| done.outcome == Outcome::Failed).collect();
    if !failures.is_empty() {
        println!("\nfailures:");
        failures
            .iter()
            .for_each(|done| println!("\n---- {} ----\n{}", done.label, done.why));
    }
    outcomes.extend(ran.iter().map(|done| (done.name, done.backend, done.outcome)));
    println!("\n{}", list.count(&outcomes));
    let missing = list.missing(&names, false);
    if !missing.is_empty() && filtered.is_empty() {
        println!("without a test of ours, though no pod is needed: {}", missing.len());
        missing.iter().for_each(|name| println!("  {name}"));
    }
    let of = |wanted: Outcome| outcomes.iter().filter(|(_, _, outcome)| *outcome == wanted).count();
    let (passed, failed) = (of(Outcome::Passed) + of(Outcome::Waits), of(Outcome::Failed));
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        ignored.len(),
        filtered.len(),
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

fn run_all(jobs: Vec<Job>, at_once: Option<usize>) -> Vec<Done> {
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
    let on = |backend: Option<Backend>| {
        let jobs = jobs.iter().filter(|job| job.backend == backend);
        jobs.cloned().collect::<Vec<Job>>()
    };
    // One thread for all: they wait for the server most of the time.
    let results = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut results = run_on_one(None, on(None), at_once.unwrap_or(AT_ONCE)).await;
        let backends = Backend::ALL.iter().map(|backend| {
            let jobs = on(Some(*backend));
            run_on_one(Some(*backend), jobs, at_once.unwrap_or(POD_TESTS_AT_ONCE))
        });
        let with_pods = futures_util::future::join_all(backends).await;
        results.extend(with_pods.into_iter().flatten());
        results
    });
    let _ = std::panic::take_hook();
    results
}

/// Starts a server and runs the tests on it, those that must be alone at the end.
async fn run_on_one(backend: Option<Backend>, jobs: Vec<Job>, at_once: usize) -> Vec<Done> {
    if jobs.is_empty() {
        return Vec::new();
    }
    let cluster = match backend {
        None => Cluster::start().await,
        Some(backend) => Cluster::start_on(backend).await,
    };
    let (alone, shared): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.test.alone);
    let mut results = Vec::new();
    for (jobs, at_once) in [(shared, at_once.max(1)), (alone, 1)] {
        let runs = futures_util::stream::iter(jobs).map(|job| run_one(job, cluster.for_a_test()));
        results.extend(runs.buffer_unordered(at_once).collect::<Vec<_>>().await);
    }
    if let (Some(backend), Err(why)) = (backend, cluster.engine_is_empty().await) {
        results.push(Done {
            name: "nothing is left on the engine",
            label: format!("nothing is left on the engine ({backend})"),
            backend: Some(backend),
            outcome: Outcome::Failed,
            why,
        });
    }
    results
}

async fn run_one(job: Job, cluster: Cluster) -> Done {
    let limit = match job.backend {
        None => TEST_MAX,
        Some(_) => POD_TEST_MAX,
    };
    let begin = Instant::now();
    let run = AssertUnwindSafe((job.test.run)(cluster.clone())).catch_unwind();
    let result = match tokio::time::timeout(limit, run).await {
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
        Err(_) => Err(format!("took longer than {limit:?}")),
    };
    cluster.tidy_up().await;
    let waits_for = job.waits_for();
    let (outcome, why) = match (result, waits_for) {
        (Ok(()), None) => (Outcome::Passed, String::new()),
        (Err(why), None) => (Outcome::Failed, why),
        (Ok(()), Some(part)) => (
            Outcome::Failed,
            format!("passes: it need not wait for {part:?} any more"),
        ),
        (Err(_), Some(_)) => (Outcome::Waits, String::new()),
    };
    let seconds = begin.elapsed().as_secs_f64();
    match outcome {
        Outcome::Waits => println!("test {} ... waits for {}", job.label(), waits_for.unwrap_or_default()),
        Outcome::Passed => println!("test {} ... ok ({seconds:.1}s)", job.label()),
        _ => println!("test {} ... FAILED ({seconds:.1}s)", job.label()),
    }
    Done {
        name: job.test.name,
        label: job.label(),
        backend: job.backend,
        outcome,
        why,
    }
}
