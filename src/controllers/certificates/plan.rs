//! What becomes of a signing request (upstream: `approver/sarapprove.go`, `signer/signer.go` and `cleaner/cleaner.go` in
//! `pkg/controller/certificates`, `pkg/apis/certificates/helpers.go`). Pure.

use crate::transport::pki::sign::Asked;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use std::collections::BTreeSet;
use std::time::Duration;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const SIGNATURE: &str = "digital signature";
const ENCIPHERMENT: &str = "key encipherment";
const OF_CLIENTS: &str = "client auth";
const OF_SERVERS: &str = "server auth";

/// What is signed lasts so long, unless less is asked for,
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// and this at least.
const LIFETIME_MIN: Duration = Duration::from_secs(600);
/// What was decided is kept so long,
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
/// and what nobody decided.
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Whom to ask whether a request may be approved, and what is then said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The requester must be allowed to create this below signing requests.
    pub subresource: &'static str,
    pub message: &'static str,
}

const OWN: Question = Question {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const OF_A_NODE: Question = Question {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Until then, if nothing changes.
    Wait(Option<Timestamp>),
    /// Approve it if the answer to one of them is yes; else ask again later.
    Ask(Vec<Question>),
    Sign(Duration),
    /// The text of the condition.
    Fail(String),
    Delete,
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate
        .map(|bytes| bytes.0.as_slice())
        .filter(|bytes| !bytes.is_empty())
}

/// `asked` is what the request says, or why it cannot be read; `expiry` is that of its certificate.
pub fn step(
    request: &CertificateSigningRequest,
    asked: &Result<Asked, String>,
    expiry: Option<Timestamp>,
    now: Timestamp,
) -> Step {
    let until = kept_until(request, expiry);
    if until.is_some_and(|until| until <= now) {
        return Step::Delete;
    }
    let wait = Step::Wait(until);
    let Ok(asked) = asked else {
        return wait;
    };
    if certificate(request).is_some() || has(request, "Failed") || has(request, "Denied") {
        return wait;
    }
    let usages: BTreeSet<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
    let signer = request.spec.signer_name.as_str();
    if has(request, "Approved") {
        return match check(signer, asked, &usages) {
            None => wait,
            Some(Ok(())) => Step::Sign(lifetime(request.spec.expiration_seconds)),
            Some(Err(why)) => Step::Fail(why),
        };
    }
    if signer == KUBELET_CLIENT && kubelet_client(asked, &usages).is_ok() {
        let own = request.spec.username.as_deref() == Some(asked.common_name.as_str());
        return Step::Ask(if own { vec![OWN, OF_A_NODE] } else { vec![OF_A_NODE] });
    }
    wait
}

/// When it goes, as things are. None if that is not known.
fn kept_until(request: &CertificateSigningRequest, expiry: Option<Timestamp>) -> Option<Timestamp> {
    let after = |begin: Option<Timestamp>, kept| begin.and_then(|begin| begin.checked_add(kept).ok());
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut ends: Vec<Timestamp> = Vec::new();
    if conditions(request).is_empty() {
        ends.extend(after(created, PENDING_KEPT));
    }
    for condition in conditions(request) {
        let decided = condition.last_update_time.as_ref().map(|time| time.0);
        match condition.type_.as_str() {
            "Denied" | "Failed" => ends.extend(after(decided, DECIDED_KEPT)),
            "Approved" if certificate(request).is_some() => {
                ends.extend(after(decided, DECIDED_KEPT));
                ends.extend(expiry);
            }
            _ => {}
        }
    }
    ends.into_iter().min()
}

fn lifetime(asked: Option<i32>) -> Duration {
    let asked = asked.and_then(|seconds| u64::try_from(seconds).ok());
    asked.map_or(LIFETIME, |seconds| {
        Duration::from_secs(seconds).clamp(LIFETIME_MIN, LIFETIME)
    })
}

/// Whether the signer signs such a request. None if it is not one of ours.
fn check(signer: &str, asked: &Asked, usages: &BTreeSet<&str>) -> Option<Result<(), String>> {
    match signer {
        CLIENT => Some(client(usages)),
        KUBELET_CLIENT => Some(kubelet_client(asked, usages)),
        KUBELET_SERVING => Some(kubelet_serving(asked, usages)),
        // Nobody knows what it is for, and upstream signs it as ever.
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

fn client(usages: &BTreeSet<&str>) -> Result<(), String> {
    if let Some(odd) = usages
        .iter()
        .find(|usage| ![SIGNATURE, ENCIPHERMENT, OF_CLIENTS].contains(usage))
    {
        return Err(format!("invalid usage for client certificate: {odd}"));
    }
    if !usages.contains(OF_CLIENTS) {
        return Err(format!("missing required usage for client certificate: {OF_CLIENTS}"));
    }
    Ok(())
}

fn exactly(usages: &BTreeSet<&str>, purpose: &str) -> Result<(), String> {
    let with: BTreeSet<&str> = [SIGNATURE, ENCIPHERMENT, purpose].into();
    let without: BTreeSet<&str> = [SIGNATURE, purpose].into();
    if *usages == with || *usages == without {
        return Ok(());
    }
    let names: Vec<&str> = with.into_iter().collect();
    Err(format!("usages did not match [{}]", names.join(" ")))
}

fn organization(asked: &Asked) -> Result<(), String> {
    if asked.organizations == [NODES] {
        return Ok(());
    }
    Err("subject organization is not system:nodes".to_owned())
}

fn common_name(asked: &Asked) -> Result<(), String> {
    if asked.common_name.starts_with(NODE_PREFIX) {
        return Ok(());
    }
    Err("subject common name does not begin with system:node:".to_owned())
}

fn without(names: usize, what: &str) -> Result<(), String> {
    if names == 0 {
        return Ok(());
    }
    Err(format!("{what} subjectAltNames are not allowed"))
}

fn kubelet_client(asked: &Asked, usages: &BTreeSet<&str>) -> Result<(), String> {
    organization(asked)?;
    without(asked.dns_names, "DNS")?;
    without(asked.emails, "Email")?;
    without(asked.addresses, "IP")?;
    without(asked.uris, "URI")?;
    common_name(asked)?;
    exactly(usages, OF_CLIENTS)
}

fn kubelet_serving(asked: &Asked, usages: &BTreeSet<&str>) -> Result<(), String> {
    organization(asked)?;
    if asked.dns_names == 0 && asked.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    without(asked.emails, "Email")?;
    without(asked.uris, "URI")?;
    exactly(usages, OF_SERVERS)?;
    common_name(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn request(signer: &str, usages: &[&str], status: Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "creationTimestamp": Time(at(0))},
            "spec": {"request": "", "signerName": signer, "usages": usages, "username": "system:node:n"},
            "status": status}))
        .unwrap()
    }

    fn condition(kind: &str) -> Value {
        json!({"type": kind, "status": "True", "lastUpdateTime": Time(at(100))})
    }

    fn node(common_name: &str) -> Asked {
        Asked {
            common_name: common_name.into(),
            organizations: vec![NODES.into()],
            ..Asked::default()
        }
    }

    const FOR_CLIENTS: &[&str] = &[SIGNATURE, OF_CLIENTS];
    const FOR_SERVERS: &[&str] = &[SIGNATURE, ENCIPHERMENT, OF_SERVERS];

    #[test]
    fn who_is_approved_by_whom() {
        let ask = |signer: &str, usages: &[&str], asked: Asked| {
            step(&request(signer, usages, json!({})), &Ok(asked), None, at(1))
        };
        let pending = Step::Wait(Some(at(86_400)));
        assert_eq!(
            ask(KUBELET_CLIENT, FOR_CLIENTS, node("system:node:n")),
            Step::Ask(vec![OWN, OF_A_NODE])
        );
        assert_eq!(
            ask(KUBELET_CLIENT, FOR_CLIENTS, node("system:node:m")),
            Step::Ask(vec![OF_A_NODE])
        );
        assert_eq!(ask(KUBELET_CLIENT, FOR_SERVERS, node("system:node:n")), pending);
        assert_eq!(ask(KUBELET_CLIENT, FOR_CLIENTS, node("somebody")), pending);
        assert_eq!(ask(CLIENT, FOR_CLIENTS, node("system:node:n")), pending);
        let unreadable = step(
            &request(KUBELET_CLIENT, FOR_CLIENTS, json!({})),
            &Err("x".into()),
            None,
            at(1),
        );
        assert_eq!(unreadable, pending);
    }

    #[test]
    fn what_is_signed_and_what_fails() {
        let approved = json!({"conditions": [condition("Approved")]});
        let serving = |dns_names: usize| Asked {
            dns_names,
            ..node("system:node:n")
        };
        let year = Step::Sign(LIFETIME);
        let fails = |why: &str| Step::Fail(why.to_owned());
        for (signer, usages, asked, expected) in [
            (CLIENT, FOR_CLIENTS, Asked::default(), year.clone()),
            (
                CLIENT,
                FOR_SERVERS,
                Asked::default(),
                fails("invalid usage for client certificate: server auth"),
            ),
            (
                CLIENT,
                &[SIGNATURE],
                Asked::default(),
                fails("missing required usage for client certificate: client auth"),
            ),
            (KUBELET_CLIENT, FOR_CLIENTS, node("system:node:n"), year.clone()),
            (
                KUBELET_CLIENT,
                FOR_CLIENTS,
                Asked::default(),
                fails("subject organization is not system:nodes"),
            ),
            (
                KUBELET_CLIENT,
                FOR_CLIENTS,
                serving(1),
                fails("DNS subjectAltNames are not allowed"),
            ),
            (
                KUBELET_CLIENT,
                FOR_CLIENTS,
                node("n"),
                fails("subject common name does not begin with system:node:"),
            ),
            (
                KUBELET_CLIENT,
                FOR_SERVERS,
                node("system:node:n"),
                fails("usages did not match [client auth digital signature key encipherment]"),
            ),
            (KUBELET_SERVING, FOR_SERVERS, serving(1), year.clone()),
            (
                KUBELET_SERVING,
                FOR_SERVERS,
                serving(0),
                fails("DNS or IP subjectAltName is required"),
            ),
            (LEGACY, &[], Asked::default(), year),
            ("example.com/own", FOR_CLIENTS, Asked::default(), Step::Wait(None)),
        ] {
            let step = step(&request(signer, usages, approved.clone()), &Ok(asked), None, at(101));
            assert_eq!(step, expected, "{signer} {usages:?}");
        }
        let denied = json!({"conditions": [condition("Approved"), condition("Denied")]});
        let step = step(
            &request(CLIENT, FOR_CLIENTS, denied),
            &Ok(Asked::default()),
            None,
            at(101),
        );
        assert_eq!(step, Step::Wait(Some(at(3700))));
    }

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime(None), LIFETIME);
        assert_eq!(lifetime(Some(7200)), Duration::from_secs(7200));
        assert_eq!(lifetime(Some(1)), LIFETIME_MIN);
        assert_eq!(lifetime(Some(i32::MAX)), LIFETIME);
    }

    #[test]
    fn what_is_old_goes() {
        let issued = json!({"conditions": [condition("Approved")], "certificate": "AAAA"});
        for (status, expiry, now, expected) in [
            (json!({}), None, 86_399, Step::Wait(Some(at(86_400)))),
            (json!({}), None, 86_400, Step::Delete),
            (json!({"conditions": [condition("Denied")]}), None, 3700, Step::Delete),
            (
                json!({"conditions": [condition("Failed")]}),
                None,
                3699,
                Step::Wait(Some(at(3700))),
            ),
            (issued.clone(), Some(at(900_000)), 3699, Step::Wait(Some(at(3700)))),
            (issued.clone(), Some(at(900_000)), 3700, Step::Delete),
            (issued, Some(at(700)), 700, Step::Delete),
            // Approved, and signed by somebody else some day: that is waited for.
            (
                json!({"conditions": [condition("Approved")]}),
                None,
                900_000,
                Step::Wait(None),
            ),
        ] {
            let step = step(
                &request("example.com/own", &[], status.clone()),
                &Ok(Asked::default()),
                expiry,
                at(now),
            );
            assert_eq!(step, expected, "{status} at {now}");
        }
    }
}
