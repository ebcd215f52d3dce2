//! Extenders: what they are asked, what comes of their answers, and that they are reached.

use super::world::{World, cpu, node, pod, with};
use crate::scheduler::configuration::Configuration;
use crate::scheduler::engine::Action;
use crate::scheduler::extenders::network::{Call, Network, post};
use crate::scheduler::extenders::{Caller, Extenders};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn read(extenders: &Value) -> Result<Configuration, String> {
    Configuration::parse(
        &json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "extenders": extenders})
            .to_string(),
    )
}

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers by the URL's path without the network.
struct Fake<F> {
    answer: F,
    asked: Asked,
}

impl<F: Fn(&str) -> Result<Value, String> + Send + Sync> Caller for Fake<F> {
    fn call(&self, calls: Vec<(&Call, Vec<u8>)>) -> Vec<Result<Bytes, String>> {
        let one = |(call, body): (&Call, Vec<u8>)| {
            let path = call.url.trim_start_matches("http://x/").to_owned();
            let answer = (self.answer)(&path);
            self.asked.lock().push((path, serde_json::from_slice(&body).unwrap()));
            answer.map(|answer| answer.to_string().into())
        };
        calls.into_iter().map(one).collect()
    }
}

fn world(
    extenders: &Value,
    nodes: usize,
    answer: impl Fn(&str) -> Result<Value, String> + Send + Sync + 'static,
) -> (World, Asked) {
    let configuration = read(extenders).unwrap();
    let nodes = (0..nodes).map(|n| node(&format!("n{n}"), json!({})));
    let mut world = World::of(&configuration, nodes);
    let asked = Asked::default();
    let fake = Fake {
        answer,
        asked: asked.clone(),
    };
    world.engine.extenders = Arc::new(Extenders::new(configuration.extenders(), fake));
    (world, asked)
}

fn paths(asked: &Asked) -> Vec<String> {
    asked.lock().drain(..).map(|(path, _)| path).collect()
}

