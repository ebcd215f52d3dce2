//! Amounts by resource name, and reckoning with them (upstream: `apiserver/pkg/quota/v1/resources.go`).

use crate::quantity::{Format, Quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<String, Quantity>);

impl Amounts {
    /// What does not parse counts as nothing: the API server has refused it when it was written.
    pub fn from_api(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let amounts = list.into_iter().flatten();
        Self(
            amounts
                .filter_map(|(name, quantity)| Some((name.clone(), quantity.0.parse().ok()?)))
                .collect(),
        )
    }

    pub fn to_api(&self) -> BTreeMap<String, ApiQuantity> {
        let amounts = self.0.iter();
        amounts
            .map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string())))
            .collect()
    }

    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: &str, amount: Quantity) {
        self.0.insert(name.to_owned(), amount);
    }

    /// Sets a number of things.
    pub fn count(&mut self, name: &str, number: i64) {
        self.set(name, Quantity::from_units(number, Format::DecimalSi));
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.get(name).map_or(*amount, |before| before.plus(*amount));
            self.0.insert(name.clone(), sum);
        }
    }

    /// The larger of both, for each resource.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if self.0.get(name).is_none_or(|before| amount > before) {
                self.0.insert(name.clone(), *amount);
            }
        }
    }

    /// What is more here than in `other`: nothing below zero.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        let mut result = BTreeMap::new();
        for (name, amount) in &self.0 {
            let rest = other.0.get(name).map_or(*amount, |before| amount.minus(*before));
            let rest = if rest.is_negative() { Quantity::ZERO } else { rest };
            result.insert(name.clone(), rest);
        }
        Self(result)
    }

    /// Only what `keep` says of its name.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// `pods=1,requests.cpu=500m`.
impl std::fmt::Display for Amounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (name, amount)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}
