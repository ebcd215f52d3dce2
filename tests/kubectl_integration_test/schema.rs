//! What real kubectl binaries do with the OpenAPI documents and with protobuf: validation, explain, create.

use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: c
    image: busybox
    ports: [{containerPort: 80}]
  - name: d
    image: busybox
";

const CONFIG_MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red}
";

const FILE: [&str; 2] = ["-f", "-"];

fn with<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [first, rest].concat()
}

/// Runs `test` with every kubectl, each in a namespace of its own.
fn each_kubectl(test: impl Fn(&Kubectl, &str)) {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        let namespace = format!("v{}", version.replace('.', "-"));
        kubectl.ok(&["create", "namespace", &namespace]);
        test(&kubectl, &namespace);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn manifests_are_applied_created_and_replaced() {
    each_kubectl(|kubectl, namespace| {
        let scope = ["-n", namespace];
        let apply = with(&scope, &["apply", "-f", "-"]);
        assert_eq!(kubectl.ok_with(&apply, CONFIG_MAP), "configmap/settings created\n");
        assert_eq!(kubectl.ok_with(&apply, CONFIG_MAP), "configmap/settings unchanged\n");
        let blue = CONFIG_MAP.replace("red", "blue");
        assert_eq!(kubectl.ok_with(&apply, &blue), "configmap/settings configured\n");
        let green = CONFIG_MAP.replace("red", "green");
        assert_eq!(
            kubectl.ok_with(&with(&scope, &["replace", "-f", "-"]), &green),
            "configmap/settings replaced\n"
        );
        assert_eq!(
            kubectl.ok_with(&with(&scope, &["create", "-f", "-"]), POD),
            "pod/web created\n"
        );
    });
}

/// kubectl finds the merge keys in the documents: without them it would send the whole list.
#[test]
#[ignore = "needs the kubectl binaries"]
fn lists_are_merged_by_their_keys() {
    each_kubectl(|kubectl, namespace| {
        let apply = ["-n", namespace, "apply", "-f", "-", "-v=8"];
        kubectl.ok_with(&apply, POD);
        let changed = POD.replacen("image: busybox", "image: busybox:2", 1);
        let applied = kubectl.run_with(&apply, &changed);
        assert_eq!(applied.stdout, "pod/web configured\n");
        // Newer ones log it quoted.
        let log = applied.stderr.replace('\\', "");
        let order = r#""$setElementOrder/containers":[{"name":"c"},{"name":"d"}]"#;
        assert!(log.contains(order), "{log}");
        let images = [
            "-n",
            namespace,
            "get",
            "pod",
            "web",
            "-o",
            "jsonpath={.spec.containers[*].image}",
        ];
        assert_eq!(kubectl.ok(&images), "busybox:2 busybox");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn a_misspelt_field_is_refused_as_a_cluster_refuses_it() {
    let misspelt = POD.replacen("image:", "imagee:", 1);
    let wrong = POD.replace("80", "eighty");
    let unknown = r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[0].imagee""#;
    let mismatch = "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32";
    each_kubectl(|kubectl, namespace| {
        for command in ["create", "apply"] {
            let command = with(&["-n", namespace, command], &FILE);
            let refused = kubectl.fails_with(&command, &misspelt);
            assert!(
                refused.contains("Error from server (BadRequest)") && refused.contains(unknown),
                "{refused}"
            );
            let refused = kubectl.fails_with(&command, &wrong);
            assert!(refused.contains(mismatch), "{refused}");
        }
        let warned = kubectl.run_with(&with(&["-n", namespace, "create", "--validate=warn"], &FILE), &misspelt);
        assert!(
            warned
                .stderr
                .contains(r#"Warning: unknown field "spec.containers[0].imagee""#),
            "{warned:?}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn kinds_and_fields_are_explained() {
    each_kubectl(|kubectl, _| {
        let fields = kubectl.ok(&["explain", "pod.spec.containers", "--recursive"]);
        assert!(fields.lines().count() > 200, "{fields}");
        for field in ["livenessProbe", "containerPort", "-required-"] {
            assert!(fields.contains(field), "{field} is missing in {fields}");
        }
        let surge = kubectl.ok(&["explain", "deployment.spec.strategy.rollingUpdate.maxSurge"]);
        assert!(surge.contains("FIELD: maxSurge <IntOrString>"), "{surge}");
        for kind in ["leases", "clusterroles", "endpointslices"] {
            assert!(kubectl.ok(&["explain", kind]).contains("DESCRIPTION:"), "{kind}");
        }
        let event = kubectl.ok(&["explain", "events.regarding", "--api-version=events.k8s.io/v1"]);
        assert!(event.contains("GROUP:      events.k8s.io"), "{event}");
    });
}

/// From 1.32 on these send protobuf.
#[test]
#[ignore = "needs the kubectl binaries"]
fn generators_create_objects() {
    each_kubectl(|kubectl, namespace| {
        let create = |arguments: &[&str]| kubectl.ok(&with(&["-n", namespace, "create"], arguments));
        create(&["configmap", "c", "--from-literal=a=1"]);
        create(&["secret", "generic", "s", "--from-literal=p=w"]);
        create(&["serviceaccount", "sa"]);
        create(&["deployment", "d", "--image=nginx", "--replicas=2", "--port=80"]);
        create(&["job", "j", "--image=busybox", "--", "sh", "-c", "true"]);
        create(&["quota", "q", "--hard=cpu=1"]);
        create(&["service", "clusterip", "svc", "--tcp=80:http"]);
        create(&["pdb", "p", "--min-available=50%", "--selector=a=b"]);
        let get =
            |path: &str, name: &str| kubectl.ok(&["-n", namespace, "get", name, "-o", &format!("jsonpath={{{path}}}")]);
        assert_eq!(get(".data.p", "secret/s"), "dw==");
        assert_eq!(get(".spec.replicas", "deployment/d"), "2");
        assert_eq!(
            get(
                ".spec.template.spec.containers[0].ports[0].containerPort",
                "deployment/d"
            ),
            "80"
        );
        assert_eq!(
            get(".spec.template.spec.containers[0].command", "job/j"),
            r#"["sh","-c","true"]"#
        );
        assert_eq!(get(".spec.hard.cpu", "quota/q"), "1");
        assert_eq!(get(".spec.ports[0].targetPort", "service/svc"), "http");
        assert_eq!(get(".spec.minAvailable", "pdb/p"), "50%");
        assert_eq!(kubectl.ok(&["auth", "can-i", "get", "pods"]), "yes\n");
    });
}
