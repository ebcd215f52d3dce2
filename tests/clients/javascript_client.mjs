// The JavaScript client against the server that KUBECONFIG names (run by kubectl_integration_test).
// CLIENT is the path of the client's entry file.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { pathToFileURL } from 'node:url';

const k8s = await import(pathToFileURL(process.env.CLIENT));
const namespace = 'javascript';

const config = new k8s.KubeConfig();
config.loadFromFile(process.env.KUBECONFIG);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

const configMap = (name, labels = {}, data = { key: 'value' }) => ({ metadata: { name, labels }, data });

const deployment = (name) => ({
    metadata: { name },
    spec: {
        replicas: 1,
        selector: { matchLabels: { app: name } },
        template: {
            metadata: { labels: { app: name } },
            spec: { containers: [{ name: 'main', image: 'registry.example/pause:1' }] },
        },
    },
});

/** The Status of a call that must fail so. */
async function refused(code, reason, call) {
    try {
        await call;
    } catch (error) {
        assert.equal(error.code, code, String(error));
        const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.equal(status.reason, reason);
        return status;
    }
    assert.fail(`not refused with ${code}`);
}

const patchWith = (kind) => k8s.setHeaderOptions('Content-Type', kind);

before(async () => {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
});

test('versions and groups', async () => {
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.match(version.gitVersion, /^v1\.\d+\.\d+/);
    const { groups } = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.some((group) => group.name === 'apps' && group.preferredVersion.version === 'v1'));
});

test('objects are written and read', async () => {
    const made = await core.createNamespacedConfigMap({ namespace, body: configMap('written') });
    assert.ok(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);
    const read = await core.readNamespacedConfigMap({ namespace, name: 'written' });
    read.data.key = 'other';
    const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'written', body: read });
    assert.equal(replaced.data.key, 'other');
    await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ namespace, name: 'written', body: read }));
    await refused(409, 'AlreadyExists', core.createNamespacedConfigMap({ namespace, body: configMap('written') }));
    const status = await core.deleteNamespacedConfigMap({ namespace, name: 'written' });
    assert.equal(status.status, 'Success');
    const gone = await refused(404, 'NotFound', core.readNamespacedConfigMap({ namespace, name: 'written' }));
    assert.equal(gone.message, 'configmaps "written" not found');
});

test('errors say which field', async () => {
    const wrong = deployment('wrong');
    wrong.spec.selector.matchLabels = { app: 'another' };
    const status = await refused(422, 'Invalid', apps.createNamespacedDeployment({ namespace, body: wrong }));
    assert.ok(status.details.causes.some((cause) => cause.field === 'spec.template.metadata.labels'));
});

test('pages are of one revision', async () => {
    const wanted = [];
    for (let index = 0; index < 25; index++) {
        const name = `page-${String(index).padStart(2, '0')}`;
        wanted.push(name);
        await core.createNamespacedConfigMap({ namespace, body: configMap(name, { set: 'pages' }) });
    }
    const seen = [];
    const revisions = new Set();
    let token;
    do {
        const page = await core.listNamespacedConfigMap({
            namespace, limit: 7, labelSelector: 'set=pages', _continue: token,
        });
        seen.push(...page.items.map((item) => item.metadata.name));
        revisions.add(page.metadata.resourceVersion);
        token = page.metadata._continue;
    } while (token);
    assert.deepEqual(seen, wanted);
    assert.equal(revisions.size, 1);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'set=pages' });
    const rest = await core.listNamespacedConfigMap({ namespace, labelSelector: 'set=pages' });
    assert.equal(rest.items.length, 0);
});

test('patches of every type', async () => {
    const name = 'patched';
    await apps.createNamespacedDeployment({ namespace, body: deployment(name) });
    const containers = [{ name: 'side', image: 'registry.example/side:1' }];
    const body = { spec: { template: { spec: { containers } } } };
    const patch = (kind, body) => apps.patchNamespacedDeployment({ namespace, name, body }, patchWith(kind));
    const strategic = await patch(k8s.PatchStrategy.StrategicMergePatch, body);
    assert.deepEqual(strategic.spec.template.spec.containers.map((c) => c.name).sort(), ['main', 'side']);
    const merged = await patch(k8s.PatchStrategy.MergePatch, body);
    assert.deepEqual(merged.spec.template.spec.containers.map((c) => c.name), ['side']);
    const operations = [{ op: 'replace', path: '/spec/replicas', value: 3 }];
    assert.equal((await patch(k8s.PatchStrategy.JsonPatch, operations)).spec.replicas, 3);
    const bad = [{ op: 'test', path: '/spec/replicas', value: 7 }];
    await refused(422, 'Invalid', patch(k8s.PatchStrategy.JsonPatch, bad));
});

test('scale', async () => {
    await apps.createNamespacedDeployment({ namespace, body: deployment('scaled') });
    // Its controller writes the deployment, too: a conflict is resolved by reading it again.
    for (let attempt = 1; ; attempt++) {
        const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'scaled' });
        assert.equal(scale.status.selector, 'app=scaled');
        scale.spec.replicas = 4;
        try {
            await apps.replaceNamespacedDeploymentScale({ namespace, name: 'scaled', body: scale });
            break;
        } catch (error) {
            if (error.code !== 409 || attempt === 20) throw error;
        }
    }
    assert.equal((await apps.readNamespacedDeployment({ namespace, name: 'scaled' })).spec.replicas, 4);
});

