//! Bodies that kubectl 1.32 sent, and broken ones.

use super::*;
use serde_json::json;

const NAMESPACE: &str = "\
    6b3873000a0f0a02763112094e616d657370616365121c0a140a0464656d6f12001a0022002a0032003800420012001a020a\
    001a002200\
";
const SECRET: &str = "\
    6b3873000a0c0a0276311206536563726574121d0a110a017312001a0022002a0032003800420012060a01701201771a001a\
    002200\
";
const DEPLOYMENT: &str = "\
    6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b0010a1b0a016412001a0022002a003200380042005a\
    080a036170701201641282010802120a0a080a036170701201641a6a0a1a0a0012001a0022002a003200380042005a080a03\
    617070120164124c122e0a056e67696e7812056e67696e782a00320a0a001000185022002a0042006a007200800100880100\
    900100a201001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c080010001800\
    2000280038001a002200\
";
const TOKEN: &str = "\
    6b3873000a280a1861757468656e7469636174696f6e2e6b38732e696f2f7631120c546f6b656e52657175657374121d0a10\
    0a0012001a0022002a00320038004200120320901c1a040a0012001a002200\
";
const QUOTA: &str = "\
    6b3873000a130a027631120d5265736f7572636551756f746112230a110a017112001a0022002a00320038004200120c0a0a\
    0a0363707512030a01311a001a002200\
";
const SERVICE: &str = "\
    6b3873000a0d0a027631120753657276696365126c0a1f0a0373766312001a0022002a003200380042005a0a0a0361707012\
    0373766312450a1e0a0738302d6874747012035443501850220a080110001a04687474702800120a0a036170701203737663\
    1a002209436c757374657249503a00420052005a00600068001a020a001a002200\
";
const BUDGET: &str = "\
    6b3873000a200a09706f6c6963792f76311213506f6444697372757074696f6e42756467657412360a110a017012001a0022\
    002a0032003800420012150a09080110001a0335302512080a060a01611201621a0a080018002000280030001a002200\
";

const ALL: [&str; 7] = [NAMESPACE, SECRET, DEPLOYMENT, TOKEN, QUOTA, SERVICE, BUDGET];

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("hexadecimal digits")
}

fn read(text: &str) -> Value {
    let (api_version, kind, object) = decode(&bytes(text)).expect("a body of kubectl");
    assert_eq!(
        (object["apiVersion"].as_str(), object["kind"].as_str()),
        (Some(&*api_version), Some(&*kind))
    );
    Value::Object(object)
}

