//! What containers find in their environment: ConfigMaps, Secrets, fields of the pod, variables in variables.

use crate::cluster::Cluster;
use crate::pods::{condition, pod, sleeper, with_main, with_spec};
use crate::prints::{Prints, config_error, map};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = printing().into_iter().map(Prints::test).collect();
    tests.extend([
        pod_test(
            "[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path",
            async |cluster| sub_path_is_refused(cluster, "/tmp", "error SubPath `/tmp` must not be an absolute path").await,
        ),
        pod_test(
            "[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks",
            async |cluster| sub_path_is_refused(cluster, "..", "unable to provision SubPath `..`: must not contain '..'").await,
        ),
        pod_test(
            "[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container",
            sub_path_becomes_good,
        ),
        pod_test(
            "[sig-node] Variable Expansion should succeed in writing subpaths in container",
            sub_path_is_written,
        ),
        pod_test("[sig-node] Pods should contain environment variables for services", services),
    ]);
    tests
}

/// The program itself prints its environment: a shell keeps only variables whose names are its own.
fn prints_env(more: Value) -> Value {
    with_main(with_main(pod("env", ""), json!({"command": ["env"]})), more)
}

fn from(name: &str, source: &str, reference: Value) -> Value {
    json!({"name": name, "valueFrom": {source: reference}})
}

fn field(name: &str, path: &str) -> Value {
    from(name, "fieldRef", json!({"fieldPath": path}))
}

fn resource(name: &str, resource: &str) -> Value {
    from(name, "resourceFieldRef", json!({"resource": resource}))
}

