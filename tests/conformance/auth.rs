//! Signing requests, service accounts and their tokens, access reviews.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{Subject, cluster_wide, namespaced};
use crate::resource::{Resource, pod};
use crate::runner::{Test, test};
use base64::Engine;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations",
            signing_requests,
        ),
        test(
            "[sig-auth] PodCertificateRequest API [Privileged:ClusterAdmin] should support PodCertificateRequest API operations",
            pod_certificates,
        ),
        test(
            "[sig-auth] ServiceAccounts should allow opting out of API token automount",
            automount,
        ),
        test(
            "[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview",
            token_review,
        ),
        test(
            "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace",
            root_certificate,
        ),
        test(
            "[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount",
            service_account,
        ),
        test(
            "[sig-auth] ServiceAccounts should update a ServiceAccount",
            replace_account,
        ),
        test(
            "[sig-auth] SubjectReview should support SubjectReview API operations",
            subject_reviews,
        ),
    ]
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A certificate request for `name`, with a new key.
fn request(name: &str) -> rcgen::CertificateSigningRequest {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    }
    parameters.serialize_request(&key).unwrap()
}

fn signing_subject(name: &str) -> Value {
    json!({"spec": {
        "request": base64(request(name).pem().unwrap()), "signerName": "example.com/tests", "expirationSeconds": 3600,
        "usages": ["digital signature", "key encipherment", "server auth"],
    }})
}

fn condition(kind: &str) -> Value {
    // One that was decided long ago is cleaned away.
    let now = k8s_openapi::jiff::Timestamp::now();
    let now = format!("{now:.0}");
    json!({
        "type": kind, "status": "True", "reason": "Test", "message": "by a test",
        "lastUpdateTime": now, "lastTransitionTime": now,
    })
}

