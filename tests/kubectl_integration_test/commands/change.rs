//! What changes an object that is there: patch, label, annotate, scale, set, autoscale, rollout, taint, cordon, wait.

use super::create::deleted;
use super::{Session, each};

/// A deployment with two containers.
pub(super) const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: 'registry.example/web:1'}
      - {name: side, image: 'registry.example/side:1'}
";

fn deploy(s: &Session) {
    s.prints_with(DEPLOYMENT, "create -f -", "deployment.apps/web created");
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn patches() {
    each(|s| {
        deploy(s);
        s.prints(
            r#"patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"registry.example/web:2"}]}}}}'"#,
            "deployment.apps/web patched",
        );
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.containers[*].image"),
            "registry.example/web:2 registry.example/side:1"
        );
        s.prints(
            r#"patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"registry.example/web:2"}]}}}}'"#,
            "deployment.apps/web patched (no change)",
        );
        s.prints(
            r#"patch deployment web --type=merge -p '{"spec":{"template":{"spec":{"containers":[{"name":"only","image":"a"}]}}}}'"#,
            "deployment.apps/web patched",
        );
        assert_eq!(s.at("deployment/web", ".spec.template.spec.containers[*].name"), "only");
        s.prints(
            r#"patch deployment web --type=json -p '[{"op":"replace","path":"/spec/replicas","value":7}]'"#,
            "deployment.apps/web patched",
        );
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "7");
        let dry = s.out(
            r#"patch deployment web --type=json -p '[{"op":"replace","path":"/spec/replicas","value":8}]' --dry-run=server"#,
        );
        // Older ones do not say that it was dry.
        assert!(dry.starts_with("deployment.apps/web patched"), "{dry}");
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "7");
        let refused = s.run(r#"patch deployment web -p '{"spec":{"replicas":-1}}'"#, "");
        assert_eq!(
            refused.stderr.trim_end(),
            r#"The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#
        );
        let refused = s.run(
            r#"patch deployment web -p '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'"#,
            "",
        );
        assert!(
            refused.stderr.contains("spec.selector: Invalid value: ") && refused.stderr.contains("field is immutable"),
            "{refused:?}"
        );
        // A status that no controller here writes, too.
        s.out("create ingress web --rule=web.example/=web:80");
        s.prints(
            r#"patch ingress web --subresource=status --type=merge -p '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.9"}]}},"spec":{"rules":[]}}'"#,
            "ingress.networking.k8s.io/web patched",
        );
        assert_eq!(s.at("ingress/web", ".status.loadBalancer.ingress[*].ip"), "192.0.2.9");
        assert_eq!(s.at("ingress/web", ".spec.rules[*].host"), "web.example");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn labels_and_annotations() {
    each(|s| {
        deploy(s);
        s.prints("label deployment web tier=front", "deployment.apps/web labeled");
        s.prints("label deployment web tier=front", "deployment.apps/web not labeled");
        s.fails(
            "label deployment web tier=back",
            "error: 'tier' already has a value (front), and --overwrite is false",
        );
        s.prints(
            "label deployment web tier=back --overwrite",
            "deployment.apps/web labeled",
        );
        s.prints("label deployments -l tier=back also=yes", "deployment.apps/web labeled");
        s.prints("get deployments -l tier=back,also -o name", "deployment.apps/web");
        s.prints("get deployments -l 'tier notin (back)' -o name", "");
        s.prints("label deployment web tier-", "deployment.apps/web unlabeled");
        assert_eq!(
            s.at("deployment/web", ".metadata.labels"),
            r#"{"also":"yes","app":"web"}"#
        );
        // Old ones say "annotate".
        assert!(
            s.out("annotate deployment web note='hello there'")
                .starts_with("deployment.apps/web annotate")
        );
        assert_eq!(s.at("deployment/web", ".metadata.annotations.note"), "hello there");
        s.out("annotate deployment web note-");
        let labels = s.out("label --list deployment web");
        let mut labels: Vec<&str> = labels.lines().collect();
        labels.sort_unstable();
        assert_eq!(labels, ["also=yes", "app=web"]);
        let refused = s.run("label deployment web 'tier=not a value'", "");
        assert!(
            refused
                .stderr
                .contains("a valid label must be an empty string or consist of"),
            "{refused:?}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn scale_and_autoscale() {
    each(|s| {
        deploy(s);
        s.prints("scale deployment web --replicas=5", "deployment.apps/web scaled");
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "5");
        s.fails(
            "scale deployment web --replicas=1 --current-replicas=9",
            "error: Expected replicas to be 9, was 5",
        );
        s.prints(
            "scale deployment web --replicas=4 --current-replicas=5",
            "deployment.apps/web scaled",
        );
        let set = DEPLOYMENT
            .replace("kind: Deployment", "kind: StatefulSet")
            .replace("{name: web,", "{name: set,");
        s.prints_with(&set, "create -f -", "statefulset.apps/set created");
        s.prints(
            "scale deployment/web statefulset/set --replicas=3",
            "deployment.apps/web scaled\nstatefulset.apps/set scaled",
        );
        assert_eq!(s.at("statefulset/set", ".spec.replicas"), "3");
        s.prints(
            "autoscale deployment web --min=1 --max=3 --cpu-percent=80",
            "horizontalpodautoscaler.autoscaling/web autoscaled",
        );
        assert_eq!(
            s.at("hpa/web", ".spec.scaleTargetRef"),
            r#"{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}"#
        );
        assert_eq!(
            s.at("hpa/web", ".spec.metrics[0].resource.target.averageUtilization"),
            "80"
        );
        let refused = s.run("scale deployment none --replicas=1", "");
        let texts = [r#"deployments.apps "none" not found"#, "no objects passed to scale"];
        assert!(texts.iter().any(|text| refused.stderr.contains(text)), "{refused:?}");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn set() {
    each(|s| {
        deploy(s);
        s.prints(
            "set image deployment/web main=registry.example/web:9",
            "deployment.apps/web image updated",
        );
        s.prints(
            "set image deployment/web '*=registry.example/all:1'",
            "deployment.apps/web image updated",
        );
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.containers[*].image"),
            "registry.example/all:1 registry.example/all:1"
        );
        s.prints(
            "set env deployment/web -c main COLOUR=red",
            "deployment.apps/web env updated",
        );
        s.prints(
            "set env deployment/web -c main --list",
            "# Deployment web, container main\nCOLOUR=red",
        );
        s.prints("set env deployment/web COLOUR-", "deployment.apps/web env updated");
        assert_eq!(s.at("deployment/web", ".spec.template.spec.containers[0].env"), "");
        s.prints(
            "set resources deployment/web -c main --limits=cpu=200m,memory=512Mi --requests=cpu=100m",
            "deployment.apps/web resource requirements updated",
        );
        assert_eq!(
            s.at(
                "deployment/web",
                ".spec.template.spec.containers[0].resources.limits.cpu"
            ),
            "200m"
        );
        s.prints("create serviceaccount robot", "serviceaccount/robot created");
        s.prints(
            "set serviceaccount deployment/web robot",
            "deployment.apps/web serviceaccount updated",
        );
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.serviceAccountName"),
            "robot"
        );
        s.prints("create service clusterip front --tcp=80", "service/front created");
        s.prints("set selector service/front app=web", "service/front selector updated");
        assert_eq!(s.at("service/front", ".spec.selector"), r#"{"app":"web"}"#);
        s.prints(
            "create rolebinding binds --clusterrole=view --user=jane",
            "rolebinding.rbac.authorization.k8s.io/binds created",
        );
        s.prints(
            "set subject rolebinding binds --serviceaccount=default:robot",
            "rolebinding.rbac.authorization.k8s.io/binds subjects updated",
        );
        assert_eq!(s.at("rolebinding/binds", ".subjects[*].name"), "jane robot");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn rollouts() {
    each(|s| {
        deploy(s);
        s.out("annotate deployment web kubernetes.io/change-cause='change 1'");
        s.until("rollout history deployment/web", &["1 change 1"]);
        s.out("set image deployment/web main=registry.example/web:2");
        s.out("annotate --overwrite deployment web kubernetes.io/change-cause='change 2'");
        let history = [
            "deployment.apps/web",
            "REVISION CHANGE-CAUSE",
            "1 change 1",
            "2 change 2",
        ];
        assert_eq!(s.until("rollout history deployment/web", &["2 change 2"]), history);
        let first = s.out("rollout history deployment/web --revision=1");
        assert!(first.contains("registry.example/web:1"), "{first}");
        s.prints("rollout pause deployment/web", "deployment.apps/web paused");
        s.fails(
            "rollout pause deployment/web",
            r#"error: deployments.apps "web" is already paused"#,
        );
        s.prints("rollout resume deployment/web", "deployment.apps/web resumed");
        s.prints("rollout restart deployment/web", "deployment.apps/web restarted");
        let restarted = s.at(
            "deployment/web",
            r".spec.template.metadata.annotations.kubectl\.kubernetes\.io/restartedAt",
        );
        assert!(restarted.contains('T'), "{restarted}");
        s.prints(
            "rollout undo deployment/web --to-revision=1",
            "deployment.apps/web rolled back",
        );
        assert_eq!(
            s.at("deployment/web", ".spec.template.spec.containers[*].image"),
            "registry.example/web:1 registry.example/side:1"
        );
        // No node runs its pods: without any it is rolled out at once.
        s.out("scale deployment web --replicas=0");
        let status = s.out("rollout status deployment/web --timeout=20s");
        assert_eq!(
            status.lines().last(),
            Some(r#"deployment "web" successfully rolled out"#),
            "{status}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn waits() {
    each(|s| {
        deploy(s);
        s.prints(
            "wait deployment/web --for=jsonpath='{.spec.replicas}'=2 --timeout=5s",
            "deployment.apps/web condition met",
        );
        s.fails(
            "wait deployment/web --for=condition=Available --timeout=1s",
            "error: timed out waiting for the condition on deployments/web",
        );
        // Its controller says so once the pods are ready, which a kubelet would say.
        let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
        for pod in s.out("get pods -l app=web -o name").lines() {
            s.out(&format!("patch {pod} --subresource=status -p '{ready}'"));
        }
        s.prints(
            "wait deployment/web --for=condition=Available --timeout=5s",
            "deployment.apps/web condition met",
        );
        s.prints(
            "delete deployment web --wait=false",
            &format!("deployment.apps \"web\" {}", deleted(s)),
        );
        s.out("wait deployment/web --for=delete --timeout=5s");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn nodes() {
    each(|s| {
        let node = format!("node-{}", s.minor);
        let manifest = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n");
        s.prints_with(&manifest, "create -f -", &format!("node/{node} created"));
        s.prints(
            &format!("taint nodes {node} a=b:NoSchedule"),
            &format!("node/{node} tainted"),
        );
        s.fails(
            &format!("taint nodes {node} a=c:NoSchedule"),
            &format!("error: node {node} already has a taint(s) with same effect(s) and --overwrite is false"),
        );
        s.prints(
            &format!("taint nodes {node} a=c:NoSchedule --overwrite"),
            &format!("node/{node} modified"),
        );
        assert_eq!(
            s.at(&format!("node/{node}"), ".spec.taints[?(@.key==\"a\")].value"),
            "c"
        );
        s.prints(&format!("taint nodes {node} a-"), &format!("node/{node} untainted"));
        s.prints(&format!("cordon {node}"), &format!("node/{node} cordoned"));
        s.prints(&format!("cordon {node}"), &format!("node/{node} already cordoned"));
        let row = s.out(&format!("get node {node} --no-headers"));
        assert!(row.contains("SchedulingDisabled"), "{row}");
        s.prints(
            &format!("drain {node}"),
            &format!("node/{node} already cordoned\nnode/{node} drained"),
        );
        s.prints(&format!("uncordon {node}"), &format!("node/{node} uncordoned"));
        s.prints(&format!("uncordon {node}"), &format!("node/{node} already uncordoned"));
        s.prints(
            &format!("label node {node} node-role.kubernetes.io/worker="),
            &format!("node/{node} labeled"),
        );
        let row = s.out(&format!("get node {node} --no-headers"));
        assert_eq!(row.split_whitespace().nth(2), Some("worker"), "{row}");
        s.prints(&format!("delete node {node}"), &format!("node \"{node}\" deleted"));
    });
}
