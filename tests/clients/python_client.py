"""The Python client against the server that KUBECONFIG names (run by kubectl_integration_test)."""

import os
import threading
import unittest

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "python"


def config_map(name, labels=None, data=None):
    return client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=name, labels=labels or {}), data=data or {"key": "value"}
    )


def deployment(name):
    labels = {"app": name}
    container = client.V1Container(name="main", image="registry.example/pause:1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name=name), spec=spec)


class PythonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config(os.environ["KUBECONFIG"])
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()
        cls.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))

    def refused(self, code, reason, call, *arguments, **more):
        with self.assertRaises(ApiException) as caught:
            call(*arguments, **more)
        self.assertEqual(caught.exception.status, code, caught.exception.body)
        self.assertIn(f'"reason":"{reason}"', caught.exception.body.replace('": "', '":"'))
        return caught.exception.body

    def test_versions_and_discovery(self):
        self.assertRegex(client.VersionApi().get_code().git_version, r"^v1\.\d+\.\d+")
        groups = {group.name for group in client.ApisApi().get_api_versions().groups}
        self.assertTrue({"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups)
        names = {resource.name for resource in self.core.get_api_resources().resources}
        self.assertTrue({"pods", "pods/log", "configmaps"} <= names, names)

    def test_objects_are_written_and_read(self):
        made = self.core.create_namespaced_config_map(NAMESPACE, config_map("written"))
        self.assertTrue(made.metadata.uid and made.metadata.creation_timestamp)
        read = self.core.read_namespaced_config_map("written", NAMESPACE)
        self.assertEqual(read.data, {"key": "value"})
        read.data = {"key": "other"}
        replaced = self.core.replace_namespaced_config_map("written", NAMESPACE, read)
        self.assertEqual(replaced.data, {"key": "other"})
        self.refused(409, "Conflict", self.core.replace_namespaced_config_map, "written", NAMESPACE, read)
        self.refused(409, "AlreadyExists", self.core.create_namespaced_config_map, NAMESPACE, config_map("written"))
        dry = self.core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
        self.assertEqual(dry.metadata.name, "dry")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "dry", NAMESPACE)
        status = self.core.delete_namespaced_config_map("written", NAMESPACE)
        self.assertEqual(status["status"], "Success")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "written", NAMESPACE)

    def test_errors_say_which_field(self):
        wrong = deployment("wrong")
        wrong.spec.selector.match_labels = {"app": "another"}
        wrong.spec.template.spec.containers[0].name = "Not A Name"
        body = self.refused(422, "Invalid", self.apps.create_namespaced_deployment, NAMESPACE, wrong)
        self.assertIn("spec.template.metadata.labels", body)
        self.assertIn("spec.template.spec.containers[0].name", body)
        # Without the client's own checks.
        bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "nope": 1}
        request = dynamic.DynamicClient(client.ApiClient()).request
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps?fieldValidation=Strict"
        body = self.refused(400, "BadRequest", request, "post", path, body=bare)
        self.assertIn('unknown field \\"nope\\"', body)

    def test_pages(self):
        for index in range(25):
            self.core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{index:02}", {"set": "pages"}))
        seen, token, revisions = [], None, set()
        while True:
            page = self.core.list_namespaced_config_map(NAMESPACE, limit=10, label_selector="set=pages", _continue=token)
            seen += [item.metadata.name for item in page.items]
            revisions.add(page.metadata.resource_version)
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(seen, [f"page-{index:02}" for index in range(25)])
        self.assertEqual(len(revisions), 1, "all pages are of one revision")
        everywhere = self.core.list_config_map_for_all_namespaces(label_selector="set=pages")
        self.assertEqual(len(everywhere.items), 25)
        named = self.core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=page-07")
        self.assertEqual([item.metadata.name for item in named.items], ["page-07"])
        self.core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="set=pages")
        self.assertEqual(self.core.list_namespaced_config_map(NAMESPACE, label_selector="set=pages").items, [])

    def test_patches(self):
        self.apps.create_namespaced_deployment(NAMESPACE, deployment("patched"))
        # A list is a JSON patch, anything else a strategic merge: the other container stays.
        sidecar = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "registry.example/side:1"}]}}}}
        merged = self.apps.patch_namespaced_deployment("patched", NAMESPACE, sidecar)
        self.assertEqual({c.name for c in merged.spec.template.spec.containers}, {"main", "side"})
        operations = [{"op": "replace", "path": "/spec/replicas", "value": 3}]
        self.assertEqual(self.apps.patch_namespaced_deployment("patched", NAMESPACE, operations).spec.replicas, 3)
        bad = [{"op": "test", "path": "/spec/replicas", "value": 7}]
        self.refused(422, "Invalid", self.apps.patch_namespaced_deployment, "patched", NAMESPACE, bad)
        status = {"status": {"observedGeneration": 5}}
        patched = self.apps.patch_namespaced_deployment_status("patched", NAMESPACE, status)
        self.assertEqual((patched.status.observed_generation, patched.spec.replicas), (5, 3))

    def test_scale(self):
        self.apps.create_namespaced_deployment(NAMESPACE, deployment("scaled"))
        scale = self.apps.read_namespaced_deployment_scale("scaled", NAMESPACE)
        self.assertEqual((scale.spec.replicas, scale.status.selector), (1, "app=scaled"))
        scale.spec.replicas = 4
        # Whatever the controllers have written meanwhile.
        scale.metadata.resource_version = None
        self.apps.replace_namespaced_deployment_scale("scaled", NAMESPACE, scale)
        self.assertEqual(self.apps.read_namespaced_deployment("scaled", NAMESPACE).spec.replicas, 4)

    def test_watch_resumes(self):
        begin = self.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        writes = ["w1", "w2", "w3"]

        def write():
            for name in writes:
                self.core.create_namespaced_config_map(NAMESPACE, config_map(name, {"set": "watch"}))
                self.core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"key": "changed"}})
                self.core.delete_namespaced_config_map(name, NAMESPACE)

        writer = threading.Thread(target=write)
        writer.start()
        seen, revision = [], begin
        # A watch for each event: every one goes on where the last one ended.
        while len(seen) < 9:
            stream = watch.Watch().stream(
                self.core.list_namespaced_config_map, NAMESPACE, label_selector="set=watch",
                resource_version=revision, timeout_seconds=20,
            )
            event = next(stream)
            seen.append((event["type"], event["object"].metadata.name))
            revision = event["object"].metadata.resource_version
            stream.close()
        writer.join()
        self.assertEqual(seen, [(kind, name) for name in writes for kind in ("ADDED", "MODIFIED", "DELETED")])

    def test_server_side_apply(self):
        maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")

        def apply(data, manager, **more):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
            return maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager=manager, **more)

        apply({"a": "1", "b": "2"}, "one")
        apply({"c": "3"}, "two")
        body = self.refused(409, "Conflict", apply, {"a": "9"}, "two")
        self.assertIn('conflict with \\"one\\"', body)
        self.assertIn('"field":".data.a"', body)
        forced = apply({"a": "9"}, "two", force_conflicts=True)
        self.assertEqual(forced.data.to_dict(), {"a": "9", "b": "2"})
        owners = {entry.manager: entry.operation for entry in forced.metadata.managedFields}
        self.assertEqual(owners, {"one": "Apply", "two": "Apply"})

    def test_custom_objects(self):
        group, plural = "python.example.com", "things"
        schema = {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["size"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1},
                        "colour": {"type": "string", "default": "red"},
                    },
                },
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
            },
        }
        definition = client.V1CustomResourceDefinition(
            metadata=client.V1ObjectMeta(name=f"{plural}.{group}"),
            spec=client.V1CustomResourceDefinitionSpec(
                group=group,
                scope="Namespaced",
                names=client.V1CustomResourceDefinitionNames(plural=plural, kind="Thing"),
                versions=[
                    client.V1CustomResourceDefinitionVersion(
                        name="v1",
                        served=True,
                        storage=True,
                        schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
                        subresources=client.V1CustomResourceSubresources(status={}),
                    )
                ],
            ),
        )
        extensions = client.ApiextensionsV1Api()
        extensions.create_custom_resource_definition(definition)
        for event in watch.Watch().stream(extensions.list_custom_resource_definition, timeout_seconds=20):
            read = event["object"]
            conditions = {c.type: c.status for c in (read.status and read.status.conditions) or []}
            if read.metadata.name == definition.metadata.name and conditions.get("Established") == "True":
                break
        else:
            self.fail("the definition is not established")
        things = client.CustomObjectsApi()
        thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"size": 3}}
        made = things.create_namespaced_custom_object(group, "v1", NAMESPACE, plural, thing)
        self.assertEqual(made["spec"], {"size": 3, "colour": "red"})
        self.assertEqual(made["metadata"]["generation"], 1)
        wrong = {**thing, "metadata": {"name": "two"}, "spec": {"size": 0}}
        body = self.refused(422, "Invalid", things.create_namespaced_custom_object, group, "v1", NAMESPACE, plural, wrong)
        self.assertIn("spec.size in body should be greater than or equal to 1", body)
        patched = things.patch_namespaced_custom_object(group, "v1", NAMESPACE, plural, "one", {"spec": {"size": 4}})
        self.assertEqual((patched["spec"]["size"], patched["metadata"]["generation"]), (4, 2))
        status = {**patched, "status": {"ready": True}, "spec": {"size": 9}}
        written = things.replace_namespaced_custom_object_status(group, "v1", NAMESPACE, plural, "one", status)
        self.assertEqual((written["status"], written["spec"]["size"]), ({"ready": True}, 4))
        self.assertEqual(written["metadata"]["generation"], 2)
        listed = things.list_cluster_custom_object(group, "v1", plural)
        self.assertEqual([item["metadata"]["name"] for item in listed["items"]], ["one"])
        things.delete_collection_namespaced_custom_object(group, "v1", NAMESPACE, plural)
        self.assertEqual(things.list_namespaced_custom_object(group, "v1", NAMESPACE, plural)["items"], [])
        extensions.delete_custom_resource_definition(definition.metadata.name)

    def test_tokens(self):
        self.core.create_namespaced_service_account(
            NAMESPACE, client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot"))
        )
        request = client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
        )
        token = self.core.create_namespaced_service_account_token("robot", NAMESPACE, request).status.token
        own = client.Configuration()
        own.host = self.core.api_client.configuration.host
        own.ssl_ca_cert = self.core.api_client.configuration.ssl_ca_cert
        own.api_key = {"authorization": f"Bearer {token}"}
        robot = client.CoreV1Api(client.ApiClient(own))
        body = self.refused(403, "Forbidden", robot.list_namespaced_config_map, NAMESPACE)
        self.assertIn(f"system:serviceaccount:{NAMESPACE}:robot", body)
        client.RbacAuthorizationV1Api().create_namespaced_role_binding(
            NAMESPACE,
            client.V1RoleBinding(
                metadata=client.V1ObjectMeta(name="robot-reads"),
                role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="view"),
                subjects=[client.RbacV1Subject(kind="ServiceAccount", name="robot", namespace=NAMESPACE)],
            ),
        )
        self.assertTrue(robot.list_namespaced_config_map(NAMESPACE).metadata.resource_version)
        self.refused(403, "Forbidden", robot.list_namespaced_secret, NAMESPACE)

    def test_secrets_and_accounts(self):
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"word": "hello"})
        self.core.create_namespaced_secret(NAMESPACE, secret)
        self.assertEqual(self.core.read_namespaced_secret("s", NAMESPACE).data, {"word": "aGVsbG8="})
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")
            )
        )
        answer = client.AuthorizationV1Api().create_self_subject_access_review(review)
        self.assertTrue(answer.status.allowed)

    def test_dynamic(self):
        resources = dynamic.DynamicClient(client.ApiClient()).resources
        maps = resources.get(api_version="v1", kind="ConfigMap")
        made = maps.create(namespace=NAMESPACE, body={"metadata": {"name": "dynamic"}, "data": {"a": "1"}})
        self.assertEqual(made.data.a, "1")
        found = maps.get(namespace=NAMESPACE, label_selector="none=such")
        self.assertEqual(found.items, [])
        jobs = resources.get(api_version="batch/v1", kind="CronJob")
        self.assertTrue(jobs.namespaced)


if __name__ == "__main__":
    unittest.main(verbosity=2)
