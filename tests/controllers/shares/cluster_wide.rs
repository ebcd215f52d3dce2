//! What belongs to no namespace: aggregated roles, certificates, definitions of kinds, policies.

use super::*;
use base64::Engine;

const ROLES: Kind = ("rbac.authorization.k8s.io/v1", "clusterroles");
const REQUESTS: Kind = ("certificates.k8s.io/v1", "certificatesigningrequests");
const MIGRATIONS: Kind = ("storagemigration.k8s.io/v1", "storageversionmigrations");
const POLICIES: Kind = ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies");
const MIGRATED: [&str; 2] = ["first", "second"];
const WIDGETS: Kind = ("example.com/v1", "widgets");

fn rule(verb: &str) -> Value {
    json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]})
}

fn part(name: &str, verb: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"test/part": "yes"}}, "rules": [rule(verb)]})
}

pub async fn begin(cluster: &Cluster) {
    let whole = json!({"metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": [
        {"matchLabels": {"test/part": "yes"}}]}, "rules": []});
    cluster.create(ROLES, whole).await;
    cluster.create(ROLES, part("part-1", "get")).await;

    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "somebody");
    let request = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(request);
    let request = json!({"metadata": {"name": "somebody"}, "spec": {"request": request,
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}});
    cluster.create(REQUESTS, request).await;

    let widgets = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    cluster.create(DEFINITIONS, widgets).await;
    policy(cluster).await;
}

/// Nothing binds it, so it forbids nothing.
async fn policy(cluster: &Cluster) {
    let secrets = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]});
    let policy = json!({"metadata": {"name": "checked"}, "spec": {
        "matchConstraints": {"resourceRules": [secrets]}, "validations": [{"expression": "true"}]}});
    cluster.create(POLICIES, policy).await;
}

pub async fn change(cluster: &Cluster) {
    cluster.create(ROLES, part("part-2", "list")).await;
    let other = json!({"spec": {"failurePolicy": "Ignore"}});
    cluster.patch(POLICIES, "checked", other).await;
    cluster.patch(ROLES, "part-1", json!({"rules": [rule("watch")]})).await;
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True",
        "reason": "Known", "message": "by the test"}]}});
    cluster
        .patch_subresource(REQUESTS, "somebody", "approval", approved)
        .await;
    // Is served soon.
    let widget = cluster.create(WIDGETS, json!({"metadata": {"name": "one"}})).await;
    for (name, owner) in [
        ("of-widget", &widget),
        ("of-no-widget", &json!({"metadata": {"name": "one", "uid": "no"}})),
    ] {
        let owners = [reference("example.com/v1", "Widget", owner)];
        let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
        cluster.create(CONFIG_MAPS, map).await;
    }
    // Widgets are to be stored in a second version from now on; two migrations have it done.
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let versions = json!({"spec": {"versions": [version("v1", false), version("v2", true)]}});
    cluster.patch(DEFINITIONS, "widgets.example.com", versions).await;
    for name in MIGRATED {
        let migration = json!({"metadata": {"name": name},
            "spec": {"resource": {"group": "example.com", "resource": "widgets"}}});
        cluster.create(MIGRATIONS, migration).await;
    }
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let whole = cluster.get(ROLES, "whole").await;
    wrong.expect(
        "the rules of all parts",
        whole["rules"].clone(),
        json!([rule("watch"), rule("list")]),
    );
    let policy = cluster.get(POLICIES, "checked").await;
    wrong.expect(
        "what of the policy is checked",
        policy["status"]["observedGeneration"].clone(),
        policy["metadata"]["generation"].clone(),
    );
    let request = cluster.get(REQUESTS, "somebody").await;
    let signed = request["status"]["certificate"].is_string();
    wrong.expect("the certificate is there", signed, true);
    let definition = cluster.get(DEFINITIONS, "widgets.example.com").await;
    for kind in ["NamesAccepted", "Established"] {
        wrong.expect(kind, condition(&definition, kind).clone(), "True");
    }
    let mut succeeded = 0;
    for name in MIGRATED {
        let migration = cluster.get(MIGRATIONS, name).await;
        let state = |kind: &str| condition(&migration, kind) == "True";
        // One that meets an error fails, as upstream.
        wrong.expect(
            &format!("ends of migration {name}"),
            usize::from(state("Succeeded")) + usize::from(state("Failed")),
            1,
        );
        wrong.expect(
            &format!("migration {name} runs"),
            condition(&migration, "Running") == "True",
            false,
        );
        succeeded += usize::from(state("Succeeded"));
    }
    wrong.expect(
        "Widgets are being migrated",
        condition(&definition, "StorageMigrating").clone(),
        "False",
    );
    let stored = match succeeded {
        0 => json!(["v1", "v2"]),
        _ => json!(["v2"]),
    };
    wrong.expect(
        "stored versions",
        definition["status"]["storedVersions"].clone(),
        stored,
    );
    let maps = cluster.list(CONFIG_MAPS).await;
    let of_widgets = maps
        .iter()
        .filter(|map| map["metadata"]["ownerReferences"][0]["kind"] == "Widget");
    wrong.expect("what widgets own", names(of_widgets), json!(["of-widget"]));
}

pub async fn end(cluster: &Cluster) {
    for name in ["whole", "part-1", "part-2"] {
        cluster.delete(ROLES, name).await;
    }
    cluster.delete(REQUESTS, "somebody").await;
    cluster.delete(POLICIES, "checked").await;
    for name in MIGRATED {
        cluster.delete(MIGRATIONS, name).await;
    }
}
