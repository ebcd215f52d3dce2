//! What only reads: get in every form, describe, explain, discovery, events, access, the client's own configuration.

use super::{Session, each};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: registry.example/web:1
    ports: [{containerPort: 80}]
    env: [{name: COLOUR, value: red}]
";

fn squeezed(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn get_in_every_form() {
    each(|s| {
        s.prints_with(POD, "create -f -", "pod/web created");
        s.prints("create cm settings --from-literal=a=1", "configmap/settings created");
        let table = squeezed(&s.out("get pod web"));
        assert_eq!(table[0], "NAME READY STATUS RESTARTS AGE");
        assert!(table[1].starts_with("web 0/1 Pending 0 "), "{table:?}");
        let wide = squeezed(&s.out("get pod web -o wide"));
        assert_eq!(
            wide[0],
            "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
        );
        assert!(wide[1].ends_with("<none> <none> <none> <none>"), "{wide:?}");
        let labels = squeezed(&s.out("get pod web --show-labels"));
        assert!(labels[1].ends_with(" app=web"), "{labels:?}");
        let column = squeezed(&s.out("get pod web -L app"));
        assert!(
            column[0].ends_with(" AGE APP") && column[1].ends_with(" web"),
            "{column:?}"
        );
        let everywhere = squeezed(&s.out("get pods -A -l app=web"));
        assert!(everywhere[0].starts_with("NAMESPACE NAME READY"), "{everywhere:?}");
        assert!(
            everywhere
                .iter()
                .any(|line| line.starts_with(&format!("{} web 0/1 Pending", s.namespace)))
        );
        let several = squeezed(&s.out("get pod/web cm/settings --no-headers"));
        assert!(
            several[0].starts_with("pod/web 0/1") && several[1].starts_with("configmap/settings 1 "),
            "{several:?}"
        );
        s.prints(
            "get pods,cm -o name --field-selector=metadata.name=settings",
            "configmap/settings",
        );
        s.prints(
            "get pods --field-selector=status.phase=Pending,spec.nodeName= -o name",
            "pod/web",
        );
        s.prints("get cm settings -o 'go-template={{.data.a}}'", "1");
        let chosen = squeezed(&s.out("get pods -o custom-columns=N:.metadata.name,I:.spec.containers[*].image"));
        assert_eq!(chosen, ["N I", "web registry.example/web:1"]);
        let yaml = s.out("get cm settings -o yaml");
        assert!(
            yaml.starts_with("apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\nmetadata:\n  creationTimestamp: \""),
            "{yaml}"
        );
        let json: serde_json::Value = serde_json::from_str(&s.out("get cm settings -o json")).expect("JSON");
        assert_eq!((&json["kind"], &json["data"]["a"]), (&"ConfigMap".into(), &"1".into()));
        let list: serde_json::Value = serde_json::from_str(&s.out("get cm,pods -o json")).expect("JSON");
        assert_eq!(list["kind"], "List");
        // Times of creation have whole seconds.
        std::thread::sleep(std::time::Duration::from_millis(1_001));
        s.prints("create cm another", "configmap/another created");
        // The certificate that a controller puts into the namespace may be made before or between them.
        let sorted = s.out("get cm --sort-by=.metadata.creationTimestamp -o name");
        let ours: Vec<&str> = sorted
            .lines()
            .filter(|line| !line.ends_with("kube-root-ca.crt"))
            .collect();
        assert_eq!(ours, ["configmap/settings", "configmap/another"]);
        s.prints("get cm --chunk-size=1 -l no=such", "");
        s.fails(
            "get cm nope",
            r#"Error from server (NotFound): configmaps "nope" not found"#,
        );
        s.fails("get nope", r#"error: the server doesn't have a resource type "nope""#);
        s.prints("get po,configmaps.v1. -o name -l app=web", "pod/web");
        let raw = s.out(&format!(
            "get --raw /api/v1/namespaces/{}/configmaps/settings",
            s.namespace
        ));
        assert!(raw.contains(r#""data":{"a":"1"}"#), "{raw}");
        let status = s.out("get pod web --subresource=status -o 'jsonpath={.status.phase}'");
        assert_eq!(status, "Pending");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn describe() {
    each(|s| {
        s.prints_with(POD, "create -f -", "pod/web created");
        s.prints(
            "create cm settings --from-literal=colour=red",
            "configmap/settings created",
        );
        s.prints(
            "create secret generic word --from-literal=p=four",
            "secret/word created",
        );
        let map = s.out("describe cm settings");
        for part in [
            &format!(
                "Name:         settings\nNamespace:    {}\nLabels:       <none>\nAnnotations:  <none>\n",
                s.namespace
            ),
            "\nData\n====\ncolour:\n----\nred\n",
        ] {
            assert!(map.contains(part), "{part:?} is missing in {map}");
        }
        let secret = s.out("describe secret word");
        assert!(
            secret.contains("Type:  Opaque") && secret.contains("p:  4 bytes") && !secret.contains("four"),
            "{secret}"
        );
        let pod = squeezed(&s.out("describe pod web"));
        for line in [
            "Name: web",
            "Labels: app=web",
            "Status: Pending",
            "Image: registry.example/web:1",
            "Port: 80/TCP",
            "COLOUR: red",
            "QoS Class: BestEffort",
        ] {
            assert!(pod.iter().any(|l| l == line), "{line} is missing in {pod:#?}");
        }
        let namespace = squeezed(&s.out(&format!("describe namespace {}", s.namespace)));
        assert!(namespace.contains(&"Status: Active".to_owned()), "{namespace:?}");
        s.out("create deployment d --image=registry.example/d:1 --replicas=3");
        s.out("wait deployment/d --for=jsonpath='{.status.unavailableReplicas}'=3 --timeout=20s");
        let deployment = squeezed(&s.out("describe deployment d"));
        for line in [
            "Selector: app=d",
            "Replicas: 3 desired | 3 updated | 3 total | 0 available | 3 unavailable",
            "StrategyType: RollingUpdate",
            "RollingUpdateStrategy: 25% max unavailable, 25% max surge",
        ] {
            assert!(
                deployment.iter().any(|l| l == line),
                "{line} is missing in {deployment:#?}"
            );
        }
        s.out("create service clusterip front --tcp=80:8080");
        let service = squeezed(&s.out("describe service front"));
        for line in [
            "Selector: app=front",
            "Type: ClusterIP",
            "Port: 80-8080 80/TCP",
            "TargetPort: 8080/TCP",
        ] {
            assert!(service.iter().any(|l| l == line), "{line} is missing in {service:#?}");
        }
        s.out("create role reader --verb=get --resource=pods");
        let role = squeezed(&s.out("describe role reader"));
        assert!(role.contains(&"pods [] [] [get]".to_owned()), "{role:?}");
        s.out("create cronjob often --image=x --schedule='*/5 * * * *'");
        let job = squeezed(&s.out("describe cronjob often"));
        assert!(job.contains(&"Schedule: */5 * * * *".to_owned()), "{job:?}");
        s.out("create ingress i --rule=foo.com/bar=svc:8080");
        let ingress = squeezed(&s.out("describe ingress i"));
        assert!(
            ingress.iter().any(|line| line.starts_with("/bar svc:8080")),
            "{ingress:?}"
        );
        s.fails(
            "describe pod none",
            r#"Error from server (NotFound): pods "none" not found"#,
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn discovery() {
    each(|s| {
        let apps = squeezed(&s.out("api-resources --api-group=apps"));
        assert_eq!(
            apps,
            [
                "NAME SHORTNAMES APIVERSION NAMESPACED KIND",
                "controllerrevisions apps/v1 true ControllerRevision",
                "daemonsets ds apps/v1 true DaemonSet",
                "deployments deploy apps/v1 true Deployment",
                "replicasets rs apps/v1 true ReplicaSet",
                "statefulsets sts apps/v1 true StatefulSet",
            ]
        );
        let all = s.out("api-resources --categories=all -o name");
        for name in [
            "pods",
            "deployments.apps",
            "cronjobs.batch",
            "horizontalpodautoscalers.autoscaling",
        ] {
            assert!(all.lines().any(|line| line == name), "{name}: {all}");
        }
        let listable = s.out("api-resources --verbs=list,deletecollection --namespaced=false -o name");
        assert!(
            listable.lines().any(|line| line == "nodes") && !listable.contains("namespaces"),
            "{listable}"
        );
        let versions = s.out("api-versions");
        assert!(versions.lines().is_sorted(), "{versions}");
        for version in ["v1", "apps/v1", "autoscaling/v2", "events.k8s.io/v1"] {
            assert!(versions.lines().any(|line| line == version), "{version}: {versions}");
        }
        let explained = s.out("explain pods.spec.containers.ports.protocol");
        assert!(explained.contains("FIELD: protocol <string>"), "{explained}");
        let version = s.out("explain hpa --api-version=autoscaling/v2");
        assert!(
            version.contains("GROUP:      autoscaling") && version.contains("VERSION:    v2"),
            "{version}"
        );
        s.fails("explain pods.nope", r#"error: field "nope" does not exist"#);
        let open = s.out("get --raw /openapi/v3");
        assert!(open.contains("apis/apps/v1"), "{open}");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn events() {
    each(|s| {
        s.prints_with(POD, "create -f -", "pod/web created");
        let event = format!(
            "
apiVersion: v1
kind: Event
metadata: {{name: web.1}}
involvedObject: {{apiVersion: v1, kind: Pod, namespace: {n}, name: web, uid: {uid}}}
reason: Pulled
message: it was pulled
type: Normal
count: 3
firstTimestamp: '2026-01-02T03:04:05Z'
lastTimestamp: '2026-01-02T03:04:05Z'
source: {{component: tests}}
",
            n = s.namespace,
            uid = s.at("pod/web", ".metadata.uid")
        );
        s.prints_with(&event, "create -f -", "event/web.1 created");
        let rows = squeezed(&s.out("events --for=pod/web --types=Normal"));
        assert_eq!(rows[0], "LAST SEEN TYPE REASON OBJECT MESSAGE");
        assert!(rows[1].contains("Normal Pulled Pod/web it was pulled"), "{rows:?}");
        let rows = squeezed(&s.out("get events --field-selector=reason=Pulled"));
        assert!(rows[1].ends_with("Normal Pulled pod/web it was pulled"), "{rows:?}");
        let described = squeezed(&s.out("describe pod web"));
        assert!(
            described
                .iter()
                .any(|line| line.starts_with("Normal Pulled") && line.ends_with("tests it was pulled")),
            "{described:#?}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn access() {
    each(|s| {
        s.prints("auth can-i create pods", "yes");
        s.prints("auth can-i '*' '*' -A", "yes");
        let refused = s.run("auth can-i create pods --as=nobody", "");
        assert_eq!(
            (refused.code, refused.stdout.trim_end()),
            (Some(1), "no"),
            "{refused:?}"
        );
        // From 1.28 on they know the version of it that is stable.
        if s.minor >= 28 {
            let who = squeezed(&s.out("auth whoami"));
            assert_eq!(who[0], "ATTRIBUTE VALUE");
            assert_eq!(who[1], "Username kubernetes-admin");
            assert!(who[2].contains("system:authenticated"), "{who:?}");
        }
        let refused = s.run("get pods --as=nobody", "");
        assert_eq!(
            refused.stderr.trim_end(),
            format!(
                r#"Error from server (Forbidden): pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "{}""#,
                s.namespace
            )
        );
    });
}

/// A configuration of the client's own, made by its own commands, that reaches the server.
#[test]
#[ignore = "needs the kubectl binaries"]
fn config() {
    each(|s| {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("config");
        let own = |command: &str| {
            let words = super::words(command);
            let mut all = vec!["--kubeconfig", file.to_str().expect("a path")];
            all.extend(words.iter().map(String::as_str));
            s.kubectl.ok(&all).trim_end().to_owned()
        };
        let view = s.out("config view --raw -o json");
        let view: serde_json::Value = serde_json::from_str(&view).expect("JSON");
        let text = |path: &str| view.pointer(path).and_then(|v| v.as_str()).expect("text").to_owned();
        let pem = |name: &str, path: &str| {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text(path))
                .expect("base64");
            let file = directory.path().join(name);
            std::fs::write(&file, bytes).expect("a file");
            file.to_str().expect("a path").to_owned()
        };
        let authority = pem("ca", "/clusters/0/cluster/certificate-authority-data");
        let certificate = pem("cert", "/users/0/user/client-certificate-data");
        let key = pem("key", "/users/0/user/client-key-data");
        let server = text("/clusters/0/cluster/server");
        assert_eq!(
            own(&format!(
                "config set-cluster there --server={server} --certificate-authority={authority} --embed-certs"
            )),
            r#"Cluster "there" set."#
        );
        assert_eq!(
            own(&format!(
                "config set-credentials me --client-certificate={certificate} --client-key={key}"
            )),
            r#"User "me" set."#
        );
        let namespace = &s.namespace;
        assert_eq!(
            own(&format!(
                "config set-context here --cluster=there --user=me --namespace={namespace}"
            )),
            r#"Context "here" created."#
        );
        assert_eq!(own("config use-context here"), r#"Switched to context "here"."#);
        assert_eq!(own("config current-context"), "here");
        assert_eq!(own("create configmap mine"), "configmap/mine created");
        assert_eq!(
            own("get configmap mine -o 'jsonpath={.metadata.namespace}'"),
            *namespace
        );
        assert_eq!(own("config delete-context here").split(' ').next(), Some("deleted"));
    });
}

/// A watch prints what happens.
#[test]
#[ignore = "needs the kubectl binaries"]
fn watch() {
    each(watch_with);
}

fn watch_with(s: &Session) {
    use std::io::{BufRead, BufReader};
    let arguments = [
        "-n",
        &s.namespace,
        "get",
        "cm",
        "-w",
        "--output-watch-events",
        "-l",
        "w=1",
        "--no-headers",
    ];
    let mut command = s.kubectl.command(&arguments);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: watched, labels: {w: '1'}}\n";
    s.prints_with(manifest, "create -f -", "configmap/watched created");
    s.out("label cm watched more=yes");
    s.out("label cm watched w=2 --overwrite");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let line = lines.next().expect("a line").expect("it is text");
        seen.push(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    }
    child.kill().expect("the watch ends");
    child.wait().expect("the watch's end");
    assert_eq!(seen, ["ADDED watched", "MODIFIED watched", "DELETED watched"]);
}
