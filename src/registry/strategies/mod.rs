//! One file per kind (or family of kinds) that has rules of its own (upstream: the `strategy.go` files of
//! `pkg/registry`, `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`).

pub mod pod;
