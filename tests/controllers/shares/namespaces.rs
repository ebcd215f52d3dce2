//! Namespaces: one goes with all that is in it; another keeps what every namespace has.

use super::policy::METERED;
use super::*;

const PASSING: &str = "passing";
const ACCOUNTS: Kind = ("v1", "serviceaccounts");
const SECRETS: Kind = ("v1", "secrets");
const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";

pub async fn begin(cluster: &Cluster) {
    cluster.create(NAMESPACES, json!({"metadata": {"name": PASSING}})).await;
    let load = json!({"metadata": {"name": "load", "namespace": PASSING}, "spec": {"replicas": 3,
        "selector": selector("load"), "template": pod("load")}});
    cluster.create(DEPLOYMENTS, load).await;
    cluster
        .create(CONFIG_MAPS, json!({"metadata": {"name": "map", "namespace": PASSING}}))
        .await;
    for account in ["stays", "leaves"] {
        cluster.create(ACCOUNTS, json!({"metadata": {"name": account}})).await;
        let token = json!({"metadata": {"name": format!("token-{account}"),
            "annotations": {"kubernetes.io/service-account.name": account}}, "type": "kubernetes.io/service-account-token"});
        cluster.create(SECRETS, token).await;
    }
}

pub async fn change(cluster: &Cluster) {
    cluster.delete(NAMESPACES, PASSING).await;
    cluster.delete(ACCOUNTS, "leaves").await;
    cluster
        .delete_in(&cluster.within(CONFIG_MAPS, METERED), ROOT_CERTIFICATE)
        .await;
    cluster.delete_in(&cluster.within(ACCOUNTS, METERED), "default").await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    wrong.expect(
        "the namespace that goes",
        cluster.get(NAMESPACES, PASSING).await,
        Value::Null,
    );
    for kind in [DEPLOYMENTS, REPLICA_SETS, PODS, CONFIG_MAPS] {
        let left = cluster.list_in(&cluster.within(kind, PASSING)).await;
        wrong.expect(
            &format!("{} in the namespace that is gone", kind.1),
            names(&left),
            json!([]),
        );
    }
    let certificate = cluster
        .get_in(&cluster.within(CONFIG_MAPS, METERED), ROOT_CERTIFICATE)
        .await;
    wrong.expect("the root certificate", certificate["data"]["ca.crt"].is_string(), true);
    let account = cluster.get_in(&cluster.within(ACCOUNTS, METERED), "default").await;
    wrong.expect(
        "the account of the namespace",
        account["metadata"]["name"].clone(),
        "default",
    );
    let token = cluster.get(SECRETS, "token-stays").await;
    wrong.expect("the token", token["data"]["token"].is_string(), true);
    wrong.expect(
        "the token of nobody",
        cluster.get(SECRETS, "token-leaves").await,
        Value::Null,
    );
}

pub async fn end(cluster: &Cluster) {
    cluster.delete(NAMESPACES, METERED).await;
}
