//! Fields that somebody else owns and that an apply would change (upstream: `managedfields/internal/conflict.go`).

use super::entries::{Identity, Operation};
use super::set::Set;

/// What is in the way of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub(super) Vec<Conflict>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Sorts managers.
    pub identity: String,
    /// `"manager" with subresource "status" using v1`.
    pub manager: String,
    pub fields: Set<'static>,
}

impl Conflict {
    pub fn new(identity: &Identity<'_>, fields: Set<'_>) -> Self {
        let mut manager = format!("{:?}", &*identity.manager);
        if !identity.subresource.is_empty() {
            manager.push_str(&format!(" with subresource {:?}", &*identity.subresource));
        }
        if identity.operation == Operation::Update {
            manager.push_str(&format!(" using {}", identity.api_version));
        }
        Self {
            identity: identity.text(),
            manager,
            fields: fields.into_owned(),
        }
    }
}

impl Conflicts {
    pub(super) fn new(mut conflicts: Vec<Conflict>) -> Self {
        conflicts.sort_by(|a, b| a.identity.cmp(&b.identity));
        Self(conflicts)
    }

    /// Each field with what is said of it.
    pub fn causes(&self) -> Vec<(String, String)> {
        let causes = self.0.iter().flat_map(|conflict| {
            let message = format!("conflict with {}", conflict.manager);
            conflict
                .fields
                .paths()
                .into_iter()
                .map(move |path| (path, message.clone()))
        });
        causes.collect()
    }

    pub fn message(&self) -> String {
        let by_manager: Vec<(&str, Vec<String>)> = self
            .0
            .iter()
            .map(|conflict| (conflict.manager.as_str(), conflict.fields.paths()))
            .collect();
        if let [(manager, paths)] = by_manager.as_slice()
            && let [path] = paths.as_slice()
        {
            return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
        }
        let count: usize = by_manager.iter().map(|(_, paths)| paths.len()).sum();
        let mut lines = Vec::with_capacity(count + by_manager.len());
        for (manager, paths) in by_manager {
            lines.push(format!("conflicts with {manager}:"));
            lines.extend(paths.into_iter().map(|path| format!("- {path}")));
        }
        format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
    }
}
