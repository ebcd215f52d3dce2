//! The parameters of operations (upstream: the `…Options` types of `meta/v1` and `core/v1`, which routes read their
//! queries into).

/// One parameter in the path or the query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    /// `string`, `boolean` or `integer`.
    pub kind: &'static str,
    pub in_path: bool,
    pub description: &'static str,
}

const fn text(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "string",
        in_path: false,
        description,
    }
}

const fn flag(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "boolean",
        in_path: false,
        description,
    }
}

const fn number(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "integer",
        in_path: false,
        description,
    }
}

const fn segment(name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        kind: "string",
        in_path: true,
        description,
    }
}

/// The lists that operations put together.
pub mod lists {
    use super::{Parameter, flag, number, segment, text};

    const CONTAINER: Parameter = text("container", "the container; needed where the pod has more than one");
    const STDIN: Parameter = flag("stdin", "connect standard input");
    const STDOUT: Parameter = flag("stdout", "connect standard output");
    const STDERR: Parameter = flag("stderr", "connect standard error");
    const TTY: Parameter = flag("tty", "a terminal");

    pub const NAME: &[Parameter] = &[segment("name", "name of the object")];
    pub const NAMESPACE: &[Parameter] = &[segment("namespace", "namespace of the object")];
    pub const PATH: &[Parameter] = &[segment("path", "the rest of the URL, passed on")];
    pub const LOG_PATH: &[Parameter] = &[segment("logpath", "path of the file")];
    pub const READ: &[Parameter] = &[text("pretty", "'true' for indented output")];
    pub const LIST: &[Parameter] = &[
        flag("allowWatchBookmarks", "send BOOKMARK events in a watch"),
        text("continue", "go on with a list where the token says"),
        text("fieldSelector", "only objects with these fields"),
        text("labelSelector", "only objects with these labels"),
        number("limit", "at most so many objects, and a token to go on with"),
        text("resourceVersion", "not older than this version, or exactly it"),
        text("resourceVersionMatch", "Exact or NotOlderThan"),
        flag("sendInitialEvents", "begin a watch with the objects that are there"),
        number("timeoutSeconds", "end the answer after so many seconds"),
        flag("watch", "changes instead of a list"),
    ];
    /// Which objects a deletion of many means.
    pub const SELECT: &[Parameter] = &[
        text("continue", "go on with a list where the token says"),
        text("fieldSelector", "only objects with these fields"),
        text("labelSelector", "only objects with these labels"),
        number("limit", "at most so many objects"),
        text("resourceVersion", "not older than this version, or exactly it"),
        text("resourceVersionMatch", "Exact or NotOlderThan"),
        flag("sendInitialEvents", "for watches only"),
        number("timeoutSeconds", "give up after so many seconds"),
    ];
    pub const WRITE: &[Parameter] = &[
        text("dryRun", "'All': do everything but store the result"),
        text("fieldManager", "who is said to have set the fields"),
        text(
            "fieldValidation",
            "what is done about unknown and duplicate fields: Ignore, Warn or Strict",
        ),
    ];
    pub const FORCE: &[Parameter] = &[flag("force", "take over fields of others; for server-side apply only")];
    pub const DELETE: &[Parameter] = &[
        text("dryRun", "'All': do everything but store the result"),
        number(
            "gracePeriodSeconds",
            "seconds until the object is removed; 0 is at once",
        ),
        flag(
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "no effect: every stored object can be read",
        ),
        flag("orphanDependents", "deprecated: use propagationPolicy"),
        text(
            "propagationPolicy",
            "what becomes of dependents: Orphan, Background or Foreground",
        ),
    ];
    /// `sinceTime` is read, too; upstream has no way to describe a time in a query.
    pub const LOG: &[Parameter] = &[
        CONTAINER,
        flag("follow", "go on as the container writes"),
        flag("insecureSkipTLSVerifyBackend", "do not check the node's certificate"),
        number("limitBytes", "at most so many bytes"),
        flag("previous", "the container that ran before the last restart"),
        number("sinceSeconds", "only the last so many seconds"),
        text("stream", "All, Stdout or Stderr"),
        number("tailLines", "only the last so many lines"),
        flag("timestamps", "begin each line with its time"),
    ];
    pub const ATTACH: &[Parameter] = &[CONTAINER, STDERR, STDIN, STDOUT, TTY];
    pub const EXEC: &[Parameter] = &[
        text("command", "the command, one parameter per word"),
        CONTAINER,
        STDERR,
        STDIN,
        STDOUT,
        TTY,
    ];
    pub const PORT_FORWARD: &[Parameter] = &[number("ports", "ports of the pod; needed over WebSocket")];
    pub const PROXY: &[Parameter] = &[text("path", "the URL to ask for")];
}
