//! `create` with every generator, `run` and `expose`: what is printed and what is stored.

use super::{Session, each};

#[test]
#[ignore = "needs the kubectl binaries"]
fn generators_of_workloads_and_settings() {
    each(|s| {
        s.prints(
            "create configmap c --from-literal=a=1 --from-literal=b=2",
            "configmap/c created",
        );
        let table = s.out("get configmap c");
        assert!(
            table.starts_with(
                "NAME   DATA   AGE
c      2      "
            ) && table.ends_with('s'),
            "{table}"
        );
        s.prints("create secret generic g --from-literal=p=w", "secret/g created");
        assert_eq!(s.at("secret/g", ".data.p"), "dw==");
        s.prints(
            "create secret docker-registry d --docker-username=u --docker-password=p --docker-server=registry.example",
            "secret/d created",
        );
        assert_eq!(s.at("secret/d", ".type"), "kubernetes.io/dockerconfigjson");
        s.prints("create serviceaccount robot", "serviceaccount/robot created");
        s.prints(
            "create deployment web --image=registry.example/web:1 --replicas=2 --port=80",
            "deployment.apps/web created",
        );
        assert_eq!(s.at("deployment/web", ".spec.replicas"), "2");
        assert_eq!(
            s.at(
                "deployment/web",
                ".spec.template.spec.containers[0].ports[0].containerPort"
            ),
            "80"
        );
        s.prints(
            "create job once --image=busybox -- sh -c true",
            "job.batch/once created",
        );
        assert_eq!(
            s.at("job/once", ".spec.template.spec.containers[0].command"),
            r#"["sh","-c","true"]"#
        );
        s.prints(
            "create cronjob often --image=busybox --schedule='*/5 * * * *' -- date",
            "cronjob.batch/often created",
        );
        assert_eq!(s.at("cronjob/often", ".spec.schedule"), "*/5 * * * *");
        s.prints("create job again --from=cronjob/often", "job.batch/again created");
        assert_eq!(s.at("job/again", ".metadata.ownerReferences[0].kind"), "CronJob");
        assert_eq!(
            s.at("job/again", ".metadata.annotations"),
            r#"{"cronjob.kubernetes.io/instantiate":"manual"}"#
        );
        quota(s);
        s.prints(
            "create poddisruptionbudget b --min-available=50% --selector=app=web",
            "poddisruptionbudget.policy/b created",
        );
        assert_eq!(s.at("pdb/b", ".spec.minAvailable"), "50%");
        s.prints(
            "run one --image=registry.example/one:1 --labels=app=one --port=80",
            "pod/one created",
        );
        assert_eq!(s.at("pod/one", ".spec.containers[0].image"), "registry.example/one:1");
        s.prints("expose pod one --port=80 --name=front", "service/front exposed");
        assert_eq!(s.at("service/front", ".spec.selector"), r#"{"app":"one"}"#);
        s.prints(
            "expose deployment web --port=8080 --target-port=http",
            "service/web exposed",
        );
        assert_eq!(
            s.at("service/web", ".spec.ports[0]"),
            r#"{"port":8080,"protocol":"TCP","targetPort":"http"}"#
        );
    });
}

fn quota(s: &Session) {
    s.prints("create quota q --hard=cpu=1,pods=2", "resourcequota/q created");
    // Quotas of pods without requests count pods only, which the server says.
    let refused = s.run("create quota r --hard=cpu=1 --scopes=BestEffort", "");
    let text = r#""r" is invalid: spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource"#;
    assert!(refused.stderr.contains(text), "{refused:?}");
    // Pods that follow say nothing of processors, which the quota would ask them to.
    s.run("delete quota q", "");
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn generators_of_services_and_routes() {
    each(|s| {
        s.prints("create service clusterip a --tcp=80:http", "service/a created");
        assert_eq!(s.at("service/a", ".spec.type"), "ClusterIP");
        assert_eq!(s.at("service/a", ".spec.ports[0].targetPort"), "http");
        s.prints(
            "create service clusterip headless --clusterip=None",
            "service/headless created",
        );
        assert_eq!(s.at("service/headless", ".spec.clusterIP"), "None");
        s.prints("create service nodeport b --tcp=5678:8080", "service/b created");
        assert_eq!(s.at("service/b", ".spec.type"), "NodePort");
        s.prints("create service loadbalancer c --tcp=5678:8080", "service/c created");
        assert_eq!(s.at("service/c", ".spec.type"), "LoadBalancer");
        s.prints(
            "create service externalname d --external-name=example.com",
            "service/d created",
        );
        assert_eq!(s.at("service/d", ".spec.externalName"), "example.com");
        s.prints(
            "create ingress i --class=some --rule=foo.com/path*=svc:8080,tls=cert --default-backend=def:80",
            "ingress.networking.k8s.io/i created",
        );
        assert_eq!(s.at("ingress/i", ".spec.rules[0].http.paths[0].pathType"), "Prefix");
        assert_eq!(s.at("ingress/i", ".spec.tls[0].secretName"), "cert");
        assert_eq!(s.at("ingress/i", ".spec.defaultBackend.service.name"), "def");
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn generators_of_access_and_priorities() {
    each(|s| {
        let unique = |base: &str| format!("{base}-{}", s.namespace);
        s.prints(
            "create role reader --verb=get,list --resource=pods,deployments.apps",
            "role.rbac.authorization.k8s.io/reader created",
        );
        assert_eq!(
            s.at("role/reader", ".rules[*].apiGroups"),
            r#"[""] ["apps"]"#,
            "kubectl found the groups by discovery"
        );
        s.prints(
            "create rolebinding reads --role=reader --serviceaccount=default:robot --user=jane --group=staff",
            "rolebinding.rbac.authorization.k8s.io/reads created",
        );
        assert_eq!(
            s.at("rolebinding/reads", ".subjects[*].kind"),
            "User Group ServiceAccount"
        );
        let role = unique("role");
        s.prints(
            &format!("create clusterrole {role} --verb=get --non-resource-url=/metrics"),
            &format!("clusterrole.rbac.authorization.k8s.io/{role} created"),
        );
        let sum = unique("sum");
        s.prints(
            &format!("create clusterrole {sum} --aggregation-rule=sum=yes"),
            &format!("clusterrole.rbac.authorization.k8s.io/{sum} created"),
        );
        assert_eq!(
            s.at(&format!("clusterrole/{sum}"), ".aggregationRule"),
            r#"{"clusterRoleSelectors":[{"matchLabels":{"sum":"yes"}}]}"#
        );
        s.prints(
            &format!("create clusterrolebinding {role} --clusterrole={role} --user=jane"),
            &format!("clusterrolebinding.rbac.authorization.k8s.io/{role} created"),
        );
        let class = unique("class");
        s.prints(
            &format!("create priorityclass {class} --value=1000 --description='not urgent' --preemption-policy=Never"),
            &format!("priorityclass.scheduling.k8s.io/{class} created"),
        );
        assert_eq!(s.at(&format!("priorityclass/{class}"), "..preemptionPolicy"), "Never");
        let again = s.run("create role reader --verb=get --resource=pods", "");
        assert!(
            again
                .stderr
                .contains(r#"roles.rbac.authorization.k8s.io "reader" already exists"#),
            "{again:?}"
        );
    });
}

/// `--dry-run=client` prints, `--dry-run=server` asks the server and stores nothing.
#[test]
#[ignore = "needs the kubectl binaries"]
fn dry_runs_store_nothing() {
    each(|s| {
        s.prints(
            "create configmap dry --from-literal=a=1 --dry-run=client",
            "configmap/dry created (dry run)",
        );
        s.prints(
            "create configmap dry --from-literal=a=1 --dry-run=server",
            "configmap/dry created (server dry run)",
        );
        let made = s.out("create deployment dry --image=x --dry-run=server -o yaml");
        for line in [
            "  uid: ",
            "      terminationGracePeriodSeconds: 30",
            "  progressDeadlineSeconds: 600",
        ] {
            assert!(
                made.lines().any(|l| l.starts_with(line)),
                "{line:?} is missing in {made}"
            );
        }
        s.fails(
            "get configmap dry",
            r#"Error from server (NotFound): configmaps "dry" not found"#,
        );
        s.fails(
            "get deployment dry",
            r#"Error from server (NotFound): deployments.apps "dry" not found"#,
        );
        let pod =
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: some-}\nspec: {containers: [{name: a, image: b}]}\n";
        let name = s.out_with(pod, "create -f - -o name");
        assert!(
            name.starts_with("pod/some-") && name.len() == "pod/some-".len() + 5,
            "{name}"
        );
        s.prints_with(
            pod,
            &format!("delete {name} --now"),
            &format!("pod \"{}\" {}", &name[4..], deleted(s)),
        );
    });
}

/// How `delete` ends its line: newer ones name the namespace.
pub(super) fn deleted(s: &Session) -> String {
    if s.minor >= 34 {
        format!("deleted from {} namespace", s.namespace)
    } else {
        "deleted".to_owned()
    }
}
