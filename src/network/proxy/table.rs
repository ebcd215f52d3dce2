//! The table as it is in the kernel, and the scripts that change it (upstream: `knftables`' transactions). Pure.

use super::fragment::{Fragment, MARK, NODE_PORTS, NODE_PORTS_NOWHERE, NOWHERE, SERVICES, THEMSELVES};
use crate::client::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The chain for bridges whose ports talk to one another past the rules.
const SAME_BRIDGE: &str = "same_bridge";

type ElementKey = (&'static str, String);

/// One table for one range of Services: who comes later with the same range takes it over.
#[derive(Debug, Default)]
pub struct Table {
    name: String,
    /// The range of cluster addresses.
    range: String,
    fragments: BTreeMap<ObjectKey, Fragment>,
    /// Who wants what under a key: the first one has it.
    claims: BTreeMap<ElementKey, BTreeMap<ObjectKey, String>>,
    /// Bridges between whose ports answers do not pass the rules.
    unseen_bridges: BTreeSet<String>,
}

/// What there is to do.
#[derive(Debug, Default)]
struct Steps {
    flushed: Vec<String>,
    deleted_elements: Vec<ElementKey>,
    deleted_chains: Vec<String>,
    deleted_sets: Vec<String>,
    sets: Vec<(String, String)>,
    chains: Vec<String>,
    rules: Vec<(String, Vec<String>)>,
    elements: Vec<(ElementKey, String)>,
}

impl Table {
    pub fn new(range: &str) -> Self {
        let name: String = range
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        Self {
            name: format!("krust_{name}"),
            range: range.to_owned(),
            ..Self::default()
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn fragment(&self, key: &ObjectKey) -> Option<&Fragment> {
        self.fragments.get(key)
    }

    /// The script for new fragments; empty if nothing changes. The table is as if it had been done.
    pub fn change(&mut self, changes: Vec<(ObjectKey, Fragment)>, unseen_bridges: &BTreeSet<String>) -> String {
        let mut steps = Steps::default();
        let mut touched: BTreeMap<ElementKey, Option<String>> = BTreeMap::new();
        for (key, new) in changes {
            let old = self.fragments.remove(&key).unwrap_or_default();
            compare(&old, &new, &mut steps);
            let elements: BTreeSet<&ElementKey> = old.elements.keys().chain(new.elements.keys()).collect();
            for element in elements {
                let before = self.held(element);
                touched.entry(element.clone()).or_insert(before);
                let claims = self.claims.entry(element.clone()).or_default();
                match new.elements.get(element) {
                    Some(value) => claims.insert(key.clone(), value.clone()),
                    None => claims.remove(&key),
                };
                if claims.is_empty() {
                    self.claims.remove(element);
                }
            }
            if new != Fragment::default() {
                self.fragments.insert(key, new);
            }
        }
        for (element, before) in touched {
            let after = self.held(&element);
            if before == after {
                continue;
            }
            if before.is_some() {
                steps.deleted_elements.push(element.clone());
            }
            if let Some(after) = after {
                steps.elements.push((element, after));
            }
        }
        if self.unseen_bridges != *unseen_bridges {
            self.unseen_bridges.clone_from(unseen_bridges);
            steps.flushed.push(SAME_BRIDGE.to_owned());
            steps.rules.push((SAME_BRIDGE.to_owned(), self.same_bridge()));
        }
        steps.script(&self.name)
    }

    fn held(&self, element: &ElementKey) -> Option<String> {
        self.claims.get(element)?.values().next().cloned()
    }

    fn same_bridge(&self) -> Vec<String> {
        let bridges = self.unseen_bridges.iter();
        bridges
            .map(|bridge| format!("iifname \"{bridge}\" oifname \"{bridge}\" masquerade"))
            .collect()
    }

    /// The script that writes all of it, whatever there was.
    pub fn whole(&self) -> String {
        let mut steps = Steps::default();
        for fragment in self.fragments.values() {
            compare(&Fragment::default(), fragment, &mut steps);
        }
        let held = self.claims.iter().filter_map(|(element, claims)| {
            let value = claims.values().next()?;
            Some((element.clone(), value.clone()))
        });
        steps.elements.extend(held);
        steps.rules.push((SAME_BRIDGE.to_owned(), self.same_bridge()));
        self.base() + &steps.script(&self.name)
    }

    /// The table without Services.
    fn base(&self) -> String {
        let Self { name, range, .. } = self;
        format!(
            "table ip {name}\ndelete table ip {name}\ntable ip {name} {{
  comment \"Services of krust; connections to them have the mark {MARK}\"
  map {SERVICES} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map {NODE_PORTS} {{ type inet_proto . inet_service : verdict; }}
  map {NOWHERE} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map {NODE_PORTS_NOWHERE} {{ type inet_proto . inet_service : verdict; }}
  set {THEMSELVES} {{ type ipv4_addr . ipv4_addr; }}
  chain lead {{
    ip daddr . meta l4proto . th dport vmap @{SERVICES}
    fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS}
  }}
  chain prerouting {{ type nat hook prerouting priority -110; policy accept; jump lead; }}
  chain output {{ type nat hook output priority -110; policy accept; jump lead; }}
  chain loopback {{
    type filter hook prerouting priority raw; policy accept;
    iifname != \"lo\" ip daddr 127.0.0.0/8 drop
  }}
  chain refused {{ reject; }}
  chain refuse {{
    ip daddr . meta l4proto . th dport vmap @{NOWHERE}
    fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS_NOWHERE}
    fib daddr type != local ip daddr {range} reject
  }}
  chain filter_input {{ type filter hook input priority -10; policy accept; ct state new jump refuse; }}
  chain filter_forward {{ type filter hook forward priority -10; policy accept; ct state new jump refuse; }}
  chain filter_output {{ type filter hook output priority -10; policy accept; ct state new jump refuse; }}
  chain {SAME_BRIDGE} {{ }}
  chain postrouting {{
    type nat hook postrouting priority 90; policy accept;
    ct status dnat ip saddr . ip daddr @{THEMSELVES} masquerade
    ct status dnat ip saddr 127.0.0.0/8 oifname != \"lo\" masquerade
    ct status dnat jump {SAME_BRIDGE}
  }}
}}
"
        )
    }
}

