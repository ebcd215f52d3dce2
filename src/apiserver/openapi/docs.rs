//! `/docs`: the API to read, in RapiDoc, which poem-openapi carries in the binary. No counterpart upstream.
//!
//! `/docs` lists the group-versions; `/docs/apis/apps/v1` shows one. The page loads the same document that clients
//! load; nothing comes from another host.

use super::published::{Published, url};
use crate::apiserver::version::git_version;
use poem::web::Html;
use poem::{IntoResponse, Response};
use poem_openapi::{OpenApi, OpenApiService};

/// An API without operations: RapiDoc's page is made of it, and the address of the document put in.
struct Nothing;

#[OpenApi]
impl Nothing {}

/// The page of the document with this key, if there is one.
pub fn page(published: &Published, key: &str) -> Option<Response> {
    let hash = published.hash(key)?;
    Some(Html(rapidoc(&url(key, hash))).into_response())
}

/// Links to the pages.
pub fn list(published: &Published) -> Response {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Kubernetes API</title>\
         <style>body{font:16px/1.6 sans-serif;margin:3em auto;max-width:40em}</style><h1>Kubernetes API</h1><ul>",
    );
    for key in published.keys() {
        page.push_str(&format!("<li><a href=\"/docs/{key}\">{key}</a></li>"));
    }
    page.push_str("</ul></html>");
    Html(page).into_response()
}

fn rapidoc(url: &str) -> String {
    let service = OpenApiService::new(Nothing, "Kubernetes", git_version());
    let page = service
        .rapidoc_html()
        .replacen(&service.spec(), &format!("\"{url}\""), 1);
    without_foreign_fonts(&page)
}

/// RapiDoc's template asks another host for fonts; the browser's own do as well.
fn without_foreign_fonts(page: &str) -> String {
    let Some(start) = page.find("<link href=\"https://") else {
        return page.to_owned();
    };
    let end = page[start..].find('>').map_or(start, |length| start + length + 1);
    format!("{}{}", &page[..start], &page[end..])
}