async fn signing_requests(cluster: Cluster) {
    const RESOURCE: (&str, &str, &str) = (
        "certificates.k8s.io/v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
    );
    cluster_wide(RESOURCE.0, RESOURCE.1, RESOURCE.2, signing_subject("one"))
        .status(json!({"conditions": [condition("StatusUpdated")]}))
        .run(&cluster)
        .await;

    // Who asks is written down, whatever the request says; approval has a route of its own.
    let requests = cluster.resource(RESOURCE.0, RESOURCE.1, None);
    let name = cluster.unique("csr");
    let mut object = signing_subject("two");
    object["metadata"] = json!({"name": name});
    object["spec"]["username"] = json!("somebody-else");
    let created = requests.create(&object).await.unwrap();
    assert_eq!(created["spec"]["username"], "kubernetes-admin");
    let mut approved = requests.get_sub(&name, "approval").await.unwrap();
    approved["status"] = json!({"conditions": [condition("Approved")]});
    let approved = requests.replace_sub("approval", &approved).await.unwrap();
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    let mut denied = approved.clone();
    denied["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition("Denied"));
    refused(requests.replace_sub("approval", &denied).await, 422, "Invalid");
    // The main resource can change neither the request nor its approval.
    let mut changed = approved.clone();
    changed["status"] = json!({});
    let kept = requests.replace(&changed).await.unwrap();
    assert_eq!(kept["status"]["conditions"][0]["type"], "Approved");
    requests.delete(&name).await.unwrap();
    signed_by_the_cluster(&cluster, &requests).await;
}

/// A client of the API server gets its certificate once it is approved; what the signer does not sign fails.
async fn signed_by_the_cluster(cluster: &Cluster, requests: &Resource) {
    let approve = async |usages: &[&str]| {
        let name = cluster.unique("client");
        let object = json!({
            "metadata": {"name": name},
            "spec": {"request": base64(request("jane").pem().unwrap()), "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": usages, "expirationSeconds": 3600}});
        let created = requests.create(&object).await.unwrap();
        assert!(created["status"]["certificate"].is_null());
        let mut approved = requests.get_sub(&name, "approval").await.unwrap();
        approved["status"] = json!({"conditions": [condition("Approved")]});
        requests.replace_sub("approval", &approved).await.unwrap();
        name
    };
    let name = approve(&["client auth"]).await;
    let certificate = eventually("the certificate", async || {
        let request = requests.get(&name).await.unwrap();
        request["status"]["certificate"].as_str().map(str::to_owned)
    })
    .await;
    let pem = base64::engine::general_purpose::STANDARD.decode(certificate).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=jane");
    assert_eq!(certificate.issuer().to_string(), "CN=kubernetes");
    let lasts = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
    assert_eq!(
        lasts,
        3600 + 300,
        "an hour from now on, and five minutes for slow clocks"
    );
    let name = approve(&["server auth"]).await;
    let failed = eventually("the failure", async || {
        let request = requests.get(&name).await.unwrap();
        let conditions = request["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == "Failed")
    })
    .await;
    assert_eq!(
        (&failed["reason"], &failed["message"]),
        (
            &json!("SignerValidationFailure"),
            &json!("invalid usage for client certificate: server auth")
        )
    );
}

async fn pod_certificates(cluster: Cluster) {
    let spec = json!({
        "signerName": "example.com/tests", "podName": "pod-1", "podUID": "u-1", "nodeName": "node-1", "nodeUID": "u-2",
        "serviceAccountName": "robot", "serviceAccountUID": "u-3", "maxExpirationSeconds": 86400,
        "stubPKCS10Request": base64(request("").der()),
    });
    let denied = json!({
        "type": "Denied", "status": "True", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    namespaced(
        "certificates.k8s.io/v1",
        "podcertificaterequests",
        "PodCertificateRequest",
        json!({"spec": spec}),
    )
    .status(json!({"conditions": [denied]}))
    .run(&cluster)
    .await;
    let namespace = cluster.namespace("certificates").await;
    let requests = cluster.resource("certificates.k8s.io/v1", "podcertificaterequests", Some(&namespace));
    requests
        .create(&json!({"metadata": {"name": "one"}, "spec": spec}))
        .await
        .unwrap();
    refused(
        requests.merge("one", json!({"spec": {"podName": "other"}})).await,
        422,
        "Invalid",
    );
    let mut forged = spec.clone();
    forged["stubPKCS10Request"] = json!(base64("no request"));
    let status = refused(
        requests
            .create(&json!({"metadata": {"name": "two"}, "spec": forged}))
            .await,
        422,
        "Invalid",
    );
    assert!(status.message.contains("spec.stubPKCS10Request"), "{}", status.message);
}

/// Nine ways to say whether a pod gets a token: the pod's word counts, then the account's, else yes.
async fn automount(cluster: Cluster) {
    let namespace = cluster.namespace("automount").await;
    let accounts = cluster.core("serviceaccounts", Some(&namespace));
    let pods = cluster.core("pods", Some(&namespace));
    for account in [None, Some(true), Some(false)] {
        let account_name = cluster.unique("account");
        let mut object = json!({"metadata": {"name": account_name}});
        if let Some(automount) = account {
            object["automountServiceAccountToken"] = json!(automount);
        }
        accounts.create(&object).await.unwrap();
        for of_pod in [None, Some(true), Some(false)] {
            let mut spec = json!({"serviceAccountName": account_name});
            if let Some(automount) = of_pod {
                spec["automountServiceAccountToken"] = json!(automount);
            }
            let created = pods.create(&pod(&cluster.unique("pod"), spec)).await.unwrap();
            let wanted = of_pod.or(account).unwrap_or(true);
            let mounts = created["spec"]["containers"][0]["volumeMounts"].as_array();
            let mounted = mounts.is_some_and(|mounts| {
                mounts
                    .iter()
                    .any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount")
            });
            assert_eq!(mounted, wanted, "account {account:?}, pod {of_pod:?}");
        }
    }
}

async fn token_review(cluster: Cluster) {
    let namespace = cluster.namespace("tokens").await;
    let accounts = cluster.core("serviceaccounts", Some(&namespace));
    let account = accounts.create(&json!({"metadata": {"name": "robot"}})).await.unwrap();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    });
    let answer = accounts.create_sub("robot", "token", &request).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3, "a JWT");
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
    });
    let reviews = cluster.resource("authentication.k8s.io/v1", "tokenreviews", None);
    let status = reviews.create(&review).await.unwrap()["status"].clone();
    assert_eq!(status["authenticated"], true, "{status}");
    let user = &status["user"];
    assert_eq!(user["username"], format!("system:serviceaccount:{namespace}:robot"));
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated"
        ])
    );
    // A token that nobody signed, and the token of an account that is gone.
    let mut forged = review.clone();
    forged["spec"]["token"] = json!(format!("{token}x"));
    assert_ne!(reviews.create(&forged).await.unwrap()["status"]["authenticated"], true);
    accounts.delete("robot").await.unwrap();
    eventually("the token is refused", async || {
        let status = reviews.create(&review).await.unwrap();
        (status["status"]["authenticated"] != true).then_some(())
    })
    .await;
}

