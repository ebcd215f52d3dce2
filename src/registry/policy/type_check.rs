//! What the schemas of the objects that a policy is for have against its expressions
//! (upstream: `plugin/policy/validating/typechecking.go`).
