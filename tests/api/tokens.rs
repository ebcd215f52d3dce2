//! Tokens of service accounts: asked for, used, bound, looked at, and refused when what they name is gone.

use crate::harness::{Answer, CONFIG_MAPS, PODS, Server, pod};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use krust::apiserver::authentication::service_accounts::{Claims, ObjectClaims, Reference};
use krust::transport::Peer;
use poem::http::Method;
use poem::{Endpoint, Request};
use serde_json::{Value, json};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn account(server: &Server, name: &str) -> Value {
    server
        .post(ACCOUNTS, json!({"metadata": {"name": name}}))
        .await
        .expect(201)
}

async fn request(server: &Server, account: &str, spec: Value) -> Answer {
    server
        .post(&format!("{ACCOUNTS}/{account}/token"), json!({"spec": spec}))
        .await
}

async fn issued(server: &Server, account: &str, spec: Value) -> String {
    let answer = request(server, account, spec).await.expect(201);
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The code of a request that shows the token over the network.
async fn code(server: &Server, token: &str, uri: &str) -> u16 {
    let request = Request::builder()
        .method(Method::GET)
        .uri(uri.parse().unwrap())
        .header("authorization", format!("Bearer {token}"))
        .extension(Peer::Anonymous)
        .finish();
    let response = server.endpoint().get_response(request).await;
    response.status().as_u16()
}

#[tokio::test]
async fn a_token_is_its_account_with_what_that_may_do() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let made = account(&server, "robot").await;
    let answer = request(&server, "robot", json!({})).await.expect(201);
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["metadata"]["name"], "robot");
    assert_eq!(answer["metadata"]["namespace"], "default");
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    let token = answer["status"]["token"].as_str().unwrap();
    let held = claims(token);
    assert_eq!(held["sub"], "system:serviceaccount:default:robot");
    assert_eq!((&held["iss"], &held["aud"]), (&json!(ISSUER), &json!([ISSUER])));
    assert_eq!(held["exp"].as_i64().unwrap() - held["iat"].as_i64().unwrap(), 3600);
    assert_eq!(
        held["kubernetes.io"],
        json!({"namespace": "default", "serviceaccount": {"name": "robot", "uid": made["metadata"]["uid"]}})
    );
    assert_eq!(code(&server, token, "/api").await, 200);
    assert_eq!(code(&server, token, CONFIG_MAPS).await, 403);
    let bound = json!({
        "metadata": {"name": "view"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]});
    server
        .post(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            bound,
        )
        .await
        .expect(201);
    assert_eq!(code(&server, token, CONFIG_MAPS).await, 200);
    assert_eq!(code(&server, "nonsense", "/api").await, 401);
    server.delete(&format!("{ACCOUNTS}/robot")).await.expect(200);
    assert_eq!(code(&server, token, "/api").await, 401);
    account(&server, "robot").await;
    assert_eq!(
        code(&server, token, "/api").await,
        401,
        "the name came back, the account did not"
    );
}

#[tokio::test]
async fn a_bound_token_goes_with_what_it_is_bound_to() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    account(&server, "robot").await;
    let mut web = pod("web");
    web["spec"]["serviceAccountName"] = json!("robot");
    web["spec"]["nodeName"] = json!("n1");
    let web = server.post(PODS, web).await.expect(201);
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": web["metadata"]["uid"]});
    let token = issued(&server, "robot", json!({"boundObjectRef": reference})).await;
    assert_eq!(claims(&token)["kubernetes.io"]["pod"]["name"], "web");
    assert_eq!(claims(&token)["kubernetes.io"]["node"]["name"], "n1");
    assert_eq!(code(&server, &token, "/api").await, 200);
    let review = json!({"spec": {"token": token}});
    let review = server.post(REVIEWS, review).await.expect(201);
    assert_eq!(
        review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["web"])
    );
    server
        .delete_with(&format!("{PODS}/web"), json!({"gracePeriodSeconds": 0}))
        .await
        .expect(200);
    assert_eq!(code(&server, &token, "/api").await, 401);
    let review = server
        .post(REVIEWS, json!({"spec": {"token": token}}))
        .await
        .expect(201);
    assert_eq!(
        review["status"],
        json!({"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"})
    );
}

/// Signed by the server's own key, with what the clock of whoever asked for it makes of it.
fn signed(server: &Server, account: &Value, change: impl FnOnce(&mut Claims, i64)) -> String {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = Claims {
        aud: vec![ISSUER.to_owned()],
        exp: Some(now + 3600),
        nbf: Some(now),
        iat: Some(now),
        sub: "system:serviceaccount:default:robot".to_owned(),
        objects: ObjectClaims {
            namespace: "default".to_owned(),
            serviceaccount: reference(account),
            ..ObjectClaims::default()
        },
        ..Claims::default()
    };
    change(&mut claims, now);
    server.api.authenticator.tokens().issue(claims).unwrap()
}

fn reference(object: &Value) -> Reference {
    let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    Reference {
        name: text("name"),
        uid: text("uid"),
    }
}

async fn reviewed(server: &Server, token: &str) -> Value {
    let review = json!({"spec": {"token": token}});
    server.post(REVIEWS, review).await.expect(201)["status"].clone()
}

/// What a test does to the claims of a token, by the time in seconds.
type Change = fn(&mut Claims, i64);