async fn root_certificate(cluster: Cluster) {
    let namespace = cluster.namespace("rootca").await;
    let maps = cluster.core("configmaps", Some(&namespace));
    let certificate = |map: &Value| {
        let text = map["data"]["ca.crt"].as_str().unwrap_or_default().to_owned();
        text.starts_with("-----BEGIN CERTIFICATE-----").then_some(text)
    };
    let present = async || {
        let find = async || {
            maps.get("kube-root-ca.crt")
                .await
                .ok()
                .and_then(|map| certificate(&map))
        };
        eventually("kube-root-ca.crt is there", find).await
    };
    let first = present().await;
    maps.delete("kube-root-ca.crt").await.unwrap();
    assert_eq!(present().await, first);
    maps.merge("kube-root-ca.crt", json!({"data": {"ca.crt": ""}}))
        .await
        .unwrap();
    assert_eq!(present().await, first);
}

fn account() -> Subject {
    namespaced("v1", "serviceaccounts", "ServiceAccount", json!({}))
}

async fn service_account(cluster: Cluster) {
    account()
        .change(json!({"automountServiceAccountToken": false}))
        .run(&cluster)
        .await;
}

async fn replace_account(cluster: Cluster) {
    let namespace = cluster.namespace("account").await;
    let accounts = cluster.core("serviceaccounts", Some(&namespace));
    let mut account = accounts
        .create(&json!({"metadata": {"name": "robot"}, "automountServiceAccountToken": false}))
        .await
        .unwrap();
    account["automountServiceAccountToken"] = json!(true);
    let replaced = accounts.replace(&account).await.unwrap();
    assert_eq!(replaced["automountServiceAccountToken"], true);
    assert_eq!(accounts.get("robot").await.unwrap(), replaced);
}

/// What reviews say of an account agrees with what happens to calls in its name.
async fn subject_reviews(cluster: Cluster) {
    let namespace = cluster.namespace("reviews").await;
    let user = format!("system:serviceaccount:{namespace}:robot");
    cluster
        .core("serviceaccounts", Some(&namespace))
        .create(&json!({"metadata": {"name": "robot"}}))
        .await
        .unwrap();
    let ask = async |reviews: &Resource, kind: &str| {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": kind,
            "metadata": if kind == "LocalSubjectAccessReview" { json!({"namespace": namespace}) } else { json!({}) },
            "spec": {
                "user": user,
                "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
                "resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": namespace, "version": "v1"},
            },
        });
        let status = reviews.create(&review).await.unwrap()["status"].clone();
        status["allowed"].as_bool().expect("an answer")
    };
    let call = async || {
        let uri = format!("/api/v1/namespaces/{namespace}/configmaps");
        cluster.send("GET", &uri, &[("impersonate-user", &user)], "").await.code
    };
    let anywhere = cluster.resource("authorization.k8s.io/v1", "subjectaccessreviews", None);
    let local = cluster.resource("authorization.k8s.io/v1", "localsubjectaccessreviews", Some(&namespace));
    assert!(!ask(&anywhere, "SubjectAccessReview").await);
    assert!(!ask(&local, "LocalSubjectAccessReview").await);
    assert_eq!(call().await, 403);
    let own =
        json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": namespace}}});
    let selves = cluster.resource("authorization.k8s.io/v1", "selfsubjectaccessreviews", None);
    assert_eq!(selves.create(&own).await.unwrap()["status"]["allowed"], true);

    let group = "rbac.authorization.k8s.io/v1";
    let binding = json!({
        "metadata": {"name": "robot-reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": namespace}],
    });
    cluster
        .resource(group, "rolebindings", Some(&namespace))
        .create(&binding)
        .await
        .unwrap();
    eventually("the binding counts", async || {
        ask(&anywhere, "SubjectAccessReview").await.then_some(())
    })
    .await;
    assert!(ask(&local, "LocalSubjectAccessReview").await);
    assert_eq!(call().await, 200);
}