/// Chains and sets of a fragment; elements may be wanted by others, too.
fn compare(old: &Fragment, new: &Fragment, steps: &mut Steps) {
    for (chain, rules) in &old.chains {
        if new.chains.get(chain) != Some(rules) {
            steps.flushed.push(chain.clone());
        }
        if !new.chains.contains_key(chain) {
            steps.deleted_chains.push(chain.clone());
        }
    }
    for (chain, rules) in &new.chains {
        if !old.chains.contains_key(chain) {
            steps.chains.push(chain.clone());
        }
        if old.chains.get(chain) != Some(rules) {
            steps.rules.push((chain.clone(), rules.clone()));
        }
    }
    let gone = old.sets.keys().filter(|set| !new.sets.contains_key(*set));
    steps.deleted_sets.extend(gone.cloned());
    let made = new.sets.iter().filter(|(set, _)| !old.sets.contains_key(*set));
    steps
        .sets
        .extend(made.map(|(set, declaration)| (set.clone(), declaration.clone())));
}

impl Steps {
    /// In the order in which nothing is referred to that is not there.
    fn script(&self, table: &str) -> String {
        let mut text = String::new();
        for chain in &self.flushed {
            let _ = writeln!(text, "flush chain ip {table} {chain}");
        }
        for (map, key) in &self.deleted_elements {
            let _ = writeln!(text, "delete element ip {table} {map} {{ {key} }}");
        }
        for chain in &self.deleted_chains {
            let _ = writeln!(text, "delete chain ip {table} {chain}");
        }
        for set in &self.deleted_sets {
            let _ = writeln!(text, "delete set ip {table} {set}");
        }
        for (set, declaration) in &self.sets {
            let _ = writeln!(text, "add set ip {table} {set} {declaration}");
        }
        for chain in &self.chains {
            let _ = writeln!(text, "add chain ip {table} {chain}");
        }
        for (chain, rules) in &self.rules {
            for rule in rules {
                let _ = writeln!(text, "add rule ip {table} {chain} {rule}");
            }
        }
        for ((map, key), value) in &self.elements {
            let value = value_of(value);
            let _ = writeln!(text, "add element ip {table} {map} {{ {key}{value} }}");
        }
        text
    }
}