#[test]
fn nodes_are_filtered_by_one_after_the_other() {
    let extenders = json!([
        {"urlPrefix": "http://x/last/", "filterVerb": "f", "ignorable": true},
        {"urlPrefix": "http://x/a", "filterVerb": "f", "nodeCacheCapable": true},
        {"urlPrefix": "http://x/b", "filterVerb": "f"},
    ]);
    let (mut world, asked) = world(&extenders, 3, |path| {
        Ok(match path {
            "a/f" => {
                json!({"NodeNames": ["n0", "n2"], "FailedAndUnresolvableNodes": {"n1": "no way"}, "FailedNodes": {"n1": "busy"}})
            }
            "b/f" => json!({"Nodes": {"items": [{"metadata": {"name": "n2"}}]}, "FailedNodes": {"n0": "no license"}}),
            _ => return Err("down".into()),
        })
    });
    assert_eq!(world.ask(pod("p", json!({}))), "n2");
    let told = asked.lock().clone();
    assert_eq!(
        paths(&asked),
        ["a/f", "b/f", "last/f"],
        "who can be done without comes last"
    );
    assert_eq!(told[0].1["Nodes"], Value::Null);
    assert_eq!(told[0].1["NodeNames"].as_array().map(Vec::len), Some(3));
    assert_eq!(told[0].1["Pod"]["metadata"]["name"], "p");
    let names: Vec<&Value> = told[1].1["Nodes"]["items"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(told[1].1["NodeNames"], Value::Null);
    assert!(names.iter().all(|node| node["status"]["allocatable"]["cpu"] == "4"));
}

#[test]
fn what_extenders_refuse_is_told_and_any_event_is_worth_a_try() {
    let extenders = json!([{"urlPrefix": "http://x", "filterVerb": "f", "nodeCacheCapable": true}]);
    let (mut world, asked) = world(&extenders, 3, |_| {
        Ok(
            json!({"FailedNodes": {"n0": "no license", "n1": "no license"}, "FailedAndUnresolvableNodes": {"n2": "too old"}}),
        )
    });
    assert_eq!(
        world.ask(pod("p", json!({}))),
        "0/3 nodes are available: 1 too old, 2 no license. no new claims to deallocate, preemption: 0/3 nodes are available: \
         1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
    assert_eq!(paths(&asked), ["f"]);
    let later = world.now + std::time::Duration::from_secs(2);
    assert!(world.engine.step(later).is_none());
    world.place(pod("q", json!({})), "n0");
    assert!(
        world.engine.step(later).is_some(),
        "a pod was added, which no plug-in would wait for"
    );
}

#[test]
fn errors_are_told_unless_they_may_be_ignored() {
    for (answer, ignorable, expected) in [
        (Err("down"), false, "down"),
        (Err("down"), true, "n0"),
        (Ok(json!({"Error": "cannot tell"})), false, "cannot tell"),
        (
            Ok(json!({"NodeNames": ["other"]})),
            false,
            "extender \"http://x\" claims a filtered node \"other\" which is not found in the input node list",
        ),
    ] {
        let extenders =
            json!([{"urlPrefix": "http://x", "filterVerb": "f", "nodeCacheCapable": true, "ignorable": ignorable}]);
        let said = answer.clone();
        let (mut world, _) = world(&extenders, 1, move |_| said.clone().map_err(str::to_owned));
        world.put(pod("p", json!({})));
        let actions = world.step();
        assert_eq!(super::world::told(&actions), expected, "{answer:?}");
        if let [Action::Report(report)] = actions.as_slice() {
            assert_eq!(report.reason, "SchedulerError");
        }
    }
}

#[test]
fn scores_count_by_weight() {
    let extenders = json!([
        {"urlPrefix": "http://x/a", "prioritizeVerb": "p", "weight": 1, "nodeCacheCapable": true},
        {"urlPrefix": "http://x/b", "prioritizeVerb": "p", "weight": 1000},
        {"urlPrefix": "http://x/c", "prioritizeVerb": "p", "weight": 100000},
    ]);
    let (mut world, asked) = world(&extenders, 3, |path| {
        Ok(match path {
            "a/p" => json!([{"Host": "n1", "Score": 10}]),
            "b/p" => json!([{"Host": "n2", "Score": 1}, {"Host": "elsewhere", "Score": 10}]),
            _ => return Err("who does not answer has no opinion".into()),
        })
    });
    assert_eq!(world.ask(pod("p", json!({}))), "n2");
    assert_eq!(paths(&asked), ["a/p", "b/p", "c/p"]);
    // A node that is the only one is not scored.
    let only = json!({"nodeSelector": {"kubernetes.io/hostname": "n0"}});
    assert_eq!(world.ask(pod("q", only)), "n0");
    assert_eq!(paths(&asked).len(), 0);
}

#[test]
fn only_pods_that_ask_for_what_it_manages_concern_an_extender() {
    let managed = json!([{"name": "example.com/gpu", "ignoredByScheduler": true}]);
    let extenders =
        json!([{"urlPrefix": "http://x", "filterVerb": "f", "nodeCacheCapable": true, "managedResources": managed}]);
    let (mut world, asked) = world(&extenders, 2, |_| Ok(json!({"NodeNames": ["n1"]})));
    world.ask(pod("p", cpu("1")));
    assert_eq!(paths(&asked).len(), 0);
    let container = |resources: Value| json!({"name": "c", "image": "img", "resources": resources});
    let wants = container(json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}));
    // No node has any: the extender looks after that.
    assert_eq!(world.ask(pod("q", json!({"containers": [wants]}))), "n1");
    let init = json!({"initContainers": [container(json!({"limits": {"example.com/gpu": "1"}}))]});
    assert_eq!(world.ask(pod("r", init)), "n1");
    assert_eq!(paths(&asked).len(), 2);
}

fn victim(name: &str, priority: i32, amount: &str) -> Value {
    pod(name, with(cpu(amount), json!({"priority": priority})))
}