test('server-side apply', async () => {
    const name = 'applied';
    const apply = (data, fieldManager, force) => core.patchNamespacedConfigMap(
        { namespace, name, fieldManager, force, body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data } },
        patchWith(k8s.PatchStrategy.ServerSideApply),
    );
    await apply({ a: '1', b: '2' }, 'one');
    const conflict = await refused(409, 'Conflict', apply({ a: '9' }, 'two'));
    assert.deepEqual(conflict.details.causes.map((cause) => cause.field), ['.data.a']);
    const forced = await apply({ a: '9' }, 'two', true);
    assert.deepEqual(forced.data, { a: '9', b: '2' });
    const given = await apply({}, 'one');
    assert.deepEqual(given.data, { a: '9' });
});

/** The next `count` events after `revision`, and where the watch then stands. */
function events(path, revision, count) {
    return new Promise((resolve, reject) => {
        const seen = [];
        let last = revision;
        let request;
        const timer = setTimeout(() => reject(new Error(`only ${JSON.stringify(seen)}`)), 20000);
        const watch = new k8s.Watch(config);
        watch.watch(
            path,
            { resourceVersion: revision, allowWatchBookmarks: true },
            (type, object) => {
                last = object.metadata.resourceVersion;
                if (type !== 'BOOKMARK') seen.push(`${type} ${object.metadata.name}`);
                if (seen.length === count) {
                    clearTimeout(timer);
                    resolve({ seen: [...seen], revision: last });
                    request?.abort();
                }
            },
            () => {},
        ).then((opened) => {
            request = opened;
            if (seen.length >= count) request.abort();
        }, reject);
    });
}

test('a watch resumes', async () => {
    const list = await core.listNamespacedConfigMap({ namespace });
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    await core.createNamespacedConfigMap({ namespace, body: configMap('one', { set: 'watch' }) });
    await core.createNamespacedConfigMap({ namespace, body: configMap('two', { set: 'watch' }) });
    const first = await events(path, list.metadata.resourceVersion, 1);
    assert.deepEqual(first.seen, ['ADDED one']);
    await core.deleteNamespacedConfigMap({ namespace, name: 'one' });
    const second = await events(path, first.revision, 2);
    assert.deepEqual(second.seen, ['ADDED two', 'DELETED one']);
});

test('an informer keeps up', async () => {
    const labelSelector = 'set=informed';
    const path = `/api/v1/namespaces/${namespace}/secrets`;
    const list = () => core.listNamespacedSecret({ namespace, labelSelector });
    const informer = k8s.makeInformer(config, path, list, labelSelector);
    const happened = [];
    const arrived = new Promise((resolve) => {
        for (const kind of ['add', 'update', 'delete']) {
            informer.on(kind, (object) => {
                happened.push(`${kind} ${object.metadata.name}`);
                if (kind === 'delete') resolve();
            });
        }
    });
    const labels = { set: 'informed' };
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'before', labels }, stringData: { a: '1' } } });
    await informer.start();
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'after', labels } } });
    const body = [{ op: 'add', path: '/data', value: { a: 'Mg==' } }];
    await core.patchNamespacedSecret({ namespace, name: 'after', body }, patchWith(k8s.PatchStrategy.JsonPatch));
    await core.deleteNamespacedSecret({ namespace, name: 'after' });
    await arrived;
    await informer.stop();
    assert.deepEqual(happened, ['add before', 'add after', 'update after', 'delete after']);
});

test('objects without a class of their own', async () => {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const lease = {
        apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'generic', namespace },
        spec: { holderIdentity: 'me', leaseDurationSeconds: 10 },
    };
    const made = await objects.create(lease);
    assert.equal(made.spec.holderIdentity, 'me');
    const read = await objects.read(lease);
    read.spec.holderIdentity = 'you';
    assert.equal((await objects.replace(read)).spec.holderIdentity, 'you');
    await objects.delete(lease);
    await refused(404, 'NotFound', objects.read(lease));
});

test('custom objects', async () => {
    const group = 'javascript.example.com';
    const [version, plural] = ['v1', 'things'];
    const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
    const openAPIV3Schema = {
        type: 'object',
        properties: { spec: { type: 'object', properties: { size: { type: 'integer', minimum: 1 }, colour: { type: 'string', _default: 'red' } } } },
    };
    const name = `${plural}.${group}`;
    await definitions.createCustomResourceDefinition({
        body: {
            metadata: { name },
            spec: {
                group,
                scope: 'Namespaced',
                names: { plural, kind: 'Thing' },
                versions: [{ name: version, served: true, storage: true, schema: { openAPIV3Schema } }],
            },
        },
    });
    for (;;) {
        const { status } = await definitions.readCustomResourceDefinition({ name });
        if (status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True')) break;
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const things = config.makeApiClient(k8s.CustomObjectsApi);
    const body = { apiVersion: `${group}/v1`, kind: 'Thing', metadata: { name: 'one' }, spec: { size: 3 } };
    const at = { group, version, namespace, plural };
    const made = await things.createNamespacedCustomObject({ ...at, body });
    assert.equal(made.spec.size, 3);
    const wrong = { ...body, metadata: { name: 'two' }, spec: { size: 0 } };
    const refusal = await refused(422, 'Invalid', things.createNamespacedCustomObject({ ...at, body: wrong }));
    assert.equal(refusal.details.causes[0].field, 'spec.size');
    const operations = [{ op: 'replace', path: '/spec/size', value: 5 }];
    const patched = await things.patchNamespacedCustomObject({ ...at, name: 'one', body: operations });
    assert.equal(patched.spec.size, 5);
    const list = await things.listClusterCustomObject({ group, version, plural });
    assert.deepEqual(list.items.map((item) => item.metadata.name), ['one']);
    await things.deleteNamespacedCustomObject({ ...at, name: 'one' });
    await refused(404, 'NotFound', things.getNamespacedCustomObject({ ...at, name: 'one' }));
    await definitions.deleteCustomResourceDefinition({ name });
});
