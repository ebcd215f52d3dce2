//! What was done to objects, by whom and when, so that a failure can be explained from its own log.

use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

/// Of more lines only the last are printed.
const LINES_MAX: usize = 250;

/// Clones share it.
#[derive(Clone)]
pub struct History {
    began: Instant,
    lines: Arc<Mutex<Vec<Line>>>,
}

struct Line {
    object: String,
    text: String,
}

impl History {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            lines: Arc::default(),
        }
    }

    /// Notes what happened to the object of that name.
    pub fn note(&self, object: &str, what: &str) {
        let text = format!("{:7.3} {what}", self.began.elapsed().as_secs_f64());
        let object = object.to_owned();
        self.lines.lock().push(Line { object, text });
    }

    /// How many lines there are; those after are left out of a story that ends here.
    pub fn len(&self) -> usize {
        self.lines.lock().len()
    }

    /// The last lines of all.
    pub fn last(&self, count: usize) -> String {
        let lines = self.lines.lock();
        let last = lines[lines.len().saturating_sub(count)..].iter();
        last.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// What happened up to line `end` to objects whose names begin with `prefix`, and to all together.
    pub fn of(&self, prefix: &str, end: usize) -> String {
        let lines = self.lines.lock();
        let told = lines.iter().take(end);
        let told = told.filter(|line| line.object.is_empty() || line.object.starts_with(prefix));
        let told: Vec<&str> = told.map(|line| line.text.as_str()).collect();
        told[told.len().saturating_sub(LINES_MAX)..].join("\n")
    }
}

/// Name and what matters of an object that the API server has answered with.
pub fn digest(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    let mut digest = format!("{name} at {}", text(&metadata["resourceVersion"]));
    let owners = metadata["ownerReferences"].as_array();
    if let Some(owner) = owners.and_then(|owners| owners.first()) {
        digest += &format!(" of {}", text(&owner["name"]));
    }
    if !metadata["deletionTimestamp"].is_null() {
        digest += " going";
    }
    let (spec, status) = (&object["spec"], &object["status"]);
    for (what, value) in [
        ("generation", &metadata["generation"]),
        ("wanted", &spec["replicas"]),
        ("node", &spec["nodeName"]),
        ("phase", &status["phase"]),
        ("seen", &status["observedGeneration"]),
        ("counted", &status["replicas"]),
        ("ready", &status["readyReplicas"]),
    ] {
        if !value.is_null() {
            digest += &format!(", {what} {value}");
        }
    }
    let conditions = status["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    if let Some(ready) = ready {
        digest += &format!(", Ready {}", ready["status"]);
    }
    (name, digest)
}