#[test]
fn victims_are_chosen_with_them() {
    let extenders = json!([
        {"urlPrefix": "http://x/a", "preemptVerb": "v", "nodeCacheCapable": true},
        {"urlPrefix": "http://x/b", "preemptVerb": "v"},
    ]);
    let both = |node: &str, uids: &[&str]| {
        let pods: Vec<Value> = uids.iter().map(|uid| json!({"UID": uid})).collect();
        json!({"NodeNameToMetaVictims": {node: {"Pods": pods, "NumPDBViolations": 0}}})
    };
    let ask = |a: Result<Value, String>, b: Result<Value, String>| {
        let (mut world, asked) = world(
            &extenders,
            2,
            move |path| if path == "a/v" { a.clone() } else { b.clone() },
        );
        world.place(victim("v0", 0, "3"), "n0");
        world.place(victim("v1", 1, "3"), "n1");
        world.place(victim("w1", 2, "1"), "n1");
        (world.ask(victim("p", 100, "2")), asked)
    };
    // The scheduler alone would take v0.
    let (told, asked) = ask(Ok(both("n1", &["v1"])), Ok(both("n1", &["w1", "v1"])));
    assert_eq!(
        told,
        "0/2 nodes are available: 2 Insufficient cpu. [v1 w1 make room on n1]"
    );
    let asked = asked.lock();
    assert_eq!(asked[0].1["NodeNameToVictims"], Value::Null);
    assert_eq!(
        asked[0].1["NodeNameToMetaVictims"]["n0"],
        json!({"Pods": [{"UID": "v0"}], "NumPDBViolations": 0})
    );
    assert_eq!(asked[1].1["NodeNameToMetaVictims"], Value::Null);
    assert_eq!(
        asked[1].1["NodeNameToVictims"]["n1"]["Pods"][0]["metadata"]["name"],
        "v1"
    );
    drop(asked);
    for (a, b, expected) in [
        (Err("down".to_owned()), Ok(Value::Null), "preemption: down"),
        (
            Ok(json!({})),
            Ok(Value::Null),
            "no new claims to deallocate, preemption: no candidate node for preemption",
        ),
        (
            Ok(both("n1", &[])),
            Ok(Value::Null),
            "preemption: expected at least one victim pod on node \"n1\"",
        ),
        (
            Ok(both("n9", &["v1"])),
            Ok(Value::Null),
            "preemption: nodeinfo not found for node name \"n9\"",
        ),
        (
            Ok(both("n0", &["v1"])),
            Ok(Value::Null),
            "preemption: extender: http://x/a claims to preempt pod (UID: &{v1}) on node: n0, but the pod is not found on that node",
        ),
    ] {
        let (told, _) = ask(a, b);
        assert_eq!(told, format!("0/2 nodes are available: 2 Insufficient cpu. {expected}"));
    }
}

/// Its own resources are short: the scheduler knows of no victims there, but the extender does.
#[test]
fn an_extender_may_find_victims_where_there_seem_to_be_none() {
    let extenders = json!([{"urlPrefix": "http://x", "filterVerb": "f", "preemptVerb": "v", "nodeCacheCapable": true}]);
    let (mut world, _) = world(&extenders, 1, |path| {
        Ok(match path {
            "f" => json!({"FailedNodes": {"n0": "no license"}}),
            _ => json!({"NodeNameToMetaVictims": {"n0": {"Pods": [{"UID": "v"}]}}}),
        })
    });
    world.place(victim("v", 0, "1"), "n0");
    assert_eq!(
        world.ask(victim("p", 100, "1")),
        "0/1 nodes are available: 1 no license. [v make room on n0]"
    );
}

#[test]
fn what_is_configured_wrongly_is_told_in_upstreams_words() {
    for (extenders, expected) in [
        (
            json!([{"urlPrefix": "http://x", "prioritizeVerb": "p"}]),
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            json!([{"urlPrefix": "http://x", "bindVerb": "b"}, {"urlPrefix": "http://y", "bindVerb": "b"}]),
            "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
        ),
        (
            json!([{"urlPrefix": "http://x", "managedResources": [{"name": "cpu"}]}]),
            "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended resource name",
        ),
        (
            json!([{"managedResources": [{"name": "a.b/c"}]}, {"managedResources": [{"name": "a.b/c"}]}]),
            "extenders[1].managedResources[0].name: Invalid value: \"a.b/c\": duplicate extender managed resource name",
        ),
        (
            json!([{"urlPrefix": "ftp://x", "filterVerb": "f"}]),
            "extenders[0].urlPrefix: Post \"ftp://x/f\": unsupported protocol scheme \"ftp\"",
        ),
        (
            json!([{"urlPrefix": "https://x", "tlsConfig": {"insecure": true, "caData": "eA=="}}]),
            "extenders[0].tlsConfig: specifying a root certificates file with the insecure flag is not allowed",
        ),
        (json!([{"urlprefix": "x"}]), "unknown field `urlprefix`"),
        (json!([{"httpTimeout": "soon"}]), "extenders[0].httpTimeout: "),
    ] {
        let error = read(&extenders).expect_err(&extenders.to_string());
        assert!(error.contains(expected), "{extenders}: {error}");
    }
    assert!(read(&json!([{"urlPrefix": "http://x/", "filterVerb": "f", "httpTimeout": "1m30s"}])).is_ok());
}