fn printing() -> Vec<Prints> {
    let data = [("data-1", "value-1"), ("data.2", "value 2"), ("DATA_3", "value-3")];
    let prefixes = ["p-", "1", ".", "a b", "#$%&", "P_"];
    let mut tests = Vec::new();
    for (plural, reference, key_reference, names) in [
        (
            "configmaps",
            "configMapRef",
            "configMapKeyRef",
            [
                "[sig-node] ConfigMap should be consumable via environment variable",
                "[sig-node] ConfigMap should be consumable via the environment",
                "[sig-node] ConfigMap should be consumable as environment variable names with various prefixes",
            ],
        ),
        (
            "secrets",
            "secretRef",
            "secretKeyRef",
            [
                "[sig-node] Secrets should be consumable from pods in env vars",
                "[sig-node] Secrets should be consumable via the environment",
                "[sig-node] Secrets should be consumable as environment variable names variable names with various prefixes",
            ],
        ),
    ] {
        let made = map(plural, "map", &data);
        let one = from("ONE", key_reference, json!({"name": "map", "key": "data-1"}));
        let absent = from(
            "TWO",
            key_reference,
            json!({"name": "none", "key": "x", "optional": true}),
        );
        tests.push(
            Prints::new(names[0], prints_env(json!({"env": [one, absent]})))
                .with(plural, made.clone())
                .prints(["ONE=value-1"])
                .prints_not("TWO="),
        );
        let all = json!({"envFrom": [
            {reference: {"name": "map"}},
            {"prefix": "p_", reference: {"name": "map"}},
            {reference: {"name": "none", "optional": true}},
        ]});
        tests.push(
            Prints::new(names[1], prints_env(all))
                .with(plural, made.clone())
                .prints(["data-1=value-1", "data.2=value 2", "DATA_3=value-3"])
                .prints(["p_data-1=value-1", "p_data.2=value 2", "p_DATA_3=value-3"]),
        );
        let sources: Vec<Value> = prefixes
            .iter()
            .map(|prefix| json!({"prefix": prefix, reference: {"name": "map"}}))
            .collect();
        let lines = prefixes
            .iter()
            .flat_map(|prefix| data.map(|(key, value)| format!("{prefix}{key}={value}")));
        // What `$` leads stands for something else in expected lines.
        let lines = lines.filter(|line| !line.contains('$'));
        tests.push(
            Prints::new(names[2], prints_env(json!({"envFrom": sources})))
                .with(plural, made)
                .prints(lines),
        );
    }
    let limits = json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let figures = [
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory"),
        resource("CPU_REQUEST", "requests.cpu"),
        resource("MEMORY_REQUEST", "requests.memory"),
    ];
    tests.extend([
        Prints::new(
            "[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars",
            prints_env(json!({"resources": limits, "env": figures})),
        )
        .prints([
            "CPU_LIMIT=2",
            "MEMORY_LIMIT=67108864",
            "CPU_REQUEST=1",
            "MEMORY_REQUEST=33554432",
        ]),
        Prints::new(
            "[sig-node] Downward API should provide default limits.cpu/memory from node allocatable",
            prints_env(json!({"env": figures[..2]})),
        )
        .prints(["CPU_LIMIT=$cpu", "MEMORY_LIMIT=$memory"]),
        Prints::new(
            "[sig-node] Downward API should provide host IP as an env var",
            prints_env(json!({"env": [field("HOST_IP", "status.hostIP")]})),
        )
        .prints(["HOST_IP=$pod/status/hostIP"]),
        Prints::new(
            "[sig-node] Downward API should provide hostIPs as an env var",
            prints_env(json!({"env": [field("HOST_IPS", "status.hostIPs")]})),
        )
        .prints(["HOST_IPS=$pod/status/hostIPs/0/ip"]),
        Prints::new(
            "[sig-node] Downward API should provide pod UID as env vars",
            prints_env(json!({"env": [field("POD_UID", "metadata.uid")]})),
        )
        .prints(["POD_UID=$pod/metadata/uid"]),
        Prints::new(
            "[sig-node] Downward API should provide pod name, namespace and IP address as env vars",
            prints_env(json!({"env": [
                field("POD_NAME", "metadata.name"),
                field("POD_NAMESPACE", "metadata.namespace"),
                field("POD_IP", "status.podIP"),
            ]})),
        )
        .prints([
            "POD_NAME=env",
            "POD_NAMESPACE=$pod/metadata/namespace",
            "POD_IP=$pod/status/podIP",
        ]),
    ]);
    let variable = json!([{"name": "WORD", "value": "test-value"}]);
    let own_name = json!([field("POD_NAME", "metadata.name")]);
    tests.extend([
        Prints::new(
            "[sig-node] Variable Expansion should allow composing env vars into new env vars",
            prints_env(json!({"env": [
                {"name": "FOO", "value": "foo-value"},
                {"name": "BAR", "value": "bar-value"},
                {"name": "BOTH", "value": "$(FOO);;$(BAR)"},
                {"name": "NEITHER", "value": "$$(FOO) end"},
            ]})),
        )
        .prints(["FOO=foo-value", "BAR=bar-value", "BOTH=foo-value;;bar-value"]),
        Prints::new(
            "[sig-node] Variable Expansion should allow substituting values in a container's command",
            with_main(
                pod("words", ""),
                json!({"command": ["sh", "-c", "WORD=wrong; echo \"$(WORD)\""], "env": variable}),
            ),
        )
        .prints(["test-value"]),
        Prints::new(
            "[sig-node] Variable Expansion should allow substituting values in a container's args",
            with_main(
                pod("words", ""),
                json!({"command": ["sh", "-c"], "args": ["WORD=wrong; echo \"$(WORD)\""], "env": variable}),
            ),
        )
        .prints(["test-value"]),
        Prints::new(
            "[sig-node] Variable Expansion should allow substituting values in a volume subpath",
            with_sub_path(pod("sub", "echo x > /sub/file; cat /all/sub/file"), own_name),
        )
        .prints(["x"]),
    ]);
    tests
}

/// The pod with a volume at `/all` and a directory in it, named by the variable POD_NAME, at `/sub`.
fn with_sub_path(pod: Value, variables: Value) -> Value {
    let mounts = json!([
        {"name": "work", "mountPath": "/all"},
        {"name": "work", "mountPath": "/sub", "subPathExpr": "$(POD_NAME)"},
    ]);
    let pod = with_spec(pod, json!({"volumes": [{"name": "work", "emptyDir": {}}]}));
    with_main(pod, json!({"env": variables, "volumeMounts": mounts}))
}

async fn sub_path_is_refused(cluster: Cluster, value: &str, expected: &str) {
    let pods = cluster.pods("subpath").await;
    let variables = json!([{"name": "POD_NAME", "value": value}]);
    pods.create(&with_sub_path(sleeper("sub"), variables)).await;
    let message = config_error(&pods, "sub").await;
    assert_eq!(message, expected);
}

