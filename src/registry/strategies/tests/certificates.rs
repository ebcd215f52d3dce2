//! Signing requests, trust bundles and requests of pods for certificates.

use super::{create, kind, object, table, update};
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use crate::registry::strategies::certificates::signer_name;
use crate::registry::strategy::Target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

const GROUP: &str = "certificates.k8s.io";

#[test]
fn names_of_signers_are_checked() {
    let long = "a".repeat(254);
    let far = format!("{long}.{long}.{long}");
    let problem = |problems: Vec<String>| problems[0].clone();
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    let short = "should be a domain with at least two segments separated by dots";
    let (label, subdomain) = (
        problem(dns1123_label("_", false)),
        problem(dns1123_subdomain("x_", false)),
    );
    let bytes = problem(dns1123_subdomain(&long, false));
    for (name, expected) in [
        ("example.com/x", String::new()),
        ("", "p: Required value".to_owned()),
        ("x", format!("p: Invalid value: \"x\": {form}")),
        ("com/x", format!("p: Invalid value: \"com\": {short}")),
        // Only the first bad label of each side is told.
        (
            "_.-.com/x_.y_",
            format!(
                "p: Invalid value: \"_.-.com\": validating label \"_\": {label}\n\
                 p: Invalid value: \"x_.y_\": validating label \"x_\": {subdomain}"
            ),
        ),
        (
            &format!("example.com/{far}"),
            format!(
                "p: Invalid value: {far:?}: validating label {long:?}: {bytes}\n\
                 p: Too long: may not be more than 571 bytes"
            ),
        ),
    ] {
        let errors: Vec<String> = signer_name(name, "p").iter().map(ToString::to_string).collect();
        assert_eq!(errors.join("\n"), expected, "{name}");
    }
}

