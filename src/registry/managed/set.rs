//! Sets of paths as tries (upstream: `fieldpath/set.go`).

use super::Reset;
use super::element::Element;
use std::cmp::Ordering;
use std::fmt::Write;

/// The paths below a node, sorted by their first element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set<'a> {
    nodes: Vec<Node<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    pub element: Element<'a>,
    /// The path that ends here belongs to the set; its children do not follow from that.
    pub member: bool,
    pub children: Set<'a>,
}

impl Node<'_> {
    fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl<'a> Set<'a> {
    /// The set of these nodes, which are in any order; the same element may come more than once.
    pub fn of(mut nodes: Vec<Node<'a>>) -> Self {
        if nodes.is_sorted_by(|a, b| a.element < b.element) {
            return Self { nodes };
        }
        nodes.sort_by(|a, b| a.element.cmp(&b.element));
        let mut set = Self {
            nodes: Vec::with_capacity(nodes.len()),
        };
        for node in nodes {
            match set.nodes.last_mut() {
                Some(last) if last.element == node.element => {
                    last.member |= node.member;
                    let children = std::mem::take(&mut last.children);
                    last.children = children.union(node.children);
                }
                _ => set.nodes.push(node),
            }
        }
        set
    }

    /// The set of one path.
    pub fn path(path: &[Element<'a>]) -> Self {
        match path {
            [] => Self::default(),
            [first, rest @ ..] => Self {
                nodes: vec![Node {
                    element: first.clone(),
                    member: rest.is_empty(),
                    children: Self::path(rest),
                }],
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.iter().all(Node::is_empty)
    }

    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    pub fn nodes_mut(&mut self) -> &mut Vec<Node<'a>> {
        &mut self.nodes
    }

    pub fn node(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        self.nodes
            .binary_search_by(|node| node.element.cmp(element))
            .ok()
            .map(|at| &self.nodes[at])
    }

    /// Whether the path belongs to the set.
    pub fn has(&self, path: &[Element<'_>]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.children.has(rest)),
        }
    }

    pub fn union(self, other: Self) -> Self {
        if self.nodes.is_empty() {
            return other;
        }
        if other.nodes.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len() + other.nodes.len());
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.element.cmp(&b.element) {
                Ordering::Less => nodes.extend(left.next()),
                Ordering::Greater => nodes.extend(right.next()),
                Ordering::Equal => {
                    if let (Some(a), Some(b)) = (left.next(), right.next()) {
                        nodes.push(Node {
                            element: a.element,
                            member: a.member || b.member,
                            children: a.children.union(b.children),
                        });
                    }
                }
            }
        }
        nodes.extend(left);
        nodes.extend(right);
        Self { nodes }
    }

    /// The paths that both have.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut nodes = Vec::new();
        self.each_common(other, |a, b| {
            let node = Node {
                element: a.element.clone(),
                member: a.member && b.member,
                children: a.children.intersection(&b.children),
            };
            if !node.is_empty() {
                nodes.push(node);
            }
        });
        Self { nodes }
    }

    fn each_common<'s>(&'s self, other: &'s Self, mut visit: impl FnMut(&'s Node<'a>, &'s Node<'a>)) {
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.nodes.get(i), other.nodes.get(j)) {
            match a.element.cmp(&b.element) {
                Ordering::Less => i += 1,
                Ordering::Greater => j += 1,
                Ordering::Equal => {
                    visit(a, b);
                    i += 1;
                    j += 1;
                }
            }
        }
    }

    /// Takes the paths of `other` out. True if that changed the set.
    pub fn subtract(&mut self, other: &Set<'_>) -> bool {
        let mut changed = false;
        let mut others = other.nodes.iter().peekable();
        self.nodes.retain_mut(|node| {
            while others.next_if(|other| other.element < node.element).is_some() {}
            if let Some(other) = others.next_if(|other| other.element == node.element) {
                if node.member && other.member {
                    node.member = false;
                    changed = true;
                }
                changed |= node.children.subtract(&other.children);
            }
            !node.is_empty()
        });
        changed
    }

    /// Takes the path and all below it out.
    pub fn cut(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let Ok(at) = self
            .nodes
            .binary_search_by(|node| node.element.cmp(&Element::field(first)))
        else {
            return;
        };
        if !rest.is_empty() {
            self.nodes[at].children.cut(rest);
        }
        if rest.is_empty() || self.nodes[at].is_empty() {
            self.nodes.remove(at);
        }
    }

    /// Takes out what an endpoint does not write.
    pub fn reset(&mut self, reset: Reset) {
        match reset {
            Reset::Without(paths) => paths.iter().for_each(|path| self.cut(path)),
            Reset::Only(paths) => self.keep(paths),
        }
    }

    /// Takes out all but these paths and what is below them.
    fn keep(&mut self, paths: &[&[&str]]) {
        self.nodes.retain_mut(|node| {
            let fits = |step: &str| step == "*" || matches!(&node.element, Element::Field(name) if name == step);
            let rests: Vec<&[&str]> = paths
                .iter()
                .filter_map(|path| {
                    path.split_first()
                        .filter(|(first, _)| fits(first))
                        .map(|(_, rest)| rest)
                })
                .collect();
            if rests.iter().any(|rest| rest.is_empty()) {
                return true;
            }
            node.member = false;
            node.children.keep(&rests);
            !node.is_empty()
        });
    }

    /// Takes this one path of fields out, not what is below it.
    pub fn remove(&mut self, path: &[&str]) {
        let [first, rest @ ..] = path else { return };
        let found = self
            .nodes
            .binary_search_by(|node| node.element.cmp(&Element::field(first)));
        if let Ok(at) = found {
            let node = &mut self.nodes[at];
            if rest.is_empty() {
                node.member = false;
            } else {
                node.children.remove(rest);
            }
            if node.is_empty() {
                self.nodes.remove(at);
            }
        }
    }

    /// Every path as errors show it: those that end on a level before those that go on.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.push_paths(&mut String::new(), &mut paths);
        paths
    }

    fn push_paths(&self, prefix: &mut String, paths: &mut Vec<String>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            paths.push(format!("{prefix}{}", node.element));
        }
        let length = prefix.len();
        for node in &self.nodes {
            if !node.children.nodes.is_empty() {
                write!(prefix, "{}", node.element).unwrap_or_default();
                node.children.push_paths(prefix, paths);
                prefix.truncate(length);
            }
        }
    }

    pub fn into_owned(self) -> Set<'static> {
        let owned = |node: Node<'a>| Node {
            element: node.element.into_owned(),
            member: node.member,
            children: node.children.into_owned(),
        };
        Set {
            nodes: self.nodes.into_iter().map(owned).collect(),
        }
    }
}