async fn sub_path_becomes_good(cluster: Cluster) {
    let pods = cluster.pods("subpath").await;
    let variables = json!([field("POD_NAME", "metadata.annotations['mysubpath']")]);
    let mut pod = with_sub_path(sleeper("sub"), variables);
    pod["metadata"]["annotations"] = json!({"mysubpath": "/bad"});
    pods.create(&pod).await;
    config_error(&pods, "sub").await;
    let good = json!({"metadata": {"annotations": {"mysubpath": "good"}}});
    pods.resource.merge("sub", good).await.unwrap();
    pods.until_ready("sub").await;
    pods.shell("sub", "", "echo x > /sub/file; test -f /all/good/file")
        .await;
}

async fn sub_path_is_written(cluster: Cluster) {
    let pods = cluster.pods("subpath").await;
    let variables = json!([field("POD_NAME", "metadata.annotations['mysubpath']")]);
    let mut pod = with_sub_path(sleeper("sub"), variables);
    pod["metadata"]["annotations"] = json!({"mysubpath": "mypath/foo"});
    pods.ready(&pod).await;
    pods.shell("sub", "", "echo x > /all/mypath/foo/file; test -f /sub/file")
        .await;
    // The running container keeps its mount.
    let other = json!({"metadata": {"annotations": {"mysubpath": "other"}}});
    pods.resource.merge("sub", other).await.unwrap();
    pods.shell("sub", "", "test -f /sub/file").await;
    let pod = pods.resource.get("sub").await.unwrap();
    assert_eq!(condition(&pod, "Ready"), "True");
}

async fn services(cluster: Cluster) {
    let pods = cluster.pods("services").await;
    let spec = json!({"selector": {"name": "x"}, "ports": [{"port": 8765, "targetPort": 8080}]});
    let service = json!({"metadata": {"name": "foo-service"}, "spec": spec});
    let service = pods.core("services").create(&service).await.unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let named = json!({"metadata": {"name": "two"}, "spec": {
        "selector": {"name": "x"}, "ports": [{"name": "a-b", "port": 1}, {"name": "c", "port": 2, "protocol": "UDP"}],
    }});
    let two = pods.core("services").create(&named).await.unwrap();
    let second = two["spec"]["clusterIP"].as_str().unwrap();
    let headless = json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
    pods.core("services").create(&headless).await.unwrap();
    let kubernetes = cluster
        .core("services", Some("default"))
        .get("kubernetes")
        .await
        .unwrap();
    let output = pods.output(&prints_env(json!({}))).await;
    for line in [
        format!("FOO_SERVICE_SERVICE_HOST={address}"),
        "FOO_SERVICE_SERVICE_PORT=8765".to_owned(),
        format!("FOO_SERVICE_PORT=tcp://{address}:8765"),
        format!("FOO_SERVICE_PORT_8765_TCP=tcp://{address}:8765"),
        "FOO_SERVICE_PORT_8765_TCP_PROTO=tcp".to_owned(),
        "FOO_SERVICE_PORT_8765_TCP_PORT=8765".to_owned(),
        format!("FOO_SERVICE_PORT_8765_TCP_ADDR={address}"),
        "TWO_SERVICE_PORT=1".to_owned(),
        "TWO_SERVICE_PORT_A_B=1".to_owned(),
        "TWO_SERVICE_PORT_C=2".to_owned(),
        format!("TWO_PORT_2_UDP=udp://{second}:2"),
        format!(
            "KUBERNETES_SERVICE_HOST={}",
            kubernetes["spec"]["clusterIP"].as_str().unwrap()
        ),
        "KUBERNETES_SERVICE_PORT=443".to_owned(),
    ] {
        assert!(output.lines().any(|l| l == line), "{line:?} is missing in:\n{output}");
    }
    assert!(!output.contains("HEADLESS_"), "{output}");
    // Those of other Services can be left out; the server's own stay.
    let without = with_spec(prints_env(json!({})), json!({"enableServiceLinks": false}));
    let mut without = without;
    without["metadata"]["name"] = json!("without");
    let output = pods.output(&without).await;
    assert!(
        !output.contains("FOO_SERVICE") && output.contains("KUBERNETES_SERVICE_HOST="),
        "{output}"
    );
}
