//! Request parameters: the URL's query string and a form body, read as one list.

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, header};

/// Form bodies hold queries, not data.
const FORM_BYTES_MAX: usize = 10 << 20;

/// Name-value pairs in order: those of the body first, then those of the URL, as Go's `ParseForm` puts them.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// # Errors
    /// A text for a 400 when the body is too large or breaks off.
    pub async fn read(request: Request<Body>) -> Result<Params, String> {
        let (parts, body) = request.into_parts();
        let mut pairs = Vec::new();
        let form = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split(';').next())
            .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if form && matches!(parts.method, Method::POST | Method::PUT) {
            let bytes: Bytes = axum::body::to_bytes(body, FORM_BYTES_MAX)
                .await
                .map_err(|e| format!("error parsing form values: {e}"))?;
            pairs.extend(parse(&bytes));
        }
        pairs.extend(parse(parts.uri.query().unwrap_or("").as_bytes()));
        Ok(Params(pairs))
    }

    pub fn from_query(query: Option<&str>) -> Params {
        Params(parse(query.unwrap_or("").as_bytes()).collect())
    }

    /// The first value of a name; `None` when absent or empty, which mean the same to upstream.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Whether the name occurs, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.len()).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

fn parse(bytes: &[u8]) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(bytes).map(|(n, v)| (n.into_owned(), v.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn body_and_url_are_one_set() {
        let r = Request::post("/x?a=url&b=2&match[]=u")
            .header("content-type", "Application/X-WWW-Form-urlencoded ; charset=UTF-8")
            .body(Body::from("a=body&match%5B%5D=%7Bx%3D%22y%22%7D&c=1+2"))
            .expect("valid request");
        let p = Params::read(r).await.expect("valid form");
        assert_eq!(
            (p.get("a"), p.get("b"), p.get("c")),
            (Some("body"), Some("2"), Some("1 2"))
        );
        assert_eq!(p.all("match[]").collect::<Vec<_>>(), ["{x=\"y\"}", "u"]);
    }

    #[tokio::test]
    async fn a_get_body_is_not_read() {
        let r = Request::get("/x?a=1")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("a=2"))
            .expect("valid request");
        assert_eq!(Params::read(r).await.expect("fine").get("a"), Some("1"));
    }
}
