//! The page for people: the files of `web/`, as any server of static files would hand them out, and what belongs to
//! them. Nothing of it takes part in the API.

mod viewer;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::header::{REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};

use crate::server::problem;
use viewer::{Fetching, Found, Viewer};

/// What a browser may do for our own pages: run and load what this server has, and nothing that stands in a text. The
/// pages say the same of themselves in a `<meta>`, for servers that send no headers.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'",
);
/// What it may do for the viewer, which styles itself as it goes.
const VIEWER_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; font-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);
/// The page with the viewer.
const REFERENCE: &str = "/reference.html";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
/// The longest path that has a file: directory and name.
const MOST_SEGMENTS: usize = 2;

/// Where the page's files are.
#[derive(Clone, Debug)]
pub struct Page {
    web: PathBuf,
    openapi: PathBuf,
    viewer: Viewer,
}

impl Page {
    /// The page of a checkout, without a viewer. A directory without `web/` has none.
    pub fn of(root: &Path) -> Self {
        Self { web: root.join("web"), openapi: root.join("openapi.yaml"), viewer: Viewer::absent() }
    }

    /// The page of a checkout, with a viewer that is fetched into `state`, for as long as the second value lives.
    pub(crate) fn with_viewer(root: &Path, state: PathBuf) -> (Self, Fetching) {
        let page = Self { viewer: Viewer::default(), ..Self::of(root) };
        let fetching = page.viewer.fetch(page.web.clone(), state);
        (page, fetching)
    }

    /// Answers with a file, when the path names one. `/` is the start page for whoever asks for HTML, as browsers do.
    pub(crate) async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let path = if path == "/" && wants_html(headers) { "/index.html" } else { path };
        let kind = media_type(path)?;
        let file = match path.strip_prefix("/viewer/").map(|name| self.viewer.find(name)) {
            Some(Some(Found::At(file))) => file,
            Some(Some(Found::NotYet)) => {
                return Some(problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "viewer_not_yet",
                    "It is being fetched from npm.",
                ));
            }
            Some(Some(Found::Never(reason))) => return Some(problem(StatusCode::NOT_FOUND, "no_viewer", &reason)),
            Some(None) => return None,
            None if path == "/openapi.yaml" => self.openapi.clone(),
            None => self.web.join(safe(path)?),
        };
        let content = tokio::fs::read(file).await.ok()?;
        let mut answer = Response::new(Bytes::from(content));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // Whoever works on the page wants to see what they saved.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert(CONTENT_SECURITY_POLICY, if path == REFERENCE { VIEWER_POLICY } else { POLICY });
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
        Some(answer)
    }
}

/// curl and scripts take anything and get text.
fn wants_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

/// The path below a directory, unless it leads out of it or to what is hidden.
fn safe(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let good = |segment: &str| !segment.starts_with('.') && !segment.is_empty() && segment.chars().all(plain);
    let mut segments = path.split('/');
    (segments.clone().count() <= MOST_SEGMENTS && segments.all(good)).then_some(path)
}

/// What a file is, by its name; what is not of the page's kinds is not handed out.
fn media_type(path: &str) -> Option<&'static str> {
    match Path::new(path).extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "yaml" => Some("application/yaml"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    async fn get(path: &str, accept: &'static str) -> Option<Response<Bytes>> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        Page::of(&root()).answer(&Method::GET, path, &headers).await
    }

    #[tokio::test]
    async fn a_browser_gets_the_page_and_a_script_the_text() {
        let page = get("/", "text/html,application/xhtml+xml,*/*;q=0.8").await.expect("the page");
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(page.body().starts_with(b"<!doctype html>"));
        assert!(get("/", "*/*").await.is_none());
        assert!(Page::of(&root()).answer(&Method::POST, "/", &page.headers().clone()).await.is_none());
    }

    #[tokio::test]
    async fn only_the_pages_own_files_are_handed_out() {
        for path in ["/console.html", "/style.css", "/config.js", "/icon.svg", "/modules/console.js"] {
            assert!(get(path, "*/*").await.is_some(), "{path}");
        }
        for path in [
            "/package.json",
            "/.npmrc",
            "/../template.yaml",
            "/modules/../config.js",
            "/modules//console.js",
            "//config.js",
            "/%2e%2e/template.yaml",
            "/modules",
            "/viewer/index.js",
        ] {
            assert!(get(path, "*/*").await.is_none(), "{path}");
        }
        assert_eq!(get("/viewer/swagger-ui.css", "*/*").await.expect("a reason").status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn no_file_stands_where_a_route_of_the_api_is() {
        let template = Template::read(&root().join("template.yaml")).expect("the template");
        let routes = template.functions.iter().flat_map(|function| &function.routes);
        let taken: Vec<&str> = routes.filter_map(|route| route.path.split('/').nth(1)).chain(["_local"]).collect();
        assert!(taken.contains(&"courses"));
        let files = std::fs::read_dir(root().join("web")).expect("the files");
        let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
        for name in names.chain(["openapi.yaml".to_owned(), "viewer".to_owned()]) {
            assert!(!taken.contains(&name.as_str()), "{name} is a route of the API");
        }
    }

    #[test]
    fn the_pages_say_the_same_policy_of_themselves_but_for_what_only_a_header_can() {
        for (file, policy) in [("index", POLICY), ("console", POLICY), ("reference", VIEWER_POLICY)] {
            let page = std::fs::read_to_string(root().join(format!("web/{file}.html"))).expect("a page");
            let own = policy.to_str().expect("text").replace("frame-ancestors 'none'; ", "");
            let own = own.trim_end_matches("; frame-ancestors 'none'");
            assert!(
                page.contains(&format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{own}\">")),
                "{file}"
            );
        }
    }
}