/// A real server: over TLS if it has a certificate.
async fn serve(tls: Option<tokio_rustls::TlsAcceptor>) -> u16 {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let is_json = request.headers()["content-type"] == "application/json";
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let answer = match path.as_str() {
            "/v1/filter" => json!({"nodenames": body["NodeNames"], "failedNodes": {}}),
            "/v1/prioritize" => json!([{"Host": "n1", "Score": 10}]),
            "/v1/bind" if is_json && body["PodUID"] == "p" => json!({"Error": ""}),
            "/v1/bind" => json!({"Error": format!("{} stays", body["PodName"].as_str().unwrap())}),
            "/v1/slow" => std::future::pending().await,
            _ => return Ok(Response::builder().status(500).body(Full::default()).unwrap()),
        };
        Ok(Response::new(Full::new(answer.to_string().into())))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // Who does not believe the certificate goes away.
                match tls {
                    None => drop(http.serve_connection(TokioIo::new(io), service_fn(answer)).await),
                    Some(tls) => {
                        if let Ok(io) = tls.accept(io).await {
                            drop(http.serve_connection(TokioIo::new(io), service_fn(answer)).await);
                        }
                    }
                }
            });
        }
    });
    port
}

fn reached(configuration: &Configuration) -> World {
    let nodes = (0..2).map(|n| node(&format!("n{n}"), json!({})));
    let mut world = World::of(configuration, nodes);
    let network = Network {
        shutdown: CancellationToken::new(),
    };
    world.engine.extenders = Arc::new(Extenders::new(configuration.extenders(), network));
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_called_over_http() {
    let port = serve(None).await;
    let url = format!("http://127.0.0.1:{port}/v1/");
    let all = json!([{"urlPrefix": url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 100, "bindVerb": "bind",
        "nodeCacheCapable": true}]);
    let mut world = reached(&read(&all).unwrap());
    let mut decide = |name: &str| {
        world.put(pod(name, json!({})));
        let actions = world.step();
        let [Action::Bind { pod, node, .. }] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        (pod.clone(), node.clone())
    };
    let (first, node) = decide("p");
    assert_eq!(node, "n1");
    let (second, _) = decide("q");
    let extenders = world.engine.extenders.clone();
    assert_eq!(extenders.bind(&first, "n1").await, Some(Ok(())));
    assert_eq!(extenders.bind(&second, "n1").await, Some(Err("q stays".into())));
    for (verb, expected) in [
        (
            "broken",
            format!("failed broken with extender at URL {url}broken, code 500"),
        ),
        (
            "slow",
            format!("Post \"{url}slow\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        ),
    ] {
        let broken = json!([{"urlPrefix": url, "filterVerb": verb, "httpTimeout": "300ms"}]);
        assert_eq!(reached(&read(&broken).unwrap()).ask(pod("p", json!({}))), expected);
    }
    assert!(Extenders::default().bind(&first, "n1").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_called_over_tls() {
    use base64::Engine as _;
    use rustls::pki_types::PrivateKeyDer;
    let made = rcgen::generate_simple_self_signed(["extender.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let port = serve(Some(tokio_rustls::TlsAcceptor::from(Arc::new(server)))).await;
    let pem = base64::engine::general_purpose::STANDARD.encode(made.cert.pem());
    for (extra, expected) in [
        (json!({"enableHTTPS": true}), Ok(())),
        (json!({"tlsConfig": {"insecure": true}}), Ok(())),
        (
            json!({"enableHTTPS": true, "tlsConfig": {"caData": pem, "serverName": "extender.example"}}),
            Ok(()),
        ),
        (
            json!({"tlsConfig": {"caData": pem}}),
            Err("not valid for any names, but wanted to match 127.0.0.1"),
        ),
        (json!({}), Err("certificate signed by unknown authority")),
    ] {
        let base = json!({"urlPrefix": format!("https://127.0.0.1:{port}/v1"), "filterVerb": "filter", "nodeCacheCapable": true});
        let configuration = read(&json!([with(base, extra.clone())])).unwrap();
        let call = configuration.extenders()[0].filter.clone().unwrap();
        match (post(&call, b"{}".to_vec()).await, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{extra}: {error}"),
            (answer, _) => panic!("{extra}: {answer:?}"),
        }
    }
}
