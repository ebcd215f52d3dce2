//! Who may do what: reviews, roles, tokens, signing requests; and the commands that no other file has.

use super::each;
use crate::support::root;

fn squeezed(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn roles_decide() {
    each(|s| {
        s.prints(
            "create role reader --verb=get,list --resource=pods",
            "role.rbac.authorization.k8s.io/reader created",
        );
        s.out("create rolebinding reads --role=reader --user=jane");
        for (question, answer) in [
            ("list pods", "yes"),
            ("get pods/web", "yes"),
            ("delete pods", "no"),
            ("list pods --subresource=log", "no"),
            ("list secrets", "no"),
        ] {
            let ran = s.run(&format!("auth can-i {question} --as=jane"), "");
            assert_eq!(ran.stdout.trim_end(), answer, "{question}: {ran:?}");
            assert_eq!(ran.code, Some(i32::from(answer == "no")), "{question}");
        }
        s.prints("get pods --as=jane -o name", "");
        let refused = s.run("get secrets --as=jane", "");
        assert_eq!(
            refused.stderr.trim_end(),
            format!(
                r#"Error from server (Forbidden): secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "{}""#,
                s.namespace
            )
        );
        // Nobody hands out what they do not hold.
        s.out("create role granter --verb=create,update --resource=roles.rbac.authorization.k8s.io");
        s.out("create rolebinding grants --role=granter --user=jane");
        let refused = s.run("create role more --verb=delete --resource=secrets --as=jane", "");
        assert!(
            refused
                .stderr
                .contains("is attempting to grant RBAC permissions not currently held"),
            "{refused:?}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn rules_are_listed() {
    each(|s| {
        s.out("create role reader --verb=get,list --resource=pods");
        s.out("create rolebinding reads --role=reader --user=jane");
        let list = squeezed(&s.out("auth can-i --list --as=jane"));
        assert_eq!(list[0], "Resources Non-Resource URLs Resource Names Verbs");
        assert!(list.contains(&"pods [] [] [get list]".to_owned()), "{list:#?}");
        assert!(
            list.contains(&"selfsubjectaccessreviews.authorization.k8s.io [] [] [create]".to_owned()),
            "{list:#?}"
        );
        assert!(list.contains(&"[/healthz] [] [get]".to_owned()), "{list:#?}");
        let all = squeezed(&s.out("auth can-i --list"));
        assert!(all.contains(&"*.* [] [] [*]".to_owned()), "{all:#?}");
    });
}

const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled}
rules:
- {apiGroups: [''], resources: [pods], verbs: [get]}
";

#[test]
#[ignore = "needs the kubectl binaries"]
fn reconcile() {
    each(|s| {
        // It wants the namespace in the manifest.
        let roles = ROLES.replace(
            "{name: reconciled}",
            &format!("{{name: reconciled, namespace: {}}}", s.namespace),
        );
        // What was missing is told on the other stream.
        let reconciled = |manifest: &str| {
            let ran = s.run("auth reconcile -f -", manifest);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!(
                ran.stdout.trim_end(),
                "role.rbac.authorization.k8s.io/reconciled reconciled"
            );
            ran.stderr
        };
        assert!(reconciled(&roles).contains("reconciliation required create"));
        let more = format!("{roles}- {{apiGroups: [apps], resources: [deployments], verbs: [list]}}\n");
        assert!(reconciled(&more).contains("reconciliation required update"));
        reconciled(&roles);
        assert_eq!(
            s.at("role/reconciled", ".rules[*].resources"),
            r#"["pods"] ["deployments"]"#,
            "nothing is taken away"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn tokens() {
    each(|s| {
        s.out("create serviceaccount robot");
        let token = s.out("create token robot --duration=1h");
        assert_eq!(token.split('.').count(), 3, "{token}");
        let user = format!("system:serviceaccount:{}:robot", s.namespace);
        // With the token alone: no certificate of an administrator beside it.
        let config: serde_json::Value = serde_json::from_str(&s.out("config view --raw -o json")).expect("JSON");
        let text = |path: &str| config.pointer(path).and_then(|v| v.as_str()).expect("text").to_owned();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let own = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {}}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u, namespace: {}}}}}]\n",
            text("/clusters/0/cluster/server"),
            text("/clusters/0/cluster/certificate-authority-data"),
            s.namespace
        );
        std::fs::write(file.path(), own).expect("the configuration");
        let path = file.path().to_str().expect("a path");
        let refused = s.kubectl.fails_with(&["--kubeconfig", path, "get", "pods"], "");
        assert!(
            refused.contains(&format!(r#"User "{user}" cannot list resource "pods""#)),
            "{refused}"
        );
        if s.minor >= 28 {
            let who = s.kubectl.ok(&[
                "--kubeconfig",
                path,
                "auth",
                "whoami",
                "-o",
                "jsonpath={.status.userInfo.username}",
            ]);
            assert_eq!(who, user);
        }
        s.out(&format!(
            "create rolebinding robot --clusterrole=view --serviceaccount={}:robot",
            s.namespace
        ));
        assert_eq!(s.kubectl.ok(&["--kubeconfig", path, "get", "pods", "-o", "name"]), "");
        s.out("delete serviceaccount robot");
        let gone = s.kubectl.fails_with(&["--kubeconfig", path, "get", "pods"], "");
        assert!(
            gone.contains("Unauthorized") || gone.contains("must be logged in"),
            "{gone}"
        );
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn certificates() {
    use base64::Engine;
    each(|s| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        let request = parameters
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .expect("a request");
        let request = base64::engine::general_purpose::STANDARD.encode(request);
        for (verb, done) in [("approve", "Approved"), ("deny", "Denied")] {
            let name = format!("{verb}-{}", s.minor);
            let manifest = format!(
                "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec: {{request: {request}, signerName: example.com/tests, usages: [client auth]}}\n"
            );
            s.prints_with(
                &manifest,
                "create -f -",
                &format!("certificatesigningrequest.certificates.k8s.io/{name} created"),
            );
            let row = squeezed(&s.out(&format!("get csr {name} --no-headers")));
            assert!(
                row[0].ends_with("example.com/tests kubernetes-admin <none> Pending"),
                "{row:?}"
            );
            s.prints(
                &format!("certificate {verb} {name}"),
                &format!(
                    "certificatesigningrequest.certificates.k8s.io/{name} {}",
                    done.to_lowercase()
                ),
            );
            let row = squeezed(&s.out(&format!("get csr {name} --no-headers")));
            assert!(row[0].ends_with(done), "{row:?}");
        }
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn the_rest() {
    each(|s| {
        // An ephemeral container goes through a subresource of its own.
        s.prints("run web --image=registry.example/web:1", "pod/web created");
        s.out("debug web --image=registry.example/tools:1 -c probe --attach=false");
        assert_eq!(s.at("pod/web", ".spec.ephemeralContainers[*].name"), "probe");
        // Kustomizations.
        let directory = tempfile::tempdir_in(root().join("target")).expect("a directory");
        let text = "configMapGenerator:\n- {name: made, literals: [a=1]}\nlabels:\n- {pairs: {by: kustomize}}\n";
        std::fs::write(directory.path().join("kustomization.yaml"), text).expect("the kustomization");
        let path = directory.path().to_str().expect("a path");
        let applied = s.out(&format!("apply -k {path}"));
        assert!(
            applied.starts_with("configmap/made-") && applied.ends_with(" created"),
            "{applied}"
        );
        assert_eq!(s.at("cm -l by=kustomize", ".items[0].data.a"), "1");
        // Documents of the older form.
        let explained = s.out("explain pods.spec.nodeName --output=plaintext-openapiv2");
        assert!(explained.contains("FIELD:    nodeName <string>"), "{explained}");
        let dump = s.out(&format!("cluster-info dump --namespaces={}", s.namespace));
        for kind in ["NodeList", "ServiceList", "DeploymentList", "PodList"] {
            assert!(dump.contains(&format!("\"kind\": \"{kind}\"")), "{kind}");
        }
        s.fails("top nodes", "error: metrics not available yet");
        s.prints("get --raw /readyz", "ok");
        assert!(s.out("get --raw '/livez?verbose'").ends_with("livez check passed"));
    });
}
