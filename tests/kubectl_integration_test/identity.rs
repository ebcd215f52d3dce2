//! Who I am and what I may do, as kubectl shows it: tokens, impersonation, `auth`, roles.

use crate::support::krust::Krust;
use crate::support::kubectl::VERSIONS;

#[test]
#[ignore = "needs the kubectl binaries"]
fn tokens_and_impersonation() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        kubectl.ok(&["create", "serviceaccount", "robot"]);
        let token = kubectl.ok(&["create", "token", "robot", "--duration", "20m"]);
        let token = token.trim();
        let server = format!("https://127.0.0.1:{}", krust.port);
        let as_robot = |arguments: &[&str]| {
            // Nothing of the administrator's: only the token.
            let fixed = [
                "--kubeconfig=/dev/null",
                "--server",
                &server,
                "--insecure-skip-tls-verify",
                "--token",
                token,
            ];
            kubectl.run(&[arguments, &fixed[..]].concat())
        };
        let refused = as_robot(&["get", "pods"]);
        assert!(
            refused.stderr.contains(
                "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
            ),
            "{version}: {}",
            refused.stderr
        );
        kubectl.ok(&[
            "create",
            "rolebinding",
            "robot",
            "--clusterrole=view",
            "--serviceaccount=default:robot",
        ]);
        let allowed = as_robot(&["get", "pods"]);
        assert_eq!(allowed.code, Some(0), "{version}: {}", allowed.stderr);
        assert_eq!(as_robot(&["auth", "can-i", "list", "pods"]).stdout.trim(), "yes");
        assert_eq!(as_robot(&["auth", "can-i", "delete", "pods"]).stdout.trim(), "no");
        let list = as_robot(&["auth", "can-i", "--list"]).stdout;
        let line = list
            .lines()
            .find(|line| line.starts_with("configmaps "))
            .unwrap_or_default();
        assert!(line.contains("[get list watch]"), "{version}: {list}");
        assert!(list.contains("selfsubjectrulesreviews.authorization.k8s.io"), "{list}");
        let account = "system:serviceaccount:default:robot";
        let refused = kubectl.fails_with(&["get", "secrets", "--as", account], "");
        assert!(refused.contains("secrets is forbidden: User"), "{version}: {refused}");
        assert_eq!(
            kubectl
                .run(&["auth", "can-i", "get", "secrets", "--as", account])
                .stdout
                .trim(),
            "no"
        );
        assert_eq!(
            kubectl
                .run(&[
                    "auth",
                    "can-i",
                    "get",
                    "nodes",
                    "--as",
                    "jane",
                    "--as-group",
                    "system:masters"
                ])
                .stdout
                .trim(),
            "yes"
        );
        kubectl.ok(&["delete", "serviceaccount", "robot"]);
        let gone = as_robot(&["get", "pods"]);
        assert!(
            gone.stderr.contains("You must be logged in to the server"),
            "{version}: {}",
            gone.stderr
        );
        kubectl.ok(&["delete", "rolebinding", "robot"]);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn whoami_and_roles() {
    let krust = Krust::start(&["--runtime", "none"]);
    for version in VERSIONS {
        let kubectl = krust.kubectl(version);
        if *version != "1.27" {
            // There it is an experiment under another name.
            let whoami = kubectl.ok(&["auth", "whoami"]);
            assert!(
                whoami.contains("kubernetes-admin") && whoami.contains("system:masters"),
                "{whoami}"
            );
        }
        kubectl.ok(&[
            "create",
            "role",
            "reader",
            "--verb=get,list",
            "--resource=pods,deployments.apps",
        ]);
        kubectl.ok(&["create", "rolebinding", "readers", "--role=reader", "--user=jane"]);
        let shown = kubectl.ok(&["describe", "role", "reader"]);
        assert!(
            shown.contains("deployments.apps") && shown.contains("[get list]"),
            "{shown}"
        );
        assert_eq!(
            kubectl
                .run(&["auth", "can-i", "list", "pods", "--as=jane"])
                .stdout
                .trim(),
            "yes"
        );
        let more = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: reader\n  namespace: default\nrules:\n- apiGroups: [\"\"]\n  resources: [secrets]\n  verbs: [get]\n";
        let reconciled = kubectl.ok_with(&["auth", "reconcile", "-f", "-"], more);
        assert!(reconciled.contains("reader reconciled"), "{reconciled}");
        assert_eq!(
            kubectl
                .run(&["auth", "can-i", "get", "secrets", "--as=jane"])
                .stdout
                .trim(),
            "yes"
        );
        kubectl.ok(&["create", "clusterrole", "part", "--verb=get", "--resource=nodes"]);
        kubectl.ok(&[
            "label",
            "clusterrole",
            "part",
            "rbac.authorization.k8s.io/aggregate-to-view=true",
        ]);
        // The role is filled by its controller.
        let fills = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            kubectl
                .ok(&["get", "clusterrole", "view", "-o", "jsonpath={.rules[*].resources}"])
                .contains("nodes")
        });
        assert!(fills, "{version}: the aggregated role is not filled");
        kubectl.ok(&["delete", "clusterrole", "part"]);
        kubectl.ok(&["delete", "role/reader", "rolebinding/readers"]);
    }
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn a_secret_for_a_token_is_filled_and_goes_with_its_account() {
    let krust = Krust::start(&["--runtime", "none"]);
    let kubectl = krust.kubectl("1.32");
    kubectl.ok(&["create", "serviceaccount", "robot"]);
    let secret = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: robot\n  annotations: {kubernetes.io/service-account.name: robot}\n";
    kubectl.ok_with(&["apply", "-f", "-"], secret);
    let field = |path: &str| kubectl.ok(&["get", "secret", "robot", "-o", &format!("jsonpath={path}")]);
    let filled = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        !field("{.data.token}").is_empty()
    });
    assert!(filled, "the token is not there");
    assert!(!field("{.data.ca\\.crt}").is_empty());
    let uid = kubectl.ok(&["get", "serviceaccount", "robot", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(
        field("{.metadata.annotations.kubernetes\\.io/service-account\\.uid}"),
        uid
    );
    kubectl.ok(&["delete", "serviceaccount", "robot"]);
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        kubectl.run(&["get", "secret", "robot"]).code != Some(0)
    });
    assert!(gone, "the Secret outlives its account");
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn fixed_tokens_name_users() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.csv");
    std::fs::write(&file, "geheim,jane,7,\"dev,ops\"\nmeister,root,1,system:masters\n").unwrap();
    let krust = Krust::start(&["--runtime", "none", "--token-auth-file", file.to_str().unwrap()]);
    let kubectl = krust.kubectl("1.32");
    let server = format!("https://127.0.0.1:{}", krust.port);
    let with = |token: &str, arguments: &[&str]| {
        let fixed = [
            "--kubeconfig=/dev/null",
            "--server",
            &server,
            "--insecure-skip-tls-verify",
            "--token",
            token,
        ];
        kubectl.run(&[arguments, &fixed[..]].concat())
    };
    let whoami = with("geheim", &["auth", "whoami", "-o", "json"]).stdout;
    let whoami: serde_json::Value = serde_json::from_str(&whoami).unwrap();
    assert_eq!(
        whoami["status"]["userInfo"],
        serde_json::json!({"username": "jane", "uid": "7", "groups": ["dev", "ops", "system:authenticated"]})
    );
    assert_eq!(with("meister", &["get", "nodes"]).code, Some(0));
    assert!(
        with("falsch", &["get", "nodes"])
            .stderr
            .contains("You must be logged in")
    );
}