#[test]
fn bodies_of_kubectl_are_read() {
    assert_eq!(
        read(NAMESPACE),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}})
    );
    assert_eq!(
        read(SECRET),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "dw=="}})
    );
    assert_eq!(
        read(DEPLOYMENT),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "labels": {"app": "d"}},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "d"}},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}]}]}
                }
            }
        })
    );
    assert_eq!(read(TOKEN)["spec"], json!({"expirationSeconds": 3600}));
    assert_eq!(read(QUOTA)["spec"], json!({"hard": {"cpu": "1"}}));
    assert_eq!(read(SERVICE)["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(read(BUDGET)["spec"]["minAvailable"], "50%");
}

#[test]
fn what_was_read_is_written_as_kubectl_wrote_it() {
    for text in ALL {
        let (_, _, object) = decode(&bytes(text)).expect("a body of kubectl");
        let written = encode_body(&object).expect("it fits its schema").expect("a known kind");
        assert_eq!(hex::encode(written), text, "{object:?}");
    }
}

#[test]
fn lists_events_and_envelopes() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "message": "m", "reason": "NotFound", "details": {"name": "n", "kind": "pods"}});
    let body = encode_body(status.as_object().expect("an object"))
        .expect("fits")
        .expect("known");
    assert_eq!(decode(&body).map(|(_, _, object)| Value::Object(object)), Ok(status));
    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": {"resourceVersion": "7", "continue": "c", "remainingItemCount": 3},
        "items": [{"metadata": {"name": "a"}, "data": {"k": "v"}}, {"metadata": {"name": "b"}}]});
    let body = encode_body(list.as_object().expect("an object"))
        .expect("fits")
        .expect("known");
    // In parts it is the same.
    let mut parts = list_metadata(list["metadata"].as_object().expect("an object")).expect("fits");
    let definition = schema::lookup("v1", "ConfigMap").expect("known");
    for item in list["items"].as_array().expect("a list") {
        push_item(
            &mut parts,
            &encode_json(&definition, item.to_string().as_bytes()).expect("fits"),
        );
    }
    assert_eq!(body, wrap("v1", "ConfigMapList", &parts));
    assert_eq!(decode(&body).map(|(_, _, object)| Value::Object(object)), Ok(list));
    let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}});
    let body = encode_body(partial.as_object().expect("an object"))
        .expect("fits")
        .expect("known");
    assert_eq!(decode(&body).map(|(_, _, object)| Value::Object(object)), Ok(partial));
    let custom = json!({"kind": "Crontab", "apiVersion": "stable.example.com/v1", "metadata": {"name": "a"}});
    assert_eq!(encode_body(custom.as_object().expect("an object")), Ok(None));

    let event = watch_event("ADDED", b"k8s\0x", true);
    assert_eq!(event, b"\0\0\0\x10\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x");
    assert_eq!(watch_event("ADDED", b"k8s\0x", false), event[4..]);
}

#[test]
fn what_json_would_say_is_the_same() {
    for text in ALL {
        let object = read(text);
        let definition = schema::lookup(
            object["apiVersion"].as_str().unwrap_or_default(),
            object["kind"].as_str().unwrap_or_default(),
        );
        let decoded = schema::decode(&definition.expect("a known kind"), object.to_string().as_bytes()).expect("valid");
        assert_eq!(Value::Object(decoded.object), object);
        assert_eq!(decoded.strict, [""; 0]);
    }
}

#[test]
fn broken_bodies_are_errors() {
    for (body, error) in [
        (&b""[..], "expected prefix"),
        (b"k8s", "expected prefix"),
        (b"{}", "expected prefix"),
        (b"k8s\0", "no kind"),
        (b"k8s\0\x0a\xff", "Unknown"),
        (
            b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Widge",
            "no kind \"Widge\" is registered for version \"v1\"",
        ),
        (
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x0a\x7f",
            "proto: Pod: unexpected EOF",
        ),
        (
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x08\x01",
            "proto: Pod: field 1 is not length-delimited",
        ),
        (
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x01\x0b",
            "groups are not supported",
        ),
    ] {
        let message = decode(body).expect_err("a broken body");
        assert!(message.contains(error), "{message:?} has not {error:?}");
    }
}

#[test]
fn messages_within_messages_have_an_end() {
    // `not: {not: {not: …}}` of a custom resource's schema, field 28.
    let mut message = Vec::new();
    for _ in 0..10_000 {
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(28, &message, &mut outer);
        message = outer;
    }
    let definition = schema::type_definition::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps,
    >();
    let error = decode::read(&definition, &message, &mut Map::new(), DEPTH_MAX).expect_err("too deep");
    assert!(error.contains("exceeded max recursion depth"), "{error}");
}

#[test]
fn no_change_of_a_byte_is_a_panic() {
    let mut read = 0;
    for text in ALL {
        let body = bytes(text);
        for at in 0..body.len() {
            let _ = decode(&body[..at]);
            for value in [0, 1, 0x7f, 0x80, 0xff, body[at] ^ 7, body[at].wrapping_add(1)] {
                let mut changed = body.clone();
                changed[at] = value;
                read += usize::from(decode(&changed).is_ok());
            }
        }
    }
    // Most changes of names and values leave a body that can be read.
    assert!(read > 500, "{read}");
}
