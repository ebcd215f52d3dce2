//! Content negotiation of answers (upstream: `negotiation/negotiate.go`).

use super::protobuf;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What is made of the objects before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    None,
    /// The version of `meta.k8s.io`: `v1` or `v1beta1`.
    Table(&'static str),
    PartialObject(&'static str),
    PartialList(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub format: Format,
    pub transform: Transform,
    /// `pretty` stood in the media type.
    pub pretty: bool,
}

impl Negotiated {
    pub const JSON: Self = Self {
        format: Format::Json,
        transform: Transform::None,
        pretty: false,
    };
}

/// What an endpoint answers with, which decides the transforms it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Object,
    List,
    Watch,
    /// Neither: discovery, statuses of connections, errors.
    Plain,
}

/// In the order in which wildcards match.
const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];

/// Picks the first clause of `Accept` that can be served: by quality, exact types before wildcards, then by order.
/// `kind`: what is answered, if it is of a kind; custom resources have no protobuf form.
pub fn negotiate(accept: Option<&str>, shape: Shape, kind: Option<&Kind>) -> Result<Negotiated, ApiError> {
    let accept = accept.unwrap_or("").trim();
    if accept.is_empty() || accept == "application/json" || accept == "*/*" {
        return Ok(Negotiated::JSON);
    }
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(Clause::parse).collect();
    // Stable: equal qualities keep their order.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(a.wildcards.cmp(&b.wildcards)));
    let offered: Vec<Format> = FORMATS
        .into_iter()
        .filter(|format| match format {
            Format::Json => true,
            Format::Yaml => shape != Shape::Watch,
            Format::Protobuf => kind.is_none_or(protobuf::is_offered),
        })
        .collect();
    let mut chosen = clauses.iter().filter_map(|clause| clause.serve(shape, kind, &offered));
    chosen.next().unwrap_or_else(|| {
        let suffix = if shape == Shape::Watch { ";stream=watch" } else { "" };
        let types = offered.iter().map(|format| format!("{}{suffix}", format.media_type()));
        Err(ApiError::not_acceptable(&types.collect::<Vec<_>>()))
    })
}

/// What Go calls the objects of the kind inside of the server.
fn go_type(kind: &Kind, shape: Shape) -> String {
    let suffix = if shape == Shape::List { "List" } else { "" };
    if !protobuf::is_offered(kind) {
        return format!("*unstructured.Unstructured{suffix}");
    }
    let package = match kind.group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("*{package}.{}{suffix}", kind.kind)
}

