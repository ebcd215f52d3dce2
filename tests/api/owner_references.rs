//! Who may give objects owners, where the plug-in that asks is on.

use crate::harness::{Answer, CONFIG_MAPS, Server};
use poem::http::Method;
use serde_json::{Value, json};

const PLUGIN: &str = "OwnerReferencesPermissionEnforcement";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

async fn allow(server: &Server, verbs: &[&str], resources: &[&str]) {
    let name = format!("{}-{}", verbs.join("-"), resources.join("-").replace('/', "-"));
    let role = json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
    });
    server.post(&format!("{RBAC}/roles"), role).await.expect(201);
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    server.post(&format!("{RBAC}/rolebindings"), binding).await.expect(201);
}

async fn jane(server: &Server, method: Method, uri: &str, body: Value) -> Answer {
    server.send_as("jane", &["dev"], method, uri, body.to_string()).await
}

fn owned(name: &str, kind: &str, blocks: bool) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [
        {"apiVersion": "v1", "kind": kind, "name": "owner", "uid": "u", "blockOwnerDeletion": blocks},
    ]}})
}

#[tokio::test]
async fn who_gives_an_owner_must_be_allowed_to_delete() {
    let server = Server::with_admission(&[PLUGIN]).await;
    allow(&server, &["create", "update", "patch", "get"], &["configmaps"]).await;
    let plain = json!({"metadata": {"name": "plain"}});
    jane(&server, Method::POST, CONFIG_MAPS, plain).await.expect(201);
    let refused = jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Secret", false)).await;
    let status = refused.failure(403, "Forbidden");
    let message = "configmaps \"a\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!(status["message"], message);
    // Whoever leaves the owners alone needs no such right.
    server.post(CONFIG_MAPS, owned("b", "Secret", true)).await.expect(201);
    let uri = format!("{CONFIG_MAPS}/b");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    jane(&server, Method::PATCH, &uri, labelled).await.expect(200);
    let disowned = json!({"metadata": {"ownerReferences": null}});
    jane(&server, Method::PATCH, &uri, disowned.clone())
        .await
        .failure(403, "Forbidden");
    allow(&server, &["delete"], &["configmaps"]).await;
    jane(&server, Method::PATCH, &uri, disowned).await.expect(200);
    jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Secret", false))
        .await
        .expect(201);
}

#[tokio::test]
async fn who_blocks_an_owner_must_be_allowed_to_hold_it() {
    let server = Server::with_admission(&[PLUGIN]).await;
    allow(&server, &["create", "delete", "patch", "get"], &["configmaps"]).await;
    let status = jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Secret", true))
        .await
        .failure(403, "Forbidden");
    assert_eq!(
        status["message"],
        "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you \
         can't set finalizers on: , <nil>"
    );
    let status = jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Gadget", true))
        .await
        .failure(403, "Forbidden");
    assert_eq!(
        status["message"],
        "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for \
         APIVersion v1 Kind Gadget: no matches for kind \"Gadget\" in version \"v1\""
    );
    jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Secret", false))
        .await
        .expect(201);
    let uri = format!("{CONFIG_MAPS}/a");
    jane(&server, Method::PATCH, &uri, owned("a", "Secret", true))
        .await
        .failure(403, "Forbidden");
    allow(&server, &["update"], &["secrets/finalizers"]).await;
    jane(&server, Method::PATCH, &uri, owned("a", "Secret", true))
        .await
        .expect(200);
}

#[tokio::test]
async fn it_is_off_by_default() {
    let server = Server::start().await;
    allow(&server, &["create"], &["configmaps"]).await;
    jane(&server, Method::POST, CONFIG_MAPS, owned("a", "Secret", true))
        .await
        .expect(201);
}