#[tokio::test]
async fn a_token_holds_for_its_time_only() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    let robot = account(&server, "robot").await;
    let holds = signed(&server, &robot, |claims, now| claims.exp = Some(now - 30));
    assert_eq!(code(&server, &holds, "/api").await, 200, "clocks differ by a minute");
    assert_eq!(reviewed(&server, &holds).await["authenticated"], true);
    let rows: [(Change, &str); 3] = [
        (
            |claims, now| claims.exp = Some(now - 61),
            "service account token has expired",
        ),
        (
            |claims, now| claims.nbf = Some(now + 600),
            "service account token is not valid yet",
        ),
        (
            |claims, now| claims.iat = Some(now + 600),
            "service account token is issued in the future",
        ),
    ];
    for (change, why) in rows {
        let token = signed(&server, &robot, change);
        assert_eq!(code(&server, &token, "/api").await, 401, "{why}");
        assert_eq!(
            reviewed(&server, &token).await,
            json!({"user": {}, "error": format!("[invalid bearer token, {why}]")})
        );
    }
}

#[tokio::test]
async fn a_token_goes_with_the_node_or_the_secret_that_it_is_bound_to() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    account(&server, "robot").await;
    let node = json!({"metadata": {"name": "n1"}});
    let secret = json!({"metadata": {"name": "s"}});
    for (kind, uri, body) in [
        ("Node", "/api/v1/nodes", node),
        ("Secret", "/api/v1/namespaces/default/secrets", secret),
    ] {
        let bound = server.post(uri, body.clone()).await.expect(201);
        let Reference { name, uid } = reference(&bound);
        let spec = json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}});
        let token = issued(&server, "robot", spec).await;
        assert_eq!(code(&server, &token, "/api").await, 200, "{kind}");
        server.delete(&format!("{uri}/{name}")).await.expect(200);
        assert_eq!(code(&server, &token, "/api").await, 401, "{kind}");
        let gone = json!({"user": {}, "error": "[invalid bearer token, service account token has been invalidated]"});
        assert_eq!(reviewed(&server, &token).await, gone, "{kind}");
        // Another one of the name is another one.
        let other = server.post(uri, body).await.expect(201);
        let other = reference(&other).uid;
        let lower = kind.to_lowercase();
        let why = format!("{lower} UID ({other}) does not match service account {lower} ref claim ({uid})");
        assert_eq!(
            reviewed(&server, &token).await["error"],
            format!("[invalid bearer token, {why}]")
        );
    }
}

#[tokio::test]
async fn requests_are_checked_in_upstreams_words() {
    let server = Server::start().await;
    account(&server, "robot").await;
    server.post(PODS, pod("other")).await.expect(201);
    let rows = [
        (
            json!({"expirationSeconds": 599}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"expirationSeconds": 4_294_967_297_i64}),
            422,
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (
            json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "lost"}}),
            404,
            "pods \"lost\" not found",
        ),
        (
            json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}),
            400,
            "cannot bind token to object of type /v1, Kind=ConfigMap",
        ),
        (
            json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other"}}),
            400,
            "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.",
        ),
    ];
    for (spec, code, message) in rows {
        let answer = request(&server, "robot", spec).await.expect(code);
        assert_eq!(answer["message"], message);
    }
    let secret = json!({"metadata": {"name": "s"}});
    server
        .post("/api/v1/namespaces/default/secrets", secret)
        .await
        .expect(201);
    let stale = json!({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "stale"}});
    request(&server, "robot", stale).await.failure(409, "Conflict");
    request(&server, "nobody", json!({})).await.failure(404, "NotFound");
}

#[tokio::test]
async fn the_default_of_projected_volumes_holds_for_a_year() {
    let server = Server::start().await;
    account(&server, "robot").await;
    let mut web = pod("web");
    web["spec"]["serviceAccountName"] = json!("robot");
    server.post(PODS, web).await.expect(201);
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": "web"});
    let token = issued(
        &server,
        "robot",
        json!({"expirationSeconds": 3607, "boundObjectRef": reference}),
    )
    .await;
    let held = claims(&token);
    let lasts = |field: &Value| field.as_i64().unwrap() - held["iat"].as_i64().unwrap();
    assert_eq!(lasts(&held["exp"]), 31_536_000);
    assert_eq!(lasts(&held["kubernetes.io"]["warnafter"]), 3607);
}

#[tokio::test]
async fn audiences_are_kept_apart() {
    let server = Server::start().await;
    account(&server, "robot").await;
    let token = issued(&server, "robot", json!({"audiences": ["vault"]})).await;
    assert_eq!(code(&server, &token, "/api").await, 401);
    let review = |audiences: Value| json!({"spec": {"token": token, "audiences": audiences}});
    let status = server.post(REVIEWS, review(json!(["vault", "x"]))).await.expect(201)["status"].clone();
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        status["user"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    let status = server.post(REVIEWS, review(json!([]))).await.expect(201)["status"].clone();
    assert_eq!(status["user"], json!({}));
    assert!(
        status.get("authenticated").is_none() && status["error"].is_string(),
        "{status}"
    );
    server
        .post(REVIEWS, json!({"spec": {}}))
        .await
        .failure(400, "BadRequest");
}

#[tokio::test]
async fn others_can_check_tokens_by_the_published_key() {
    let server = Server::start().await;
    server.api.bootstrap().await.unwrap();
    account(&server, "robot").await;
    let token = issued(&server, "robot", json!({})).await;
    let answer = server.get("/.well-known/openid-configuration").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=3600");
    assert_eq!(answer.header("content-type"), "application/json");
    let configuration = answer.expect(200);
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let answer = server.get("/openid/v1/jwks").await;
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    let key = answer.expect(200)["keys"][0].clone();
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!((&header["kid"], &header["alg"]), (&key["kid"], &json!("ES256")));
    assert_eq!(
        code(&server, &token, "/openid/v1/jwks").await,
        200,
        "service accounts may look"
    );
    let nobody = server.send_as(
        "system:anonymous",
        &["system:unauthenticated"],
        Method::GET,
        "/openid/v1/jwks",
        (),
    );
    assert_eq!(nobody.await.status, 403);
}