fn certificate(authority: bool) -> String {
    let mut params = CertificateParams::default();
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn trust_bundles_are_checked() {
    let bundles = kind(GROUP, "v1", "clustertrustbundles");
    let bundle = |pem: &str| json!({"metadata": {"name": "a"}, "spec": {"trustBundle": pem}});
    let (authority, other) = (certificate(true), certificate(false));
    let noted = authority.replacen("\n", "\nKey: value\n\n", 1);
    let twice = format!("{authority}{authority}");
    let broken = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let head = "spec.trustBundle: Invalid value: \"<value omitted>\": ";
    for (pem, expected) in [
        (authority.as_str(), ""),
        ("", "at least one trust anchor must be provided"),
        (&twice, "duplicate trust anchor (indices [0 1])"),
        (&other, "entry 0 does not have the CA bit set"),
        (&noted, "entry 0 has PEM block headers"),
        (broken, "entry 0 does not parse as X.509"),
        (&key, "entry 0 has bad block type: PRIVATE KEY"),
    ] {
        let (_, errors) = create(&bundles, &bundle(pem));
        let expected = Vec::from_iter((!expected.is_empty()).then(|| format!("{head}{expected}")));
        assert_eq!(errors, expected, "{pem}");
        // What is kept is not read again.
        assert_eq!(update(&bundles, &bundle(pem), &bundle(pem)), Vec::<String>::new());
    }
    let (_, errors) = create(&bundles, &bundle(&"a".repeat((1 << 20) + 1)));
    assert_eq!(
        errors,
        ["spec.trustBundle: Too long: may not be more than 1048576 bytes"]
    );
    let named = |name: &str, signer: &str| json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": authority}});
    table(
        &bundles,
        vec![
            (named("example.com:x:a", "example.com/x"), ""),
            (named("a", "example.com/x"), {
                "metadata.name: Invalid value: \"a\": ClusterTrustBundle for signerName example.com/x must be named with \
             prefix example.com:x:"
            }),
            (named("x:a", ""), {
                "metadata.name: Invalid value: \"x:a\": ClusterTrustBundle without signer name must not have \":\" in its name"
            }),
        ],
    );
}

#[test]
fn requests_are_approved_or_denied() {
    let requests = kind(GROUP, "v1", "certificatesigningrequests");
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let with = |kinds: &[&str], certificate: &str| {
        let conditions: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect();
        object(&json!({
            "metadata": {"name": "r"},
            "spec": {"signerName": "a.b/c", "usages": ["client auth"], "request": STANDARD.encode(&pem)},
            "status": {"conditions": conditions, "certificate": STANDARD.encode(certificate)},
        }))
    };
    let approval = Target::Subresource("approval");
    let issued = certificate(false);
    let noted = issued.replacen("\n", "\nKey: value\n\n", 1);
    let head = "status.certificate: Invalid value: \"<certificate data>\": ";
    for (old, new, target, expected) in [
        (with(&[], ""), with(&["Approved"], ""), approval, vec![]),
        (
            with(&[], ""),
            with(&["Approved", "Denied"], ""),
            approval,
            vec![
                "status.conditions: Invalid value: \"{conditions[{\\\"type\\\": \\\"Approved\\\"}], \
             conditions[{\\\"type\\\": \\\"Denied\\\"}]}\": must specify at most one of: \
             `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`"
                    .to_owned(),
            ],
        ),
        (
            with(&["Approved"], ""),
            with(&[], ""),
            approval,
            vec!["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"".to_owned()],
        ),
        (
            with(&[], ""),
            with(&["Approved"], ""),
            Target::Status,
            vec!["status.conditions: Forbidden: updates may not add a condition of type \"Approved\"".to_owned()],
        ),
        (with(&[], ""), with(&[], &issued), Target::Status, vec![]),
        (
            with(&[], ""),
            with(&[], "x"),
            Target::Status,
            vec![format!("{head}must contain at least one CERTIFICATE PEM block")],
        ),
        (
            with(&[], ""),
            with(&[], &noted),
            Target::Status,
            vec![format!("{head}no PEM block headers are permitted")],
        ),
        (
            with(&[], &issued),
            with(&[], &certificate(false)),
            Target::Status,
            vec!["status.certificate: Forbidden: updates may not modify existing certificate content".to_owned()],
        ),
    ] {
        let errors = requests.strategy.validate_update(&new, &old, target);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected);
    }
}

/// What a pod asks for, with a key that is good for it.
fn pod_request(spec: Value) -> (Value, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default().serialize_request(&key).unwrap();
    let mut request = json!({"metadata": {"name": "r", "namespace": "d"}, "spec": {
        "signerName": "example.com/x", "podName": "p", "podUID": "1", "serviceAccountName": "s", "serviceAccountUID": "2",
        "nodeName": "n", "nodeUID": "3", "maxExpirationSeconds": 3600, "stubPKCS10Request": STANDARD.encode(stub.der())}});
    json_patch::merge(&mut request["spec"], &spec);
    (request, key)
}

#[test]
fn requests_of_pods_are_checked() {
    let requests = kind(GROUP, "v1", "podcertificaterequests");
    let request = |spec: Value| pod_request(spec).0;
    table(
        &requests,
        vec![
            (request(json!({})), ""),
            (request(json!({"podUID": "", "nodeUID": "u".repeat(129)})), {
                "spec.podUID: Invalid value: \"\": must not be empty\nspec.nodeUID: Too long: may not be more than 128 bytes"
            }),
            (request(json!({"maxExpirationSeconds": 60})), {
                "spec.maxExpirationSeconds: Invalid value: 60: must be in the range [3600, 7862400]"
            }),
            (
                request(json!({"signerName": "kubernetes.io/x", "maxExpirationSeconds": 86401})),
                { "spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]" },
            ),
            (request(json!({"stubPKCS10Request": null})), {
                "spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"
            }),
            (request(json!({"stubPKCS10Request": "AA=="})), {
                "spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR"
            }),
            (request(json!({"stubPKCS10Request": STANDARD.encode([0; 10241])})), {
                "spec.stubPKCS10Request: Too long: may not be more than 10240 bytes"
            }),
        ],
    );
}

#[test]
fn requests_of_pods_end_once() {
    let requests = kind(GROUP, "v1", "podcertificaterequests");
    let (old, key) = pod_request(json!({}));
    let now = jiff::Timestamp::now().as_second();
    let time = |seconds: i64| {
        let time = jiff::Timestamp::from_second(now + seconds).unwrap();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let mut params = CertificateParams::default();
    params.not_before = time::OffsetDateTime::from_unix_timestamp(now).unwrap();
    params.not_after = params.not_before + std::time::Duration::from_secs(3600);
    let chain = params.self_signed(&key).unwrap().pem();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "lastTransitionTime": time(0)});
    let with = |status: Value| {
        let mut request = old.clone();
        request["status"] = status;
        request
    };
    let issued = |more: Value| {
        let mut status = json!({"conditions": [condition("Issued")], "certificateChain": chain, "notBefore": time(0),
            "notAfter": time(3600), "beginRefreshAt": time(1800)});
        json_patch::merge(&mut status, &more);
        with(status)
    };
    let denied = with(json!({"conditions": [condition("Denied")]}));
    for (old, new, expected) in [
        (&old, issued(json!({})), String::new()),
        (&old, denied.clone(), String::new()),
        (
            &old,
            with(json!({"conditions": [condition("Issued"), condition("Denied")]})),
            {
                "status.conditions.[1].type: Invalid value: \"Denied\": There may be at most one condition with type \
             \"Issued\", \"Denied\", or \"Failed\""
                    .to_owned()
            },
        ),
        (&old, with(json!({"conditions": [condition("Done")]})), {
            "status.conditions.[0].type: Unsupported value: \"Done\": supported values: \"Issued\", \"Denied\", \"Failed\""
                .to_owned()
        }),
        (&denied, issued(json!({})), {
            "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed".to_owned()
        }),
        (&old, issued(json!({"conditions": [condition("Failed")]})), {
            "status: Invalid value: non-condition status fields must be empty when denying or failing the \
             PodCertificateRequest"
                .to_owned()
        }),
        (&old, issued(json!({"conditions": null})), {
            "status: Invalid value: status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""
                .to_owned()
        }),
        (&old, issued(json!({"certificateChain": null})), {
            "status.certificateChain: Invalid value: \"\": issued certificate chain must contain at least one certificate"
                .to_owned()
        }),
        (&old, issued(json!({"certificateChain": certificate(false)})), {
            "leaf certificate was not issued to the requested public key".to_owned()
        }),
        (&old, issued(json!({"notAfter": null})), {
            "status.notAfter: Required value: must be present and consistent with the issued certificate".to_owned()
        }),
        (&old, issued(json!({"notAfter": time(3601)})), {
            format!(
                "status.notAfter: Invalid value: {:?}: must be set to the NotAfter time encoded in the leaf certificate",
                time(3601)
            )
        }),
        (&old, issued(json!({"beginRefreshAt": time(60)})), {
            format!(
                "status.beginRefreshAt: Invalid value: {:?}: must be at least 10 minutes after status.notBefore",
                time(60)
            )
        }),
    ] {
        let errors = requests
            .strategy
            .validate_update(&object(&new), &object(old), Target::Status);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let found = errors.join("\n");
        // A chain is shown as a whole, which is another one in every run.
        let fits = if expected.starts_with("leaf") {
            found.ends_with(&expected)
        } else {
            found == expected
        };
        assert!(fits, "{expected}\n{found}");
    }
}
