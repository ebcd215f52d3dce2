//! Which names are taken in a group: by how many definitions, so that a claim costs what a look-up costs.

use super::definition::Names;
use std::collections::HashMap;

#[derive(Default)]
pub struct Claims {
    groups: HashMap<String, Group>,
}

#[derive(Default)]
struct Group {
    /// Plurals, singulars and short names.
    resources: HashMap<String, usize>,
    /// Kinds and list kinds.
    kinds: HashMap<String, usize>,
}

impl Claims {
    pub fn claim(&mut self, group: &str, names: &Names) {
        let group = self.groups.entry(group.to_owned()).or_default();
        for name in resources(names) {
            *group.resources.entry(name.clone()).or_default() += 1;
        }
        for name in kinds(names) {
            *group.kinds.entry(name.clone()).or_default() += 1;
        }
    }

    pub fn release(&mut self, group: &str, names: &Names) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        for name in resources(names) {
            release(&mut group.resources, name);
        }
        for name in kinds(names) {
            release(&mut group.kinds, name);
        }
    }

    pub fn has_resource(&self, group: &str, name: &str) -> bool {
        self.groups
            .get(group)
            .is_some_and(|group| group.resources.contains_key(name))
    }

    pub fn has_kind(&self, group: &str, name: &str) -> bool {
        self.groups
            .get(group)
            .is_some_and(|group| group.kinds.contains_key(name))
    }
}

fn resources(names: &Names) -> impl Iterator<Item = &String> {
    let names = [&names.plural, &names.singular].into_iter().chain(&names.short_names);
    names.filter(|name| !name.is_empty())
}

fn kinds(names: &Names) -> impl Iterator<Item = &String> {
    [&names.kind, &names.list_kind]
        .into_iter()
        .filter(|name| !name.is_empty())
}

fn release(names: &mut HashMap<String, usize>, name: &str) {
    if let Some(claims) = names.get_mut(name) {
        *claims -= 1;
        if *claims == 0 {
            names.remove(name);
        }
    }
}
