//! `/logs`: the log files of the machine that the server runs on (upstream: `pkg/routes/logs.go`, a file server on
//! `/var/log`). Authorization comes before it, as for every path.

use super::error::{ApiError, Subject};
use poem::http::{StatusCode, header};
use poem::{Body, Response};
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "/var/log";
/// A path is no resource.
const NOTHING: Subject<'static> = Subject {
    group: "",
    resource: "",
};

/// The file or the list of files at `segments` below the directory.
pub async fn handle(segments: &[&str]) -> Result<Response, ApiError> {
    let path = locate(Path::new(DIRECTORY), segments)
        .await
        .ok_or_else(ApiError::unknown_path)?;
    if path.is_dir() {
        return list(&path).await.map_err(ApiError::internal);
    }
    let file = tokio::fs::File::open(&path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => ApiError::forbidden(NOTHING, "", "the log file cannot be read"),
        _ => ApiError::unknown_path(),
    })?;
    Ok(Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::from_async_read(file)))
}

/// The path on disk. None if nothing is there, or if it leads out of the directory, by dots or by a link.
async fn locate(directory: &Path, segments: &[&str]) -> Option<PathBuf> {
    let mut path = directory.to_owned();
    for segment in segments.iter().filter(|segment| !segment.is_empty()) {
        let segment = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        if matches!(&*segment, "." | "..") || segment.contains(['/', '\0']) {
            return None;
        }
        path.push(&*segment);
    }
    let real = tokio::fs::canonicalize(&path).await.ok()?;
    let root = tokio::fs::canonicalize(directory).await.ok()?;
    real.starts_with(root).then_some(real)
}

async fn list(directory: &Path) -> std::io::Result<Response> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(directory).await?;
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        let link =
            percent_encoding::utf8_percent_encode(name.trim_end_matches('/'), percent_encoding::NON_ALPHANUMERIC);
        let slash = if name.ends_with('/') { "/" } else { "" };
        page.push_str(&format!("<a href=\"{link}{slash}\">{}</a>\n", escape(&name)));
    }
    page.push_str("</pre>\n");
    Ok(Response::builder().content_type("text/html; charset=utf-8").body(page))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_outside_of_the_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        std::fs::create_dir_all(logs.join("pods")).unwrap();
        std::fs::write(logs.join("pods/a b.log"), "x").unwrap();
        std::fs::write(directory.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(directory.path().join("secret"), logs.join("link")).unwrap();
        let found = async |segments: &[&str]| locate(&logs, segments).await.is_some();
        assert!(found(&["pods", "a%20b.log"]).await);
        assert!(found(&[]).await && found(&["pods", ""]).await);
        for out in [
            &["..", "secret"][..],
            &["%2e%2e", "secret"],
            &["..%2fsecret"],
            &["link"],
            &["absent"],
        ] {
            assert!(!found(out).await, "{out:?}");
        }
        let page = list(&logs).await.unwrap().into_body().into_string().await.unwrap();
        assert!(page.contains("<a href=\"pods/\">pods/</a>"), "{page}");
    }
}