fn value_of(value: &str) -> String {
    match value {
        "" => String::new(),
        value => format!(" : {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    fn fragment(chain: &str, rule: &str, address: &str) -> Fragment {
        let mut fragment = Fragment::default();
        fragment.chains.insert(chain.to_owned(), vec![rule.to_owned()]);
        let element = (SERVICES, format!("{address} . tcp . 80"));
        fragment.elements.insert(element, format!("goto {chain}"));
        fragment
            .elements
            .insert((THEMSELVES, "x . x".to_owned()), String::new());
        fragment
    }

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    #[test]
    fn only_what_changes_is_written() {
        let mut table = Table::new("10.43.0.0/16");
        let script = table.change(vec![(key("a"), fragment("s_a", "one", "10.43.0.1"))], &none());
        assert_eq!(
            script.lines().collect::<Vec<_>>(),
            [
                "add chain ip krust_10_43_0_0_16 s_a",
                "add rule ip krust_10_43_0_0_16 s_a one",
                "add element ip krust_10_43_0_0_16 services { 10.43.0.1 . tcp . 80 : goto s_a }",
                "add element ip krust_10_43_0_0_16 themselves { x . x }",
            ]
        );
        assert_eq!(
            table.change(vec![(key("a"), fragment("s_a", "one", "10.43.0.1"))], &none()),
            ""
        );
        let script = table.change(vec![(key("a"), fragment("s_a", "two", "10.43.0.1"))], &none());
        assert_eq!(
            script.lines().collect::<Vec<_>>(),
            [
                "flush chain ip krust_10_43_0_0_16 s_a",
                "add rule ip krust_10_43_0_0_16 s_a two"
            ]
        );
        assert!(table.whole().contains("add rule ip krust_10_43_0_0_16 s_a two"));
        let script = table.change(vec![(key("a"), Fragment::default())], &none());
        assert!(script.ends_with("delete chain ip krust_10_43_0_0_16 s_a\n"), "{script}");
        assert!(table.fragments.is_empty() && table.claims.is_empty());
    }

    #[test]
    fn an_address_passes_to_the_next_who_wants_it() {
        let mut table = Table::new("10.43.0.0/16");
        let both = vec![
            (key("a"), fragment("s_a", "one", "10.43.0.1")),
            (key("b"), fragment("s_b", "one", "10.43.0.1")),
        ];
        let script = table.change(both, &none());
        assert!(script.contains("goto s_a") && !script.contains("goto s_b"), "{script}");
        let script = table.change(vec![(key("a"), Fragment::default())], &none());
        let lines: Vec<&str> = script.lines().filter(|line| line.contains("element")).collect();
        assert_eq!(
            lines,
            [
                "delete element ip krust_10_43_0_0_16 services { 10.43.0.1 . tcp . 80 }",
                "add element ip krust_10_43_0_0_16 services { 10.43.0.1 . tcp . 80 : goto s_b }",
            ]
        );
    }

    #[test]
    fn bridges_that_are_not_seen_are_masqueraded() {
        let mut table = Table::new("10.43.0.0/16");
        let script = table.change(Vec::new(), &BTreeSet::from(["docker0".to_owned()]));
        assert!(
            script.contains("add rule ip krust_10_43_0_0_16 same_bridge iifname \"docker0\""),
            "{script}"
        );
        assert!(table.whole().contains("oifname \"docker0\" masquerade"));
        let script = table.change(Vec::new(), &none());
        assert_eq!(script, "flush chain ip krust_10_43_0_0_16 same_bridge\n");
    }
}