/// One clause of an Accept header.
struct Clause<'a> {
    media_type: &'a str,
    /// How many of type and subtype are `*`.
    wildcards: usize,
    quality: f32,
    kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    stream: &'a str,
    pretty: bool,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|m| !m.is_empty())?;
        let mut clause = Self {
            media_type,
            wildcards: media_type.split('/').filter(|part| *part == "*").count(),
            quality: 1.0,
            kind: None,
            group: None,
            version: None,
            stream: "",
            pretty: false,
        };
        for parameter in parts {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                "as" => clause.kind = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "stream" => clause.stream = value,
                "pretty" => clause.pretty = value == "1",
                _ => {}
            }
        }
        Some(clause)
    }

    /// None: the clause asks for what is not offered here. Err: it names a form that this shape cannot take.
    fn serve(&self, shape: Shape, kind: Option<&Kind>, offered: &[Format]) -> Option<Result<Negotiated, ApiError>> {
        let matches = |format: &Format| match self.media_type {
            "*/*" | "application/*" => true,
            exact => exact == format.media_type(),
        };
        let streams = matches!(self.stream, "" | "watch") && (self.stream.is_empty() || shape != Shape::Plain);
        let serve = |format: Format| {
            let transform = self.transform(shape, kind, format)?;
            Some(transform.map(|transform| Negotiated {
                format,
                transform,
                pretty: self.pretty,
            }))
        };
        let fitting = offered.iter().copied().filter(matches).filter(|_| streams);
        fitting.filter_map(serve).next()
    }

    fn transform(&self, shape: Shape, row: Option<&Kind>, format: Format) -> Option<Result<Transform, ApiError>> {
        let Some(kind) = self.kind.filter(|kind| !kind.is_empty()) else {
            return Some(Ok(Transform::None));
        };
        let version = match (self.group, self.version) {
            (Some("meta.k8s.io"), Some("v1")) => "v1",
            (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
            _ => return None,
        };
        let unfit = |what: &str| {
            let go_type = row.map(|row| go_type(row, shape)).unwrap_or_default();
            let why = format!("you requested {kind}, but the requested object is {what} ({go_type})");
            Some(Err(ApiError::unacceptable(why)))
        };
        match (kind, shape) {
            (_, Shape::Plain) => None,
            ("Table", _) if format == Format::Protobuf => None,
            ("Table", _) => Some(Ok(Transform::Table(version))),
            ("PartialObjectMetadata", Shape::List) => unfit("a list"),
            ("PartialObjectMetadata", _) => Some(Ok(Transform::PartialObject(version))),
            ("PartialObjectMetadataList", Shape::Object) => unfit("not a list"),
            ("PartialObjectMetadataList", _) => Some(Ok(Transform::PartialList(version))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn transform(accept: &str, shape: Shape) -> Result<(Format, Transform), u16> {
        negotiate(Some(accept), shape, None)
            .map(|n| (n.format, n.transform))
            .map_err(|e| e.code().as_u16())
    }

    fn custom_kind() -> Kind {
        let pods = Registry::builtin().lookup("", "v1", "pods").unwrap();
        Kind {
            group: "stable.example.com",
            ..Kind::clone(&pods)
        }
    }

    #[test]
    fn clauses_are_tried_by_quality_then_order() {
        use Format::*;
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(transform(kubectl, Shape::List), Ok((Json, Transform::Table("v1"))));
        assert_eq!(transform(kubectl, Shape::Plain), Ok((Json, Transform::None)));
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(transform(typed, Shape::Object), Ok((Protobuf, Transform::None)));
        assert_eq!(transform(typed, Shape::Watch), Ok((Protobuf, Transform::None)));
        let custom = negotiate(Some(typed), Shape::Object, Some(&custom_kind())).map(|n| n.format);
        assert_eq!(custom.map_err(|e| e.code().as_u16()), Ok(Json));
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/yaml";
        assert_eq!(transform(table, Shape::List), Ok((Yaml, Transform::None)));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        assert_eq!(
            transform(partial, Shape::Object),
            Ok((Protobuf, Transform::PartialObject("v1")))
        );
        assert_eq!(
            transform("*/*,application/yaml", Shape::Object),
            Ok((Yaml, Transform::None))
        );
        assert_eq!(
            transform("application/json;stream=watch", Shape::Object),
            Ok((Json, Transform::None))
        );
        assert_eq!(
            transform("application/json;q=0.1,application/yaml", Shape::Object),
            Ok((Yaml, Transform::None))
        );
        assert_eq!(
            transform("text/html,*/*;q=0.8", Shape::Object),
            Ok((Json, Transform::None))
        );
        assert_eq!(
            transform("application/json;stream=watch", Shape::Watch),
            Ok((Json, Transform::None))
        );
    }

    #[test]
    fn what_cannot_be_served_is_406() {
        assert_eq!(transform("text/html", Shape::Object), Err(406));
        assert_eq!(transform("application/yaml", Shape::Watch), Err(406));
        assert_eq!(transform("application/json;stream=other", Shape::Watch), Err(406));
        let kind = custom_kind();
        let custom = negotiate(Some("application/vnd.kubernetes.protobuf"), Shape::Object, Some(&kind)).unwrap_err();
        assert_eq!(
            custom.message(),
            "only the following media types are accepted: application/json, application/yaml"
        );
        let watch = negotiate(Some("text/html"), Shape::Watch, None).unwrap_err();
        assert_eq!(
            watch.message(),
            "only the following media types are accepted: application/json;stream=watch, \
             application/vnd.kubernetes.protobuf;stream=watch"
        );
        let one = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(transform(one, Shape::List), Err(406));
        let deployments = Registry::builtin().lookup("apps", "v1", "deployments").unwrap();
        let list = negotiate(Some(one), Shape::List, Some(&deployments)).unwrap_err();
        assert_eq!(
            list.message(),
            "you requested PartialObjectMetadata, but the requested object is a list (*apps.DeploymentList)"
        );
        let many = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(transform(many, Shape::Object), Err(406));
    }
}
